package rotator

import (
	"container/heap"
	"slices"
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

// tellInterval logs when the interval changes much.
func (e *Engine) tellInterval() {
	e.mu.Lock()
	defer e.mu.Unlock()
	interval := e.intervalLocked()
	if told := max(e.told, e.policy.Reconcile); interval > told+told/4 || interval < told-told/4 {
		e.told = interval
		e.log.Info("with so many targets each is looked at less often, to leave Tencent's limit to the rotations",
			"targets", e.served, "interval", interval.String(), "configured", e.policy.Reconcile.String())
	}
}

// lineCheck is how often those in line are visited for which something else is due by now.
const lineCheck = time.Minute

// standsInLine reports whether a look that can wait is to: nobody calls a target that Run does not look after.
func (e *Engine) standsInLine(tr *track) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lookRate > 0 && tr.held && !tr.called
}

// call has the first in line visited if it is time, and gives when there is something to do next; zero if nobody is
// in line. While keys wait to be set none is called: Tencent's limit is for them.
func (e *Engine) call(l *lanes) time.Time {
	now := e.clock.Now()
	if len(l.line) == 0 {
		return time.Time{}
	}
	if now.Sub(l.sought) >= lineCheck { // it may have stood still
		l.sought = now
		l.line = slices.DeleteFunc(l.line, func(v visit) bool {
			due := !v.at.IsZero() && !now.Before(v.at)
			if due {
				heap.Push(&l.lane[0].queue, v)
			}
			return due
		})
	}
	if len(l.line) == 0 || len(l.putOff) > 0 || l.late(now) > 0 {
		return l.sought.Add(lineCheck)
	}
	if !now.Before(l.nextLook) {
		l.line[0].tr.called = true
		heap.Push(&l.lane[0].queue, visit{l.line[0].tr, now})
		l.line, l.nextLook = l.line[1:], now.Add(time.Duration(float64(time.Second)/e.lookRate))
	}
	return l.nextLook
}
