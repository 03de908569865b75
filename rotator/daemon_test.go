package rotator

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// running starts Run and gives what stops it and waits for its end.
func running(e *Engine, ts []secrets.Target) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { e.Run(ctx, ts) })
	return func() { cancel(); group.Wait() }
}

func TestRunRotatesOnSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(20)
		e, _ := engineOn(t, m, "me", func(_ secrets.Target, at time.Time) time.Time { return at.Add(2 * time.Hour) }, nil)
		stop := running(e, ts)
		time.Sleep(24*time.Hour + 30*time.Minute)
		stop()
		for _, target := range ts {
			// The first at once, then one every two hours and the six minutes of its propagation.
			k := m.keyring(target)
			if m.setCalls(target) != 12 || k.Rotation != nil || !k.CallbackKey().Equal(m.signing(target)) {
				t.Errorf("%s: %d rotations in a day, %s", target, m.setCalls(target), describe(k))
			}
			if len(k.Keys) > 2 {
				t.Errorf("%s: keys are not retired: %s", target, describe(k))
			}
		}
		if got := e.Targets(); len(got) != len(ts) || got[0] != ts[0] || got[19] != ts[19] {
			t.Errorf("it deals with %v", got)
		}
	})
}

func TestAskWakesAndIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(2)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, ts)
		time.Sleep(time.Minute)
		e.Ask(BySignal, ts[1])
		time.Sleep(tablePolicy.Propagation + time.Second)
		if m.setCalls(ts[0]) != 0 || m.setCalls(ts[1]) != 1 {
			t.Errorf("asked for one")
		}
		// The store is away when the next one is asked for, and comes back.
		m.change(func() { m.away = true })
		e.Ask(BySignal, ts...)
		time.Sleep(time.Hour)
		if m.setCalls(ts[0]) != 0 || m.setCalls(ts[1]) != 1 {
			t.Errorf("something was set without the store")
		}
		m.change(func() { m.away = false })
		time.Sleep(tablePolicy.Propagation + time.Minute)
		stop()
		if m.setCalls(ts[0]) != 1 || m.setCalls(ts[1]) != 2 {
			t.Errorf("what was asked for was lost")
		}
	})
}

// TestStopFinishesTheStep stops the engine while a request is under way: it is waited for,
// but not for longer than stopLimit.
func TestStopFinishesTheStep(t *testing.T) {
	t.Parallel()
	for slow, finished := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(1)
			m.adoptedKey(ts[0], "value")
			e, _ := engineOn(t, m, "me", nil, nil)
			e.Ask(BySignal, ts[0])
			stop := running(e, ts)
			time.Sleep(tablePolicy.Propagation - time.Second)
			m.change(func() { m.slow = slow })
			time.Sleep(time.Second + 100*time.Millisecond)
			began := time.Now()
			stop()
			if took := time.Since(began); (m.setCalls(ts[0]) == 1) != finished || took > stopLimit {
				t.Errorf("a request of %s: %d were finished, it took %s", slow, m.setCalls(ts[0]), took)
			}
		})
	}
}

// TestReplicas has three engines on one target: one rotation is one Set call.
func TestReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		m.adoptedKey(ts[0], "value")
		var stops []func()
		for _, owner := range []string{"a", "b", "c"} {
			e, log := engineOn(t, m, owner, func(_ secrets.Target, at time.Time) time.Time { return at.Add(3 * time.Hour) }, nil)
			stops = append(stops, running(e, ts))
			defer func() {
				if strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "level=ERROR") {
					t.Errorf("%s warns:\n%s", owner, log)
				}
			}()
		}
		time.Sleep(49 * time.Hour)
		for _, stop := range stops {
			stop()
		}
		if n := m.setCalls(ts[0]); n != 16 {
			t.Errorf("%d Set calls in two days", n)
		}
	})
}

// TestOwnerGoesAwayAfterSetting has it vanish between the setting and the commit: whoever
// takes over, and looked before, does not set the key again.
func TestOwnerGoesAwayAfterSetting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		m.adoptedKey(ts[0], "value")
		first, _ := engineOn(t, m, "first", nil, nil)
		if err := first.Begin(t.Context(), ts[0], BySignal); err != nil {
			t.Fatal(err)
		}
		second, _ := engineOn(t, m, "second", nil, nil)
		stop := running(second, ts)
		time.Sleep(tablePolicy.Propagation)
		m.change(func() { m.inForce[ts[0]] = m.rings[ts[0]].Keyring.Pending().Key })
		time.Sleep(tablePolicy.Timing.Lease + time.Second)
		stop()
		if k := m.keyring(ts[0]); m.setCalls(ts[0]) != 0 || k.Rotation != nil {
			t.Errorf("%d Set calls, %s", m.setCalls(ts[0]), describe(k))
		}
	})
}

// TestOwnerGoesAway has the replica that began a rotation vanish: another takes it over when
// the lease has passed.
func TestOwnerGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		m.adoptedKey(ts[0], "value")
		first, _ := engineOn(t, m, "first", nil, nil)
		if err := first.Begin(t.Context(), ts[0], BySignal); err != nil {
			t.Fatal(err)
		}
		second, _ := engineOn(t, m, "second", nil, nil)
		stop := running(second, ts)
		time.Sleep(tablePolicy.Propagation + time.Second)
		if m.setCalls(ts[0]) != 0 {
			t.Error("the lease was not respected")
		}
		time.Sleep(tablePolicy.Timing.Lease + time.Second)
		stop()
		if k := m.keyring(ts[0]); m.setCalls(ts[0]) != 1 || k.Rotation != nil {
			t.Errorf("it was not taken over: %s", describe(k))
		}
	})
}
