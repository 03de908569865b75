package rotator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestLookIsAsOldAsEitherClock: the machine sleeps for longer than its clock is then set back, so
// that no clock went back. What it saw before does not prove that the old key may go by now.
func TestLookIsAsOldAsEitherClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		s := m.rings[target]
		s.Keyring.Keys = append(s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: time.Now().Add(time.Hour)})
		s.Written = time.Now()
		m.rings[target] = s
		e, _ := engineOn(t, m, "me", nil, nil)
		e.policy.Grace, e.policy.Reconcile = 0, time.Hour
		e.Visit(t.Context(), target)
		looks := m.looks
		time.Sleep(20 * time.Minute)
		m.ahead = -19 * time.Minute
		e.Visit(t.Context(), target)
		if m.keyring(target).Lookup(keyV) == nil || m.looks != looks+1 {
			t.Errorf("%d looks, %s", m.looks-looks, describe(m.keyring(target)))
		}
	})
}

// TestClockWasBehind: whoever saw a key taken back while its clock was hours behind has not
// seen it so for hours once the clock is right.
func TestClockWasBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		k := m.rings[target].Keyring
		keep := time.Now().Add(tablePolicy.Timing.RollbackKeep)
		k.Keys = append(k.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: keep})
		m.rings[target] = Snapshot{Keyring: k, Version: 2, Written: time.Now()}
		m.ahead = -5 * time.Hour
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(time.Minute)
		m.change(func() { m.ahead = 0 })
		time.Sleep(time.Until(keep) - time.Second)
		if m.keyring(target).Lookup(keyV) == nil {
			t.Error("the key is retired already")
		}
		time.Sleep(tablePolicy.Reconcile)
		if m.keyring(target).Lookup(keyV) != nil {
			t.Error("the key is never retired")
		}
	})
}

// setRightAt has the clock, hours behind, set right when a step begins.
func setRightAt(m *memory, step Step) func(Event) {
	return func(ev Event) {
		if ev.Step == step && ev.Kind == Begin {
			m.change(func() { m.ahead = 0 })
		}
	}
}

// slowPurge has something happen while the store destroys older versions.
type slowPurge struct {
	*memory
	meanwhile func()
}

func (p slowPurge) Purge(ctx context.Context, t secrets.Target, version int64) error {
	p.meanwhile()
	return p.memory.Purge(ctx, t, version)
}

// TestClockSetRightDuringAVisit has a clock that was hours behind at the read be right at the
// decision: a key that was taken back this second was not taken back hours ago.
func TestClockSetRightDuringAVisit(t *testing.T) {
	t.Parallel()
	for _, during := range []string{"look", "purge"} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			k := m.rings[target].Keyring
			k.Keys = append(k.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: time.Now().Add(tablePolicy.Timing.RollbackKeep)})
			m.rings[target] = Snapshot{Keyring: k, Version: 2, Written: time.Now()}
			m.ahead = -5 * time.Hour
			var events func(Event)
			if during == "look" {
				events = setRightAt(m, StepObserve)
			}
			e, _ := engineOn(t, m, "me", nil, events)
			if during == "purge" {
				e.track(target).purge = 2
				e.store = slowPurge{m, func() { m.change(func() { m.ahead = 0 }) }}
			}
			e.Visit(t.Context(), target)
			if m.looks == 0 || m.keyring(target).Lookup(keyV) == nil {
				t.Errorf("during the %s: %d looks, %s", during, m.looks, describe(m.keyring(target)))
			}
		})
	}
}

// TestClockAheadForOneAnswer has the clock be a year ahead when an answer comes, and right
// again before the next visit: nothing waits for that year to pass.
func TestClockAheadForOneAnswer(t *testing.T) {
	t.Parallel()
	foreign := func(m *memory) { m.inForce[targets(1)[0]] = keyF }
	for name, begin := range map[string]func(m *memory, ahead func()){
		"look":     func(m *memory, ahead func()) { m.onLook = ahead },
		"push":     func(m *memory, ahead func()) { m.onSet, m.setErrs = ahead, refuse(1, Doubtful, "InternalError") },
		"reassert": func(m *memory, ahead func()) { foreign(m); m.onSet = ahead },
		"reassert refused": func(m *memory, ahead func()) {
			foreign(m)
			m.onSet, m.setErrs = ahead, refuse(1, Refused, "AuthFailure")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			first := m.adoptedKey(target, "value")
			m.latency = time.Millisecond
			set := func(ahead time.Duration) func() { return func() { m.change(func() { m.ahead = ahead }) } }
			begin(m, func() { set(365 * 24 * time.Hour)(); time.AfterFunc(time.Second, set(0)) })
			e, log := engineOn(t, m, "me", func(secrets.Target, time.Time) time.Time { return time.Now().Add(-time.Minute) }, nil)
			stop := running(e, targets(1))
			defer stop()
			time.Sleep(time.Hour)
			if m.keyring(target).CallbackKey().Equal(first) {
				t.Errorf("%s: an hour after the clock was set right nothing has happened: %s", name, tailOf(log.String()))
			}
		})
	}
}

func tailOf(s string) string { return s[max(0, len(s)-1500):] }

// TestDeadlineByEitherClock: whichever says so first.
func TestDeadlineByEitherClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewSystemClock()
		time.Sleep(time.Minute)
		for _, d := range [][3]time.Duration{{time.Hour, time.Minute, time.Minute}, {time.Minute, time.Hour, time.Minute}, {-time.Second, time.Hour, -time.Second}, {time.Hour, -time.Second, -time.Second}} {
			ctx, cancel := c.WithDeadline(t.Context(), c.Now().Add(d[0]), c.Steady()+d[1])
			if at, _ := ctx.Deadline(); time.Until(at) != d[2] {
				t.Errorf("%v: in %s", d, time.Until(at))
			}
			cancel()
		}
	})
}

func TestSystemClock(t *testing.T) {
	t.Parallel()
	if now := NewSystemClock().Now(); now != now.Round(0) {
		t.Error("the wall clock's time has a monotonic part")
	}
}

func TestRotatedAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ rotated, written, want time.Time }{
		"as it stands":                       {minute(-60), minute(-60), minute(-60)},
		"the store tells no time":            {minute(-60), time.Time{}, minute(-60)},
		"within the skew":                    {minute(2), minute(0), minute(2)},
		"a clock far ahead wrote it":         {minute(9999), minute(-600), minute(-600)},
		"and the store does not tell either": {minute(9999), time.Time{}, time.Time{}},
		"the store's clock is ahead as well": {minute(9999), minute(9999), time.Time{}},
	} {
		s := Snapshot{Keyring: &Keyring{RotatedAt: c.rotated}, Written: c.written}
		if got := s.rotatedAt(t0, &tablePolicy); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if (Snapshot{}).sameCurrent(settled().s) || settled().s.sameCurrent(Snapshot{}) || !(Snapshot{}).sameCurrent(Snapshot{}) || (Snapshot{Version: 2}).sameCurrent(Snapshot{Version: 4}) {
		t.Error("a keyring that is lost, or new, is taken for the same")
	}
}
