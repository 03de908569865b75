package rotator

import (
	"context"
	"math"
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
		e.due = func(_ Target, _ *Keyring, at time.Time) time.Time {
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
		if pending, _ := pendings(); pending < most-1 || pending > most+maxVisits {
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
		if pending, done := pendings(); done != n || pending != 0 || math.Abs(e.load) > 1e-9 {
			t.Errorf("after all: %d done, %d pending; load %v", done, pending, e.load)
		}
		e.Drop(ts...)
	})
}

// TestPaceForgets: a target that is dropped takes no room, nor one for which a rotation is not wanted any more.
func TestPaceForgets(t *testing.T) {
	t.Parallel()
	m := newMemory()
	e, _ := engineOn(t, m, "me", nil, nil)
	e.stageRate, e.load = 0.001, 10
	stage, tr := Action{Step: StepStage}, e.track(codecTarget)
	tr.snap = settled().s
	var l lanes
	if a := e.paced(tr, stage, Wish{}); a.Step != StepWait || !tr.putOff {
		t.Errorf("%+v", a)
	}
	later := time.Now().Add(time.Hour)
	if e.add(&l, visit{tr, later}); len(l.putOff) != 1 || len(l.lane[0].queue) != 0 {
		t.Errorf("%+v", l)
	}
	if e.proceed(&l); len(l.putOff) != 1 {
		t.Errorf("there is no room, and it goes on: %+v", l)
	}
	if l.hurry(time.Now()); l.putOff[0].at.After(time.Now()) {
		t.Error("the clock was set back, and it waits by the old one")
	}
	if e.proceed(&l); len(l.putOff) != 0 || len(l.lane[0].queue) != 1 {
		t.Errorf("it was put off for long, and is not looked at: %+v", l)
	}
	l = lanes{putOff: []visit{{tr, later}}}
	for _, a := range []struct {
		a Action
		w Wish
	}{{Action{Step: StepWait}, Wish{}}, {stage, Wish{Asked: ByCommand}}} {
		e.paced(tr, stage, Wish{})
		if got := e.paced(tr, a.a, a.w); got != a.a || tr.putOff || tr.load != 0 {
			t.Errorf("%+v: %+v", got, tr.load)
		}
	}
	e.loads(tr, 1)
	e.loads(tr, 1)
	e.Drop(codecTarget)
	if e.load != 10 {
		t.Errorf("%v", e.load)
	}
	// However slow the limit, one rotation goes on, which has its room already.
	e.load, e.stageRate, e.policy.Propagation = 0, 0.0001, 0
	if e.proceed(&l); len(l.putOff) != 0 || len(l.lane[0].queue) != 1 || e.load != need(0) {
		t.Errorf("%+v, load %v", l, e.load)
	}
	if a := e.paced(tr, stage, Wish{}); a.Step != StepStage || e.load != need(0) {
		t.Errorf("%+v, load %v", a, e.load)
	}
	if a := e.paced(e.track(Target{2, WhiteboardPush}), stage, Wish{}); a.Step != StepWait {
		t.Errorf("%+v", a)
	}
	// Sixty sixtieths are a whole.
	e.load, tr.load, e.stageRate = 0, 0, 1
	for i := range 60 {
		if a := e.paced(e.track(Target{int64(100 + i), WhiteboardPush}), stage, Wish{}); a.Step != StepStage {
			t.Errorf("no room for the %d. key: load %v", i+1, e.load)
		}
	}
	// Replicas share the limit.
	e.load, tr.load, e.stageRate = 0, 0, 3*need(0)
	if e.load = need(0); e.paced(tr, stage, Wish{}).Step != StepStage {
		t.Error("alone it has the whole limit")
	}
	e.replicas = 3
	if a := e.paced(e.track(Target{3, WhiteboardPush}), stage, Wish{}); a.Step != StepWait {
		t.Errorf("%+v, load %v", a, e.load)
	}
}

