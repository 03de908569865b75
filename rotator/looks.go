package rotator

import (
	"math"
	"time"
)

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

// turns says whose turn it is to be looked at. Each look that can wait takes a number; the numbers are
// called at a rate that leaves Tencent's limit to the rotations while there are any, so when
// a number comes is only known once it is called.
type turns struct {
	taken, called float64
	at            time.Duration // when called was true, by the steady clock

	pushes   float64 // of late: of each is left 1/e after pushSpan
	pushedAt time.Duration
}

const (
	// pushSpan is over how long the rate of sets is reckoned, and turnCheck how soon a look asks
	// again in a wave of rotations.
	pushSpan  = 10 * time.Second
	turnCheck = time.Minute
)

// pushing counts a key that is being set.
func (e *Engine) pushing() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turns.pushed(e.clock.Steady())
}

func (t *turns) pushed(now time.Duration) {
	t.pushes, t.pushedAt = t.recent(now)+1, now
}

func (t *turns) recent(now time.Duration) float64 {
	return t.pushes * math.Exp(-(now-t.pushedAt).Seconds()/pushSpan.Seconds())
}

// call moves on to now, and gives how many numbers are called in a second. Other replicas set keys,
// too, and each key that is set is looked at: twice the own rate is left to both, and in a wave all.
func (t *turns) call(now time.Duration, full float64) float64 {
	rate := max(0, full-2*t.recent(now)/pushSpan.Seconds())
	t.called = min(t.taken, t.called+rate*(now-t.at).Seconds())
	t.at = now
	return rate
}

// turn puts off a look that can wait until it is the target's turn: a is then a wait.
func (e *Engine) turn(tr *track, a Action, w Wish) Action {
	if a.Step != StepObserve || !a.Idle || e.lookRate <= 0 || w.Asked != "" {
		return a
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t, now := &e.turns, e.moment() // under the lock: or of two visits the later one would go back
	rate := t.call(now.steady, e.lookRate)
	if !tr.queued {
		tr.queued, tr.turn = true, t.taken
		t.taken++
	}
	ahead := tr.turn - t.called
	if ahead <= 0 {
		return a // which gives the number back
	}
	wait := turnCheck // the wave may be over sooner
	if rate >= e.lookRate/2 {
		wait = time.Duration(ahead/rate*float64(time.Second)) + 1
	}
	return Action{Step: StepWait, Until: sooner(a.Until, now.wall.Add(wait)), Why: "its turn to be looked at comes"}
}
