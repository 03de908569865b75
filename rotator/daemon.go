package rotator

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// Run looks after the targets, and those of Serve, until ctx ends; it then finishes the steps in
// hand and returns. Each target is visited when its own next time comes, or when Ask wants it; one
// at rest costs no goroutine and no timer.
func (e *Engine) Run(ctx context.Context, targets []Target) {
	e.Serve(targets...)
	q := &queue{}
	e.welcome(q)
	work, back := make(chan *track), make(chan visit, maxVisits)
	var group sync.WaitGroup
	for range maxVisits {
		group.Go(func() {
			for tr := range work {
				back <- visit{tr, e.Visit(ctx, tr.target)}
			}
		})
	}
	for last := e.clock.Now(); ctx.Err() == nil; {
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
	e.leave()
}

// dispatch hands out one visit that is due, or waits for something to happen.
func (e *Engine) dispatch(ctx context.Context, q *queue, work chan<- *track, back <-chan visit) {
	e.progress.works(e.clock.Steady())
	var timer <-chan time.Time
	var hand chan<- *track
	var next *track
	if q.Len() > 0 {
		first := (*q)[0]
		if !e.keeps(first.tr) {
			heap.Pop(q)
			return
		}
		if wait := first.at.Sub(e.clock.Now()); wait > 0 {
			c, stop := e.clock.After(min(wait, longestSleep))
			defer stop()
			timer = c
		} else {
			hand, next = work, first.tr
			next.behind = -wait
		}
	}
	e.progress.waits()
	select {
	case hand <- next:
		heap.Pop(q)
	case v := <-back:
		e.progress.works(e.clock.Steady())
		if e.keeps(v.tr) {
			if reason, news := e.unheard(v.tr); news {
				v.at = ahead(reason)
			}
			heap.Push(q, v)
		}
	case <-e.wake:
		e.progress.works(e.clock.Steady())
		e.welcome(q)
		e.expedite(q)
	case <-timer:
	case <-ctx.Done():
	}
}

// welcome takes in what is served since. After Reconfigure the target goes first that was left alone for
// longest: in a flood of reloads the others would be visited again and again, and some never.
func (e *Engine) welcome(q *queue) {
	now := e.clock.Now()
	for _, tr := range e.arrivals() {
		at := now
		if last := tr.answered.wall; !last.IsZero() {
			at = earlier(now, last)
		}
		heap.Push(q, visit{tr, at})
	}
}

// expedite brings forward the targets that are asked for.
func (e *Engine) expedite(q *queue) {
	for i := range *q {
		if reason, news := e.unheard((*q)[i].tr); news {
			(*q)[i].at = ahead(reason)
		}
	}
	heap.Init(q)
}

// ahead is before all that is merely due: who asks for one target does not wait for thousands of
// others, and a leaked key goes first.
func ahead(reason Reason) time.Time {
	order := []Reason{ByRevoke, ByCommand, BySignal}
	return time.Unix(int64(slices.Index(order, reason)), 0).UTC()
}
