package rotator

import (
	"container/heap"
	"time"
)

// A pending key is read again and again until it is set, and Tencent sets only so many a second. So a
// wave of rotations is a pipeline: each replica has no more keys of its own pending than can be set, at its
// share of the limit, within the time that receivers get, and a minute. What nobody asked for is put off
// meanwhile, and goes on in order as there is room.

// paceSlack is how much longer than its propagation a key may be pending because others go first.
const paceSlack = time.Minute

// need is how many sets a second a key takes that is pending for as long as receivers get.
func need(propagation time.Duration) float64 { return 1 / (propagation + paceSlack).Seconds() }

// loads notes what a target's pending key needs of this replica; 0: there is none of its own, or nothing is
// known of it.
func (e *Engine) loads(tr *track, load float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loadLocked(tr, load)
}

func (e *Engine) loadLocked(tr *track, load float64) {
	e.load += load - tr.load
	tr.load = load
}

// roomLocked reports whether a key of a target can be pending, too, and takes the room for it. However slow
// the limit and long the propagation, there is room for one. The caller holds e.mu.
func (e *Engine) roomLocked(tr *track) bool {
	const rounding = 1e-9 // of all that was added and taken away
	n := need(e.policy.of(tr.snap.Keyring).Propagation)
	load := e.load - tr.load + n - rounding
	if load > e.stageRate/float64(e.replicas) && load > need(0) {
		return false
	}
	e.loadLocked(tr, n)
	return true
}

// paced puts a rotation off if there is no room for it: a is then a wait, at the longest until it is time
// to look at the target. A key that waits for something else than its turn takes no room.
func (e *Engine) paced(tr *track, a Action, w Wish) Action {
	e.mu.Lock()
	defer e.mu.Unlock()
	if a.Step == StepWait && e.ready(tr, e.clock.Now()) {
		e.loadLocked(tr, 0)
	}
	if tr.putOff = a.Step == StepStage && w.Asked == "" && e.stageRate > 0 && !e.roomLocked(tr); tr.putOff {
		return Action{Step: StepWait, Until: e.clock.Now().Add(e.intervalLocked()), Why: "enough rotations are under way"}
	}
	return a
}

// proceed has the first of those that were put off visited, as far as there is room or they have waited for
// long enough.
func (e *Engine) proceed(l *lanes) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for now := e.clock.Now(); len(l.putOff) > 0 && (e.roomLocked(l.putOff[0].tr) || !now.Before(l.putOff[0].at)); l.putOff = l.putOff[1:] {
		heap.Push(&l.lane[0].queue, visit{l.putOff[0].tr, now})
	}
}
