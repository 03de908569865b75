package rotator

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// Run looks after the targets until ctx ends; it then finishes the steps in hand and
// returns. Each target is visited when its own next time comes, or when Ask wants it.
func (e *Engine) Run(ctx context.Context, targets []Target) {
	q := &queue{}
	now := e.clock.Now()
	for _, t := range targets {
		e.track(t)
		heap.Push(q, visit{t, now})
	}
	work, back := make(chan Target), make(chan visit, len(targets))
	var group sync.WaitGroup
	for range min(maxVisits, len(targets)) {
		group.Go(func() {
			for t := range work {
				back <- visit{t, e.Visit(ctx, t)}
			}
		})
	}
	for last := now; ctx.Err() == nil; {
		now := e.clock.Now()
		if now.Before(last) {
			q.hurry(now) // the clock was set back: what was planned may be far off
		}
		last = now
		e.dispatch(ctx, q, work, back)
	}
	e.progress.waits()
	close(work)
	group.Wait()
}

// dispatch hands out one visit that is due, or waits for something to happen.
func (e *Engine) dispatch(ctx context.Context, q *queue, work chan<- Target, back <-chan visit) {
	e.progress.works(e.clock.Steady())
	var timer <-chan time.Time
	var hand chan<- Target
	var next Target
	if q.Len() > 0 {
		first := (*q)[0]
		if wait := first.at.Sub(e.clock.Now()); wait > 0 {
			c, stop := e.clock.After(min(wait, longestSleep))
			defer stop()
			timer = c
		} else {
			hand, next = work, first.target
		}
	}
	e.progress.waits()
	select {
	case hand <- next:
		heap.Pop(q)
	case v := <-back:
		e.progress.works(e.clock.Steady())
		if e.unheard(e.track(v.target)) {
			v.at = e.clock.Now()
		}
		heap.Push(q, v)
	case <-e.wake:
		e.progress.works(e.clock.Steady())
		e.expedite(q)
	case <-timer:
	case <-ctx.Done():
	}
}

// expedite brings forward the targets that are asked for.
func (e *Engine) expedite(q *queue) {
	now := e.clock.Now()
	for i := range *q {
		if e.unheard(e.track((*q)[i].target)) {
			(*q)[i].at = now
		}
	}
	heap.Init(q)
}

// Targets lists what the engine has dealt with, in order.
func (e *Engine) Targets() []Target {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ts []Target
	for t := range e.tracks {
		ts = append(ts, t)
	}
	slices.SortFunc(ts, Target.Compare)
	return ts
}

type visit struct {
	target Target
	at     time.Time
}

// queue is a heap of visits, the next one first.
type queue []visit

// hurry brings every visit forward to now.
func (q *queue) hurry(now time.Time) {
	for i := range *q {
		(*q)[i].at = earlier((*q)[i].at, now)
	}
	heap.Init(q)
}

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(visit)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
