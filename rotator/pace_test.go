package rotator

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: of a wave no more keys are pending than can be set in time, whatever is asked for goes
// first, and all get their key.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 300, 1.0
		m, e, ts, _ := fleet(t, n, 0, nil)
		e.stageRate = rate
		due := time.Now().Add(time.Hour)
		e.due = func(_ Target, at time.Time) time.Time {
			if at.Before(due) {
				return due
			}
			return time.Time{}
		}
		e.policy.Propagation = time.Minute
		stop := running(e, ts)
		defer stop()
		time.Sleep(time.Until(due) + time.Second)
		pendings := func() (pending, done int) {
			for _, target := range ts {
				switch k := m.keyring(target); {
				case k.Pending() != nil:
					pending++
				case !k.RotatedAt.Before(due):
					done++
				}
			}
			return pending, done
		}
		most := int(rate * (e.policy.Propagation + paceSlack).Seconds())
		if pending, _ := pendings(); pending < most || pending > most+maxVisits {
			t.Errorf("%d keys are pending at first, want %d", pending, most)
		}
		reads := 0
		m.change(func() { reads = m.reads })
		time.Sleep(time.Second)
		m.change(func() { reads = m.reads - reads })
		if reads > most {
			t.Errorf("%d reads in a second, by rotations that were put off", reads)
		}
		asked := ts[n-1]
		for _, target := range ts {
			if m.keyring(target).Pending() == nil {
				asked = target
			}
		}
		e.Ask(ByCommand, asked)
		time.Sleep(time.Second)
		if m.keyring(asked).Pending() == nil {
			t.Error("what is asked for is put off")
		}
		for range 20 {
			time.Sleep(time.Minute)
			if pending, _ := pendings(); pending > most+maxVisits+1 {
				t.Errorf("%d keys are pending", pending)
			}
		}
		if pending, done := pendings(); done != n || pending != 0 || e.pace.pending != 0 || e.pace.taken != e.pace.called {
			t.Errorf("after all: %d done, %d pending; %+v", done, pending, e.pace)
		}
		e.Drop(ts...)
	})
}

// TestPaceForgets: a rotation that was put off and is no longer wanted gives its number back, and a
// target that is dropped is counted no more.
func TestPaceForgets(t *testing.T) {
	t.Parallel()
	m := newMemory()
	e, _ := engineOn(t, m, "me", nil, nil)
	e.stageRate, e.pace.pending = 0.001, 10
	stage, tr := Action{Step: StepStage}, e.track(codecTarget)
	tr.snap = settled().s
	if a := e.paced(tr, stage, Wish{}); a.Step != StepWait || !tr.paced {
		t.Errorf("%+v", a)
	}
	for _, a := range []struct {
		a Action
		w Wish
	}{{Action{Step: StepWait}, Wish{}}, {stage, Wish{Asked: ByCommand}}} {
		e.paced(tr, stage, Wish{})
		if got := e.paced(tr, a.a, a.w); got != a.a || tr.paced || e.pace.called != e.pace.taken {
			t.Errorf("%+v: %+v", got, e.pace)
		}
	}
	e.paced(tr, stage, Wish{})
	e.counted(tr, true)
	e.counted(tr, true)
	e.Drop(codecTarget)
	if e.pace.pending != 10 || e.pace.called != e.pace.taken {
		t.Errorf("%+v", e.pace)
	}
}