// TestLanes: a visit that is to set a key has workers of its own, and what is asked for goes first.
func TestLanes(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(time.Minute)
	ready := func(by time.Duration) *Keyring {
		k := pending().s.Keyring
		k.Keys[1].CreatedAt, k.Keys[1].PushAfter = at.Add(by-tablePolicy.Propagation), at.Add(by)
		return k
	}
	for name, c := range map[string]struct {
		k    *Keyring
		ask  Reason
		lane int
		at   time.Time
	}{
		"settled":                        {settled().s.Keyring, "", 0, at},
		"no keyring":                     {nil, "", 0, at},
		"a key to be read":               {ready(time.Second), "", 0, at},
		"a key to be set":                {ready(0), "", 1, at},
		"a key to be set, and it leaked": {ready(0), ByRevoke, 1, ahead(ByRevoke)},
		"asked for":                      {settled().s.Keyring, ByCommand, 0, ahead(ByCommand)},
	} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		tr := e.track(codecTarget)
		if tr.snap.Keyring = c.k; c.ask != "" {
			e.Ask(c.ask, codecTarget)
		}
		var l lanes
		e.add(&l, visit{tr, at})
		if q := l.lane[c.lane].queue; len(q) != 1 || !q[0].at.Equal(c.at) || len(l.lane[1-c.lane].queue) != 0 {
			t.Errorf("%s: %+v", name, l)
		}
		l = lanes{putOff: []visit{{tr, at}, {e.track(Target{2, WhiteboardPush}), at}}}
		e.track(Target{2, WhiteboardPush}).putOff = true
		tr.putOff = true
		if e.expedite(&l); len(l.putOff) != 2 && c.ask == "" || c.ask != "" && (len(l.putOff) != 1 || len(l.lane[c.lane].queue) != 1) {
			t.Errorf("%s, put off: %+v", name, l)
		}
	}
}

// TestRoomIsGivenBack: a key takes room until it waits for something else than its turn.
func TestRoomIsGivenBack(t *testing.T) {
	t.Parallel()
	for step, want := range map[Step]float64{StepPush: 1, StepWait: 0} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		tr := e.track(codecTarget)
		tr.snap.Keyring = pending().s.Keyring // which is ready since long
		e.loads(tr, 1)
		if e.paced(tr, Action{Step: step}, Wish{}); e.load != want {
			t.Errorf("%s: %v, want %v", step, e.load, want)
		}
	}
}

// TestOwnLoad: only keys that this replica is to set take room.
func TestOwnLoad(t *testing.T) {
	t.Parallel()
	for owner, want := range map[string]float64{"me": need(tablePolicy.Propagation), "other": 0} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		s := pending().s
		s.Keyring.Rotation.Owner = owner
		if e.took(e.track(codecTarget), s, e.moment()); math.Abs(e.load-want) > 1e-9 {
			t.Errorf("a key of %s: %v, want %v", owner, e.load, want)
		}
	}
}

// unread is a store that cannot read some keyrings.
type unread struct {
	*memory
	bad map[Target]bool
}

func (s *unread) Read(ctx context.Context, t Target) (Snapshot, error) {
	s.mu.Lock()
	bad := s.bad[t]
	s.mu.Unlock()
	if bad {
		return Snapshot{}, errOther
	}
	return s.memory.Read(ctx, t)
}

// TestPaceIsShared: neither pending keys whose keyrings cannot be read any more nor those that are
// pending for half a day keep the others from being replaced.
func TestPaceIsShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		override   *time.Duration
		unreadable bool
	}{"unreadable": {nil, true}, "half a day": {new(12 * time.Hour), false}} {
		synctest.Test(t, func(t *testing.T) {
			const n, blocked, rate = 300, 130, 1.0
			m, e, ts, _ := fleet(t, n, 0, nil)
			e.stageRate = rate
			e.policy.Propagation = time.Minute
			due := time.Now().Add(time.Hour)
			e.due = func(t Target, _ *Keyring, at time.Time) time.Time {
				first := due
				if t.SdkAppID > blocked {
					first = due.Add(time.Minute)
				}
				if at.Before(first) {
					return first
				}
				return time.Time{}
			}
			s := &unread{memory: m}
			e.store = s
			for _, target := range ts[:blocked] {
				snap := m.rings[target]
				snap.Keyring = snap.Keyring.With(Overrides{Propagation: c.override})
				m.rings[target] = snap
			}
			stop := running(e, ts)
			defer stop()
			time.Sleep(time.Until(due) + 30*time.Second)
			m.change(func() {
				s.bad = map[Target]bool{}
				for _, target := range ts[:blocked] {
					s.bad[target] = c.unreadable
				}
			})
			time.Sleep(time.Hour)
			for _, target := range ts[blocked:] {
				if m.setCalls(target) != 1 {
					t.Fatalf("%s: %s: %d Set calls", name, target, m.setCalls(target))
				}
			}
		})
	}
}
