package rotator

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// Asked lists what is asked for and was not begun.
func (e *Engine) Asked() map[secrets.Target]Reason {
	e.mu.Lock()
	defer e.mu.Unlock()
	left := map[secrets.Target]Reason{}
	for t, tr := range e.tracks {
		if tr.ask != "" {
			left[t] = tr.ask
		}
	}
	return left
}

// parts are those that e has now.
func (e *Engine) parts() Options {
	return Options{Store: e.store, API: e.api, Policy: e.policy, Due: e.due, Log: e.log, Events: e.events, Share: e.share}
}

// reloads has e run until a time is over, with so long from one reload to the next.
func reloads(e *Engine, ts []secrets.Target, every, during time.Duration, o Options, same bool) {
	for end := time.Now().Add(during); time.Now().Before(end); {
		stop := running(e, ts)
		time.Sleep(min(every, time.Until(end)))
		stop()
		e.Reconfigure(o, same)
	}
}

// TestReloads: reloads more often than receivers need put no key off, unless the store becomes another
// one: what was seen of its keyrings is void then.
func TestReloads(t *testing.T) {
	t.Parallel()
	const p = 6 * time.Minute
	if p != tablePolicy.Propagation {
		t.Fatal(tablePolicy.Propagation)
	}
	for _, c := range []struct {
		every, propagation time.Duration
		same               bool
		set                time.Duration // after it was asked for; 0: never
	}{
		{p / 2, p, true, p},
		{p / 50, p, true, p},
		{time.Second, p, true, p},
		{p / 2, 2 * p, true, 2 * p}, // the first reload makes it longer
		{p / 2, p / 10, true, p},    // or shorter, which holds for the next key
		{p / 2, p, false, 0},
		{p + time.Second, p, false, p},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(1)
			m.adoptedKey(ts[0], "value")
			began := time.Now()
			var set time.Duration
			e, log := engineOn(t, m, "me", nil, func(ev Event) {
				if ev.Step == StepPush && ev.Kind == Begin && set == 0 {
					set = time.Since(began)
				}
			})
			e.Ask(BySignal, ts...)
			o := e.parts()
			o.Policy.Propagation, o.Policy.Owner = c.propagation, "" // as a daemon gives it none
			reloads(e, ts, c.every, 3*p, o, c.same)
			if (set < c.set || set > c.set+2*time.Second) || (c.set == 0 && set != 0) {
				t.Errorf("%+v: it was set after %s\n%s", c, set, log)
			}
			if want := min(1, int(c.set)); m.setCalls(ts[0]) != want {
				t.Errorf("%+v: %d Set calls", c, m.setCalls(ts[0]))
			}
		})
	}
}

// TestReconfigure: what a reload keeps, and what it does not.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(3)
			for _, target := range ts[:2] {
				m.adoptedKey(target, "value-"+target.String())
			}
			e, _ := engineOn(t, m, "me", nil, nil)
			m.lookErrs = refuse(1, Refused, "UnauthorizedOperation")
			barred := running(e, ts[2:]) // which is not looked at again for 15 minutes
			time.Sleep(time.Second)
			barred()
			stop := running(e, ts)
			time.Sleep(time.Minute)
			stop()
			before := looks(m)
			e.peers["other"], e.replicas = peer{}, 2
			e.pace.room, e.stageRate = 0.5, 1
			e.track(ts[0]).purge = 5
			e.Ask(BySignal, ts[0], ts[1])
			e.track(ts[0]).heard = e.track(ts[0]).asks // by a visit that could do nothing
			var shared string
			o := e.parts()
			o.Share = func(replicas, place int) { shared = fmt.Sprint(replicas, place) }
			e.track(ts[1]).obs.Sight = Forbidden
			e.longer.Do(func() {})
			e.Reconfigure(o, same)
			if sight := e.track(ts[1]).obs.Sight; sight != Unseen {
				t.Errorf("%t: a right that was missing is not asked for again: %v", same, sight)
			}
			told := false
			if e.longer.Do(func() { told = true }); !told {
				t.Errorf("%t: what another configuration was told counts for this one", same)
			}
			e.Drop(ts[1])
			if n := len(e.Standings()); n != 2 || len(e.Targets()) != 2 || len(e.Asked()) != 1 {
				t.Errorf("%t: %d targets stand, asked for: %v", same, n, e.Asked())
			}
			tr := e.track(ts[0])
			if _, news := e.unheard(tr); !news || e.Asked()[ts[0]] != BySignal || e.policy.Owner != "me" {
				t.Errorf("%t: the demand, or the name, is gone", same)
			}
			for what, kept := range map[string]bool{"versions to destroy": tr.purge == 5, "a standing": tr.standing != nil, "peers": len(e.peers) == 1,
				"room": e.pace.room == 0.5, "silences": e.silences.last != moment{}, "the share": shared == "2 0"} {
				if kept != same {
					t.Errorf("the same: %t, but %s kept: %t", same, what, kept)
				}
			}
			stop = running(e, []secrets.Target{ts[0], ts[2]})
			time.Sleep(time.Second)
			if n := looks(m) - before; n != map[bool]int{true: 1, false: 2}[same] || m.keyring(ts[2]) == nil {
				t.Errorf("%t: %d looks; adopted: %t", same, n, m.keyring(ts[2]) != nil)
			}
			time.Sleep(tablePolicy.Propagation + time.Second)
			stop()
			if n := m.setCalls(ts[0]); n != 1 || m.setCalls(ts[1]) != 0 {
				t.Errorf("%t: %d rotations", same, n)
			}
		})
	}
}

// TestReloadFlood: reloads that stop the engine all the time keep neither a target from its visits nor
// a visit from its steps.
func TestReloadFlood(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(200)
			for _, target := range ts {
				m.adoptedKey(target, "value-"+target.String())
			}
			e, _ := engineOn(t, m, "me", nil, nil)
			e.store = tardy{m, 2 * time.Second} // so that all are read in 14 seconds
			e.Ask(BySignal, ts...)
			reloads(e, ts, every, 20*time.Minute, e.parts(), true)
			left := 0
			for _, target := range ts {
				if m.setCalls(target) == 0 || m.keyring(target).Pending() != nil {
					left++
				}
			}
			if left > 0 {
				t.Errorf("every %s: of %d targets %d were not rotated", every, len(ts), left)
			}
		})
	}
}

// TestReloadIsLookedAt: pages and metrics ask the engine while it gets other parts.
func TestReloadIsLookedAt(t *testing.T) {
	t.Parallel()
	m, ts := newMemory(), targets(3)
	e, _ := engineOn(t, m, "me", nil, nil)
	var group sync.WaitGroup
	var over atomic.Bool
	group.Go(func() {
		for !over.Load() {
			e.Standings()
			e.Interval()
			e.Stalled()
			e.StallLimit()
			e.Served()
		}
	})
	for n := range 20 {
		running(e, ts)()
		o := e.parts()
		o.Log, o.LookRate = slog.New(slog.DiscardHandler), float64(n)
		e.Reconfigure(o, n%2 == 0)
	}
	over.Store(true)
	group.Wait()
}

func looks(m *memory) (n int) {
	m.change(func() { n = m.looks })
	return n
}
