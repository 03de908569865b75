package rotator

import "time"

// Looks of settled targets can wait, and with many targets they have to: Tencent's limit is for
// the rotations. This file spreads them.

// slack is how much longer than needed the interval of looks is, so that the looks that come on top
// (at a key that another replica changed, before an old key goes) find room.
const slack = 1.25

// Interval is how often a settled target is looked at: Policy.Reconcile, or longer where so many
// targets are served that Options.LookRate would be exceeded.
func (e *Engine) Interval() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.intervalLocked()
}

func (e *Engine) intervalLocked() time.Duration {
	if e.lookRate <= 0 {
		return e.policy.Reconcile
	}
	needed := time.Duration(slack * float64(e.served) / e.lookRate * float64(time.Second))
	return max(e.policy.Reconcile, needed.Truncate(time.Second))
}

// rules is the policy with the interval that holds now, which is logged when it changes much.
func (e *Engine) rules() *Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	interval := e.intervalLocked()
	if e.stretched == nil || e.stretched.Reconcile != interval {
		p := e.policy
		p.Reconcile = interval
		e.stretched = &p
	}
	if told := max(e.told, e.policy.Reconcile); interval > told+told/4 || (interval < told-told/4) {
		e.told = interval
		e.log.Info("with so many targets each is looked at less often, to leave Tencent's limit to the rotations",
			"targets", e.served, "interval", interval.String(), "configured", e.policy.Reconcile.String())
	}
	return e.stretched
}

// turn puts off a look that can wait until it is the target's turn: a is then a wait.
func (e *Engine) turn(tr *track, a Action, w Wish) Action {
	if a.Step != StepObserve || !a.Idle || e.lookRate <= 0 || w.Asked != "" {
		return a
	}
	now := e.moment()
	if !tr.queued {
		tr.queued = true
		e.mu.Lock()
		tr.turn = max(now.steady, e.nextTurn)
		e.nextTurn = tr.turn + time.Duration(float64(time.Second)/e.lookRate)
		e.mu.Unlock()
	}
	wait := tr.turn - now.steady
	if wait <= 0 {
		return a // which begins the count anew
	}
	return Action{Step: StepWait, Until: sooner(a.Until, now.wall.Add(wait)), Why: "its turn to be looked at comes"}
}
