package rotator

import "time"

// A pending key is read again and again until it is set, and Tencent sets only so many a second. So a
// wave of rotations is a pipeline: no more keys are pending than can be set within the time that
// receivers get, and a minute.

// paceSlack is how much longer than its propagation a key may be pending because others go first.
const paceSlack = time.Minute

// pace puts off rotations that nobody asked for while enough are under way.
type pace struct {
	pending int // keys that are known to be pending
	// Each rotation that is put off takes a number; the numbers are called as keys are staged.
	taken, called int
}

// counted keeps count of the pending keys. It is called when a keyring was read or written.
func (e *Engine) counted(tr *track, pending bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.countLocked(tr, pending)
}

func (e *Engine) countLocked(tr *track, pending bool) {
	switch {
	case pending && !tr.pendingCounted:
		e.pace.pending++
	case !pending && tr.pendingCounted:
		e.pace.pending--
	}
	tr.pendingCounted = pending
}

// paced puts a rotation off if enough are under way: a is then a wait.
func (e *Engine) paced(tr *track, a Action, w Wish) Action {
	most := e.stageRate * (e.policy.of(tr.snap.Keyring).Propagation + paceSlack).Seconds()
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &e.pace
	if a.Step != StepStage || w.Asked != "" || e.stageRate <= 0 || float64(p.pending) < most {
		if tr.paced { // the number is given back
			tr.paced = false
			p.called++
		}
		return a
	}
	if !tr.paced {
		tr.paced, tr.number = true, p.taken
		p.taken++
	}
	wait := time.Duration(float64(tr.number-p.called) / e.stageRate * float64(time.Second))
	return Action{Step: StepWait, Until: e.clock.Now().Add(max(wait, time.Second)), Why: "enough rotations are under way"}
}
