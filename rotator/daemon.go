package rotator

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"tiwkeyd/secrets"
)

// Run looks after the targets, and those of Serve, until ctx ends; it then finishes the steps in
// hand and returns. Each target is visited when its own next time comes, or when Ask wants it; one
// at rest costs no goroutine and no timer.
func (e *Engine) Run(ctx context.Context, targets []secrets.Target) {
	e.Serve(targets...)
	back := make(chan visit, 2*maxVisits)
	var group sync.WaitGroup
	var lanes lanes
	for i := range lanes.lane {
		work := make(chan *track)
		lanes.lane[i].work = work
		for range maxVisits {
			group.Go(func() {
				for tr := range work {
					back <- visit{tr, e.Visit(ctx, tr.target)}
				}
			})
		}
	}
	e.welcome(&lanes)
	for last := e.clock.Now(); ctx.Err() == nil; {
		now := e.clock.Now()
		if now.Before(last) {
			lanes.hurry(now) // the clock was set back: what was planned may be far off
		}
		last = now
		e.dispatch(ctx, &lanes, back)
	}
	e.progress.works(nil)
	for i := range lanes.lane {
		close(lanes.lane[i].work)
	}
	group.Wait()
	e.retreat()
}

// dispatch hands out one visit that is due, or waits for something to happen.
func (e *Engine) dispatch(ctx context.Context, lanes *lanes, back <-chan visit) {
	e.progress.works(new(e.clock.Steady()))
	first := sooner(e.proceed(lanes), e.call(lanes))
	var timer <-chan time.Time
	var hand [2]chan<- *track
	var next [2]*track
	for i := range lanes.lane {
		l := &lanes.lane[i]
		if len(l.queue) == 0 {
			continue
		}
		v := l.queue[0]
		if !e.keeps(v.tr) {
			heap.Pop(&l.queue)
			return
		}
		if wait := v.at.Sub(e.clock.Now()); wait > 0 {
			first = sooner(first, v.at)
		} else {
			hand[i], next[i] = l.work, v.tr
		}
	}
	if !first.IsZero() {
		c, stop := e.clock.After(min(first.Sub(e.clock.Now()), longestSleep))
		defer stop()
		timer = c
	}
	e.progress.works(nil)
	select {
	case hand[0] <- next[0]:
		heap.Pop(&lanes.lane[0].queue)
	case hand[1] <- next[1]:
		heap.Pop(&lanes.lane[1].queue)
	case v := <-back:
		e.progress.works(new(e.clock.Steady()))
		if e.keeps(v.tr) {
			e.add(lanes, v)
		}
	case <-e.wake:
		e.progress.works(new(e.clock.Steady()))
		e.welcome(lanes)
		e.expedite(lanes)
	case <-timer:
	case <-ctx.Done():
	}
}

// welcome takes in what is served since. After Reconfigure the target goes first that was left alone for
// longest: in a flood of reloads the others would be visited again and again, and some never.
func (e *Engine) welcome(lanes *lanes) {
	now := e.clock.Now()
	for _, tr := range e.arrivals() {
		at := now
		if last := tr.answered.wall; !last.IsZero() {
			at = earlier(now, last)
		}
		heap.Push(&lanes.lane[0].queue, visit{tr, at})
	}
}

// expedite brings forward the targets that are asked for.
func (e *Engine) expedite(lanes *lanes) {
	for i := range lanes.lane {
		q := lanes.lane[i].queue
		for j := range q {
			if reason, news := e.unheard(q[j].tr); news {
				q[j].at = ahead(reason)
			}
		}
		heap.Init(&q)
	}
	waiting := append(lanes.putOff, lanes.line...)
	lanes.putOff, lanes.line = nil, nil
	for _, v := range waiting {
		e.add(lanes, v)
	}
}

// ahead is before all that is merely due: who asks for one target does not wait for thousands of
// others, and a leaked key goes first.
func ahead(reason Reason) time.Time {
	order := []Reason{ByRevoke, ByCommand, BySignal}
	return time.Unix(int64(slices.Index(order, reason)), 0).UTC()
}
