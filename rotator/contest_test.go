package rotator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// rival sets another key as often as the engine is found to have put its own back.
type rival struct {
	m      *memory
	target secrets.Target
	ours   secrets.Key
	keys   int
}

// watch looks every ten seconds until some time, and gives when it found our key back.
func (r *rival) watch(until time.Time) (backs []time.Time) {
	for time.Now().Before(until) {
		time.Sleep(10 * time.Second)
		r.m.change(func() {
			if !r.m.inForce[r.target].Equal(r.ours) {
				return
			}
			if r.keys > 0 {
				backs = append(backs, time.Now())
			}
			r.keys++
			r.m.inForce[r.target] = secrets.NewKey("", fmt.Sprint("theirs", r.keys))
		})
	}
	return backs
}

func contestedNow(t *testing.T, e *Engine) bool {
	t.Helper()
	all := e.Standings()
	if len(all) != 1 {
		t.Fatalf("%d targets", len(all))
	}
	return all[0].Contested
}

const (
	contestBegins = "the target is contested:"
	contestEnds   = "the target is contested no more"
)

// TestContested: somebody else sets a key whenever ours is put back. That is told once, and ours is
// put back more and more rarely. A demand and a revocation are not held up by it, and it is over when the
// other one has stopped for an hour.
func TestContested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		ours := m.adoptedKey(target, "value")
		e, log := engineOn(t, m, "me", nil, nil)
		e.policy.Reconcile = 10 * time.Second
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(time.Minute)
		r := &rival{m: m, target: target, ours: ours}
		backs := r.watch(time.Now().Add(time.Hour))
		if !contestedNow(t, e) || strings.Count(log.String(), contestBegins) != 1 || strings.Count(log.String(), "times=3") != 1 {
			t.Errorf("it is not told once that the target is contested:\n%d", strings.Count(log.String(), contestBegins))
		}
		for i := 1; i < len(backs); i++ {
			pause, least := backs[i].Sub(backs[i-1]), time.Duration(0)
			if i >= contestTimes {
				least = min(tablePolicy.Timing.RetryMin<<(i-1), tablePolicy.Timing.RetryMax)
			}
			if pause < least-10*time.Second || pause > least+least/4+time.Minute { // it looks every ten seconds
				t.Errorf("it was put back again after %s, the %d. time, at least %s", pause, i+1, least)
			}
		}
		if len(backs) < 10 || len(backs) > 25 {
			t.Errorf("our key was put back %d times in an hour", len(backs))
		}
		// A demand is carried out at any time.
		m.change(func() { m.inForce[target] = secrets.NewKey("", "theirs once more") })
		e.track(target).forget()
		began := time.Now()
		e.Ask(ByRevoke, target)
		time.Sleep(20 * time.Second)
		k := m.keyring(target)
		if k.Pending() != nil || !k.CallbackKey().Equal(m.signing(target)) || k.CallbackKey().Equal(ours) {
			t.Errorf("a revocation waits for %s already: %s", time.Since(began), describe(k))
		}
		if !contestedNow(t, e) {
			t.Error("it is over while the other one goes on")
		}
		time.Sleep(contestSpan + time.Minute)
		if contestedNow(t, e) || strings.Count(log.String(), contestEnds) != 1 {
			t.Error("nobody has set another key for an hour, and the target is contested yet")
		}
		// And now the first time does not count as one of many.
		m.change(func() { m.inForce[target] = secrets.NewKey("", "by mistake") })
		time.Sleep(30 * time.Second)
		if contestedNow(t, e) || !m.signing(target).Equal(k.CallbackKey()) {
			t.Error("a single key set by mistake is not put right at once")
		}
	})
}

// TestNotContested: what does not come from somebody who undoes us.
func TestNotContested(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keys  int
		every time.Duration
		drift Drift
		lag   time.Duration
	}{
		"twice in an hour":     {2, 10 * time.Minute, Reassert, 0},
		"less than hourly":     {6, contestSpan + 20*time.Minute, Reassert, 0},
		"adopted each time":    {9, 10 * time.Minute, AdoptKey, 0},
		"left alone":           {9, 10 * time.Minute, AlarmOnly, 0},
		"Describe lags behind": {1, time.Hour, Reassert, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.lag = c.lag
			e, log := engineOn(t, m, "me", nil, nil)
			e.policy.Reconcile, e.policy.OnDrift = 10*time.Second, c.drift
			stop := running(e, targets(1))
			defer stop()
			time.Sleep(time.Minute)
			for i := range c.keys {
				m.change(func() {
					m.former[target], m.changes[target], m.inForce[target] = m.inForce[target], time.Now(), secrets.NewKey("", fmt.Sprint("theirs", i))
				})
				time.Sleep(c.every)
			}
			if contestedNow(t, e) || strings.Contains(log.String(), "contested") {
				t.Errorf("%s: it is told to be contested", name)
			}
			if e.track(target).contest.rest != 0 {
				t.Errorf("%s: our key is not put back at once", name)
			}
			if sets := m.setCalls(target); c.drift == Reassert && sets < c.keys || c.drift == AdoptKey && sets > c.keys || c.drift == AlarmOnly && sets > 0 {
				t.Errorf("%s: %d keys were set", name, sets)
			}
		})
	}
}

// TestContestedByTwo: two daemons with a keyring each. Both tell of it; with Adopt on one side they
// come to agree.
func TestContestedByTwo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drift     [2]Drift
		contested bool
	}{
		"both reassert": {[2]Drift{Reassert, Reassert}, true}, "both adopt": {[2]Drift{AdoptKey, AdoptKey}, false},
		"one adopts": {[2]Drift{AdoptKey, Reassert}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			var engines [2]*Engine
			for i := range engines {
				ring := newMemory()
				ring.adoptedKey(target, fmt.Sprint("value", i))
				engines[i], _ = engineOn(t, ring, fmt.Sprint("daemon", i), nil, nil)
				engines[i].api = m
				engines[i].policy.Reconcile, engines[i].policy.OnDrift = time.Duration(10+i)*time.Second, c.drift[i]
				defer running(engines[i], targets(1))()
			}
			time.Sleep(time.Hour)
			sets := m.setCalls(target)
			for i, e := range engines {
				if contestedNow(t, e) != c.contested {
					t.Errorf("%s: daemon %d tells %v", name, i, !c.contested)
				}
			}
			time.Sleep(time.Hour)
			// One that was adopted is set once before the one that it replaced goes.
			if more := m.setCalls(target) - sets; more > 30 || !c.contested && more > 1 {
				t.Errorf("%s: %d keys were set in an hour", name, more)
			}
		})
	}
}

// TestContestedIsGone: the keyring goes while its key, which was put back, is not seen in force yet.
func TestContestedIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		ours := m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		e.Visit(t.Context(), target)
		m.change(func() { m.inForce[target], m.lag = secrets.NewKey("", "theirs"), time.Hour })
		time.Sleep(e.policy.Reconcile)
		e.Visit(t.Context(), target)
		if m.setCalls(target) == 0 || !e.track(target).contest.put {
			t.Fatal("our key was not put back, or was seen already")
		}
		m.change(func() { delete(m.rings, target); m.inForce[target] = ours })
		time.Sleep(e.policy.Timing.RetryMax)
		e.Visit(t.Context(), target)
		if m.keyring(target) == nil {
			t.Error("the key in force is not adopted")
		}
	})
}
