package rotator

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fleet gives an engine for n settled targets that all were looked at.
func fleet(t *testing.T, n int, rate float64, due func(Target, time.Time) time.Time) (*memory, *Engine, []Target, func() string) {
	t.Helper()
	m, ts := newMemory(), targets(n)
	for _, target := range ts {
		m.adoptedKey(target, "value-"+target.String())
	}
	e, log := engineOn(t, m, "me", due, nil)
	e.lookRate = rate
	return m, e, ts, func() string { synctest.Wait(); return log.String() }
}

// TestRequests counts what a rotation costs in a fleet: the keyring is written when the key is
// staged, before it is set, when it is in force and when the old one goes; it is read at every
// visit, of which there is one a probe while receivers come to know the key. Tencent is asked twice.
func TestRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		m, e, ts, log := fleet(t, n, 5, nil)
		stop := running(e, ts)
		time.Sleep(e.Interval() + time.Minute)
		var reads, writes, looks int
		count := func() { m.change(func() { reads, writes, looks = m.reads, m.writes, m.looks }) }
		count()
		r, w, l := reads, writes, looks
		e.Ask(BySignal, ts...)
		time.Sleep(tablePolicy.Propagation + time.Minute)
		count()
		// To begin, at each probe, and in time for it.
		if most := n * (3 + int(tablePolicy.Propagation/probe(tablePolicy.Propagation))); reads-r > most || writes-w != 3*n || looks-l > n+5*500 {
			t.Errorf("until all keys are in force: %d reads, %d writes, %d looks for %d", reads-r, writes-w, looks-l, n)
		}
		time.Sleep(tablePolicy.Grace + 2*e.Interval())
		count()
		stop()
		if writes-w != 4*n {
			t.Errorf("until all old keys are gone: %d writes for %d", writes-w, n)
		}
		for _, target := range ts {
			if k := m.keyring(target); m.setCalls(target) != 1 || len(k.Keys) != 1 {
				t.Fatalf("%s: %d set, %s", target, m.setCalls(target), describe(k))
			}
		}
		if strings.Contains(log(), "level=WARN") || strings.Contains(log(), "level=ERROR") {
			t.Error("it warns")
		}
	})
}

// TestLooksAreSpread: with many targets each is looked at less often, evenly, and that is said.
func TestLooksAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 2000, 1
		m, e, ts, log := fleet(t, n, rate, nil)
		stop := running(e, ts)
		defer stop()
		time.Sleep(time.Second)
		if want := 2500 * time.Second; e.Interval() != want {
			t.Errorf("the interval is %s, want %s", e.Interval(), want)
		}
		if !strings.Contains(log(), "interval=41m40s configured=10m0s") {
			t.Errorf("it is not said: %.300s", log())
		}
		for minute, last := 0, 0; minute < 100; minute++ {
			time.Sleep(time.Minute)
			var looks int
			m.change(func() { looks = m.looks })
			if looks-last > rate*60+10 {
				t.Fatalf("%d looks in minute %d", looks-last, minute)
			}
			last = looks
		}
		m.change(func() {
			if m.looks < 2*n {
				t.Errorf("%d looks in 100 minutes", m.looks)
			}
		})
		e.Drop(ts[100:]...)
		time.Sleep(e.policy.Reconcile + time.Minute)
		if e.Interval() != e.policy.Reconcile || !strings.Contains(log(), "targets=100 interval=10m0s") {
			t.Errorf("with a hundred targets the interval is %s", e.Interval())
		}
	})
}

// TestLooksYield: while many keys are set, looks that can wait leave Tencent's limit to them, and take it up
// again soon after.
func TestLooksYield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 5000, 5
		m, e, ts, _ := fleet(t, n, rate, nil)
		stop := running(e, ts)
		defer stop()
		spell := func(d time.Duration, sets float64) (looks int) {
			before := 0
			m.change(func() { before = m.looks })
			for end := time.Now().Add(d); time.Now().Before(end); {
				if sets == 0 {
					time.Sleep(time.Second)
					continue
				}
				time.Sleep(time.Duration(float64(time.Second) / sets))
				e.pushing()
			}
			m.change(func() { looks = m.looks - before })
			return looks
		}
		if got := spell(100*time.Second, 0); got < 490 || got > 510 {
			t.Errorf("%d looks in 100 quiet seconds", got)
		}
		spell(20*time.Second, 6)
		if got := spell(100*time.Second, 6); got > 10 { // those called just before
			t.Errorf("%d looks in 100 seconds of a wave", got)
		}
		spell(2*turnCheck, 0)
		if got := spell(100*time.Second, 0); got < 480 || got > 600 { // with some that were called in the last minute
			t.Errorf("%d looks in 100 seconds after the wave", got)
		}
		spell(60*time.Second, 1)
		if got := spell(100*time.Second, 1); got < 250 || got > 350 {
			t.Errorf("%d looks in 100 seconds with a key a second", got)
		}
	})
}
