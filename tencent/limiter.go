package tencent

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"tiwkeyd/rotator"
)

// Limiter hands out the places within the limit of one API, which all programs of an account share,
// whether they know of each other or not. It sends as fast as it may (additive increase) and slows down when
// Tencent says RequestLimitExceeded (multiplicative decrease), from where it is soon back at a little
// less than what was too much, as TCP shares a line (RFC 9438). The most urgent
// call that waits goes first, and of those the one that waits longest. While nobody waits it
// costs nothing.
type Limiter struct {
	mu      sync.Mutex
	most    float64 // places a second
	allowed float64
	step    float64       // by how much allowed grows in a second
	plateau float64       // up to where it grows faster after it became less
	quiet   time.Duration // for how long calls were sent as fast as allowed, since step last changed
	slowed  time.Time     // when allowed last became less

	turns  turns // with other replicas that are known
	delays delays

	last    time.Time // the last place
	waiting waiters
	arrived int // so far, for their order
	granted int
	limited int64
	timer   *time.Timer // nil: nobody waits
}

const (
	// margin keeps calls that are a little early on their way out of the second before.
	margin = 0.975
	// startShare is the share of the limit that a program begins with: the others may use the rest.
	startShare = 0.25
	// slower is what is left of the rate at a RequestLimitExceeded, found at the first, when it
	// grew fast.
	slower, found = 0.93, 0.75
	// What of the rate before comes back, with the time constant recovery.
	slowerBack, foundBack = 0.985, 0.95
	recovery              = 20 * time.Second
	// The step of the increase, as a share of the limit per second: until the limit is found,
	// after that, and how large it gets when it doubles with each further spell in which Tencent
	// says nothing. The small one makes an excess rare: less than one call in a thousand.
	findStep, steadyStep, largestStep = 1.0 / 20, 1.0 / 100000, 1.0 / 100
	doubleAfter                       = 2 * time.Minute
	leastShare                        = 1.0 / 100
	// lowShare is how often the call that came first gets the place of a more urgent one.
	lowShare = 50
)

// NewLimiter gives a Limiter for so many calls a second at most.
func NewLimiter(rate float64) *Limiter {
	most := rate * margin
	return &Limiter{most: most, allowed: most * startShare, step: most * findStep}
}

// Wait waits for a place, and returns when that was. Its error is ctx's.
func (l *Limiter) Wait(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	l.mu.Lock()
	w := &waiter{urgency: rotator.UrgencyOf(ctx), number: l.arrived, place: make(chan time.Time, 1)}
	l.arrived++
	heap.Push(&l.waiting, w)
	if l.timer == nil {
		l.serve(false)
	}
	l.mu.Unlock()
	select {
	case at := <-w.place:
		return at, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.index >= 0 {
		heap.Remove(&l.waiting, w.index)
	} // else its place is lost: nobody is told that it is free
	return time.Time{}, ctx.Err()
}

// serve grants the places whose time has come and sees to the next. behind says that the calls had
// to wait. The caller holds l.mu.
func (l *Limiter) serve(behind bool) {
	l.timer = nil
	for l.waiting.Len() > 0 {
		l.pay()
		now := time.Now()
		gap := interval(l.allowed)
		at := l.last.Add(gap)
		if l.takesTurns() {
			at = l.turns.next(at, now)
		}
		if wait := at.Sub(now); wait > 0 {
			l.timer = time.AfterFunc(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.serve(true)
			})
			return
		}
		if behind && l.waiting[0].urgency > rotator.Looking { // who can wait need not exceed the limit to find it
			l.grow(min(now.Sub(l.last), gap))
		}
		// A timer that was late must not make the rate less; nobody may save up places, though.
		l.last = l.last.Add(gap)
		switch {
		case l.takesTurns():
			if credit := at.Add(-l.turns.round()); l.last.Before(credit) {
				l.last = credit
			}
			l.turns.taken = at
			l.next().place <- at
		case now.Sub(l.last) > gap/4:
			l.last = now
			fallthrough
		default:
			l.next().place <- l.last
		}
	}
}

// interval is the time from one call to the next at so many a second.
func interval(rate float64) time.Duration { return time.Duration(float64(time.Second) / rate) }

// next takes out who is to go. The caller holds l.mu.
func (l *Limiter) next() *waiter {
	l.granted++
	first := 0
	if l.granted%lowShare == 0 {
		for i, w := range l.waiting {
			if w.number < l.waiting[first].number {
				first = i
			}
		}
	}
	return heap.Remove(&l.waiting, first).(*waiter)
}

// grow makes the rate larger by what a spell of d is worth. The caller holds l.mu.
func (l *Limiter) grow(d time.Duration) {
	back := max(0, l.plateau-l.allowed) * min(1, d.Seconds()/recovery.Seconds())
	l.allowed = min(l.most, l.allowed+back+l.step*d.Seconds())
	if l.allowed == l.most {
		l.step, l.quiet = l.most*steadyStep, 0
	}
	if l.quiet += d; l.quiet >= doubleAfter && l.step < l.most*findStep {
		l.quiet, l.step = 0, min(2*l.step, l.most*largestStep)
	}
}

// Exceeded says that Tencent refused a call for its limit, which had its place at sent. Of the calls
// that were under way together only the first counts.
func (l *Limiter) Exceeded(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limited++
	if !sent.After(l.slowed) {
		return
	}
	l.slowed = time.Now()
	left, plateau := slower, l.allowed*slowerBack
	switch fair := l.fair(); {
	case l.takesTurns(): // so it is likely that others do not yet
		l.allowed, plateau = min(l.allowed, fair), min(l.plateau, fair)*slowerBack
	case l.turns.programs > 1 && l.allowed*left < idleShare*fair:
		l.allowed, left, plateau = fair, 1, fair // nobody lets turns go by
	case l.step > l.most*largestStep:
		left, plateau = found, l.allowed*foundBack
	}
	l.plateau = plateau
	l.allowed = max(l.most*leastShare, l.allowed*left)
	l.step, l.quiet = l.most*steadyStep, 0
}

// Limit is how a Limiter stands.
type Limit struct {
	Allowed  float64 // calls a second
	Exceeded int64   // how often Tencent refused a call for its limit
}

// Limit tells how it stands.
func (l *Limiter) Limit() Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	allowed := l.allowed
	if l.takesTurns() {
		allowed = min(allowed, l.fair())
	}
	return Limit{allowed, l.limited}
}

// waiter is a call that waits.
type waiter struct {
	urgency rotator.Urgency
	number  int
	place   chan time.Time
	index   int // in the heap; -1: it has its place
}

type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	if w[i].urgency != w[j].urgency {
		return w[i].urgency > w[j].urgency
	}
	return w[i].number < w[j].number
}
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}
func (w *waiters) Push(x any) {
	x.(*waiter).index = len(*w)
	*w = append(*w, x.(*waiter))
}
func (w *waiters) Pop() any {
	old := *w
	last := old[len(old)-1]
	old[len(old)-1], last.index = nil, -1
	*w = old[:len(old)-1]
	return last
}
