package rotator

import (
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestAskedMeanwhile: what is asked for while Tencent is being called is served by the rotation in hand, and begins
// none of a target that is paused.
func TestAskedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		m.onSet = func() { e.Ask(BySignal, target) }
		defer running(e, []secrets.Target{target})()
		e.Ask(ByCommand, target)
		time.Sleep(tablePolicy.Propagation + time.Minute)
		if m.setCalls(target) != 1 || m.keyring(target).Pending() != nil || m.keyring(target).Rotation != nil {
			t.Errorf("%d sets, %s", m.setCalls(target), describe(m.keyring(target)))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.change(func() {
			s := m.rings[target]
			s.Keyring = s.Keyring.With(Overrides{Paused: true})
			m.rings[target] = s
		})
		e, _ := engineOn(t, m, "me", nil, nil)
		m.onLook = func() { e.Ask(BySignal, target) }
		defer running(e, []secrets.Target{target})()
		time.Sleep(time.Hour)
		if m.keyring(target).Pending() != nil || m.setCalls(target) != 0 {
			t.Errorf("a paused target is rotated by a signal: %s", describe(m.keyring(target)))
		}
	})
}

// TestAskRanks: what is asked for with more weight stays.
func TestAskRanks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ first, then, want Reason }{
		{"", BySignal, BySignal}, {BySignal, ByCommand, ByCommand}, {ByCommand, BySignal, ByCommand}, {ByCommand, ByRevoke, ByRevoke},
		{ByRevoke, ByCommand, ByRevoke}, {ByRevoke, BySignal, ByRevoke},
	} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		if c.first != "" {
			e.Ask(c.first, codecTarget)
		}
		if e.Ask(c.then, codecTarget); e.Asked()[codecTarget] != c.want {
			t.Errorf("%q, then %q: %q", c.first, c.then, e.Asked()[codecTarget])
		}
	}
}

// TestRetriesArePaced: rotations that failed begin again as there is room, as those do that the schedule wants.
func TestRetriesArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		m, e, ts, _ := fleet(t, n, 0, nil)
		e.stageRate = 1
		retry := time.Now().Add(10 * time.Minute)
		m.change(func() {
			for _, target := range ts {
				s := m.rings[target]
				s.Keyring = s.Keyring.Clone()
				s.Keyring.Rotation = &Rotation{Reason: BySignal, StartedAt: time.Now(), RetryAt: retry, LastError: &Failure{Code: "x"}}
				m.rings[target] = s
			}
		})
		defer running(e, ts)()
		time.Sleep(time.Until(retry) + 10*time.Second)
		pending := 0
		for _, target := range ts {
			if m.keyring(target).Pending() != nil {
				pending++
			}
		}
		if pending < 10 || pending > 18 {
			t.Errorf("%d keys are pending ten seconds later", pending)
		}
	})
}

// TestRoomOfALostStage: a key that somebody else wrote first takes no room.
func TestRoomOfALostStage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, ts, _ := fleet(t, 1, 0, func(secrets.Target, time.Time) time.Time { return time.Unix(0, 0) })
		e.stageRate = 0.001
		m.onLook = func() { m.change(func() { m.away = true }) }
		e.Visit(t.Context(), ts[0])
		if e.pace.room != 1 {
			t.Errorf("there is room for %v", e.pace.room)
		}
	})
}

// TestEditedCountsForNothing: while receivers may not find a key in what they read, no time counts for it.
func TestEditedCountsForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		tr, s := e.track(codecTarget), pending().s
		for i, edited := range []bool{false, true, false} {
			s.Keyring = s.Keyring.Clone()
			s.Keyring.Edited = edited
			e.took(tr, s, e.moment())
			if want := e.clock.Steady(); i != 1 && (tr.pendingSeen.since != want || tr.currentSeen.since != want) {
				t.Errorf("%d: since %s and %s, want %s", i, tr.pendingSeen.since, tr.currentSeen.since, want)
			}
			time.Sleep(time.Second)
		}
	})
}
