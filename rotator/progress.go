package rotator

import (
	"sync"
	"time"

	"tiwkeyd/secrets"
)

// progress is what a watchdog asks about: since when everything under way has not got on, by
// the steady clock. A wait is no lack of progress, nor is a store or a Tencent that is away:
// their calls have deadlines, after which the visit goes on.
type progress struct {
	mu     sync.Mutex
	loop   *time.Duration // since when the loop is at work on one thing; nil: it waits
	visits map[*track]time.Duration
}

// mark says that a visit begins or gets on.
func (p *progress) mark(tr *track, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visits[tr] = now
}

// end says that a visit is over.
func (p *progress) end(tr *track) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.visits, tr)
}

// works says since when the loop is at something that must not take long; nil: it waits, or has ended.
func (p *progress) works(since *time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loop = since
}

// Stalled tells for how long the visit that has got on least recently has not, and of which
// target it is; the zero Target is the loop that hands the visits out. Nothing is stalled
// that is not under way.
func (e *Engine) Stalled() (secrets.Target, time.Duration) {
	p := &e.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	now := e.clock.Steady()
	var worst secrets.Target
	var longest time.Duration
	if p.loop != nil {
		longest = now - *p.loop
	}
	for tr, since := range p.visits {
		if d := now - since; d > longest {
			worst, longest = tr.target, d
		}
	}
	return worst, longest
}

// StallLimit is longer than a visit takes from one step to the next when all the calls in it
// run into their deadlines: what takes longer is stuck.
func (e *Engine) StallLimit() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy.Timing.PushDeadline + 5*callLimit
}
