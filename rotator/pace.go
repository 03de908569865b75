package rotator

import "time"

// A pending key is read again and again until it is set, and Tencent sets only so many a second. So a
// wave of rotations is a pipeline: each replica has no more keys pending than can be set within the
// time that receivers get, and a minute.

// paceSlack is how much longer than its propagation a key may be pending because others go first.
const paceSlack = time.Minute

// pace puts off rotations that nobody asked for while enough are under way.
type pace struct {
	load float64 // sets a second that the pending keys need, as far as they are known
	held int     // rotations that are put off
}

// need is how many sets a second a key takes that is pending for as long as receivers get.
func need(propagation time.Duration) float64 { return 1 / (propagation + paceSlack).Seconds() }

// loads notes what a target's pending key needs; 0: there is none, or nothing is known of it.
func (e *Engine) loads(tr *track, load float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loadLocked(tr, load)
}

func (e *Engine) loadLocked(tr *track, load float64) {
	e.pace.load += load - tr.load
	tr.load = load
}

// releaseLocked takes a target out of those that are put off. The caller holds e.mu.
func (e *Engine) releaseLocked(tr *track) {
	if tr.putOff {
		tr.putOff = false
		e.pace.held--
	}
}

// paced puts a rotation off if enough are under way: a is then a wait. Of those that are put off one
// comes again for each key that can be set, so that they cost no more reads than there are sets.
func (e *Engine) paced(tr *track, a Action, w Wish) Action {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.pace
	if a.Step != StepStage || w.Asked != "" || e.stageRate <= 0 || p.load+need(e.policy.of(tr.snap.Keyring).Propagation) <= max(e.stageRate, need(0)) {
		e.releaseLocked(tr)
		return a
	}
	if !tr.putOff {
		tr.putOff = true
		p.held++
	}
	wait := time.Duration(float64(p.held) / e.stageRate * float64(time.Second))
	return Action{Step: StepWait, Until: e.clock.Now().Add(max(wait, time.Second)), Why: "enough rotations are under way"}
}
