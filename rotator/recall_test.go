package rotator

import (
	"fmt"
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
// staged, before it is set, when it is in force and when the old one goes; what is read is for
// the looks at settled targets. Tencent is asked twice.
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
		if reads-r > n+100 || writes-w != 3*n || looks-l > n+5*500 {
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

// TestScheduledRequests: what is due needs no read of its own, while the looks read all the time.
func TestScheduledRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		due := time.Now().Add(3 * time.Hour)
		m, e, ts, _ := fleet(t, n, 5, func(_ Target, at time.Time) time.Time {
			if at.Before(due) {
				return due
			}
			return time.Time{}
		})
		stop := running(e, ts)
		time.Sleep(time.Until(due) - time.Second)
		var before, after, looks int
		m.change(func() { before, looks = m.reads, m.looks })
		time.Sleep(tablePolicy.Propagation + time.Minute)
		m.change(func() { after, looks = m.reads, m.looks-looks })
		stop()
		for _, target := range ts {
			if m.setCalls(target) != 1 {
				t.Fatalf("%s: %d set", target, m.setCalls(target))
			}
		}
		if after-before > looks-n+50 {
			t.Errorf("%d reads, with %d looks for the rotations and %d others", after-before, n, looks-n)
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

// TestMemoryIsVoid: what is remembered of the keyrings is not begun with once any of them is found
// older than it was, or another replica was noticed.
func TestMemoryIsVoid(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*memory, *Engine, Target){
		"nothing": func(*memory, *Engine, Target) {},
		"restored": func(m *memory, _ *Engine, o Target) {
			m.change(func() { s := m.rings[o]; s.Version--; m.rings[o] = s })
		},
		"company": func(m *memory, _ *Engine, o Target) {
			m.change(func() { s := m.rings[o]; s.Version++; m.rings[o] = s })
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, e, ts, _ := fleet(t, 2, 5, nil)
			e.Serve(ts...)
			for _, target := range ts {
				e.Visit(t.Context(), target)
				time.Sleep(time.Second)
			}
			spoil(m, e, ts[1])
			if err := e.read(t.Context(), e.track(ts[1])); err != nil {
				t.Fatal(err)
			}
			if older := e.eraNow() > 0; older != (name == "restored") { // a rotation in hand would go on for all the company
				t.Errorf("%s: a keyring was found older: %t", name, older)
			}
			before := m.reads
			e.Visit(t.Context(), ts[0])
			if read := m.reads > before; read != (name != "nothing") {
				t.Errorf("%s: read: %t", name, read)
			}
		})
	}
}

// TestRecall has one reason not to begin with what is remembered in each row.
func TestRecall(t *testing.T) {
	t.Parallel()
	for i, r := range []struct {
		name  string
		spoil func(*memory, *Engine, *track)
		want  bool
	}{
		{"all is well", func(*memory, *Engine, *track) {}, true},
		{"the last read is long ago", func(*memory, *Engine, *track) { time.Sleep(recallLimit + time.Second) }, false},
		{"the store failed", func(m *memory, e *Engine, tr *track) { e.storeFailed(tr, StepObserve, errAway) }, false},
		{"the clock was found set back in a visit", func(_ *memory, e *Engine, tr *track) {
			now := e.moment()
			now.wall = now.wall.Add(-time.Hour)
			tr.date(now)
		}, false},
		{"a keyring was older than it had been", func(_ *memory, e *Engine, _ *track) { e.era++ }, false},
		{"the clock was set back to after the last visit", func(_ *memory, e *Engine, _ *track) { e.lastRead.wall = e.lastRead.wall.Add(time.Minute) }, false},
		{"the clock was set back before the store answered again", func(_ *memory, _ *Engine, tr *track) { tr.latest = tr.latest.Add(time.Minute) }, false},
		{"there is company", func(_ *memory, e *Engine, _ *track) { e.company = 1 }, false},
		{"there was company long ago", func(_ *memory, e *Engine, _ *track) {
			e.company = 1
			time.Sleep(companyLimit)
			e.readAt, e.lastRead = e.moment(), e.moment()
		}, true},
		{"the clock was set back", func(m *memory, _ *Engine, _ *track) { m.ahead = -time.Hour }, false},
		{"Run does not look after it", func(_ *memory, _ *Engine, tr *track) { tr.held = false }, false},
		{"nothing was read", func(_ *memory, _ *Engine, tr *track) { tr.snap = Snapshot{} }, false},
		{"somebody asks", func(_ *memory, e *Engine, tr *track) { e.Ask(BySignal, tr.target) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, e, ts, _ := fleet(t, 1, 5, nil)
			e.Serve(ts...)
			tr := e.track(ts[0])
			e.Visit(t.Context(), ts[0])
			time.Sleep(time.Second)
			r.spoil(m, e, tr)
			before := m.reads
			if err := e.open(t.Context(), tr); err != nil {
				t.Fatal(err)
			}
			if got := m.reads == before; got != r.want {
				t.Errorf("%d %s: it begins with what is remembered: %t", i, r.name, got)
			}
		})
	}
}

// TestCompany: another replica is noticed by what it has in hand, and a replica does not take itself for
// another.
func TestCompany(t *testing.T) {
	t.Parallel()
	for owner, want := range map[string]bool{"me": false, "other": true} {
		synctest.Test(t, func(t *testing.T) {
			m, e, ts, _ := fleet(t, 1, 5, nil)
			other, _ := engineOn(t, m, owner, nil, nil)
			if err := other.Begin(t.Context(), ts[0], BySignal); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := e.read(t.Context(), e.track(ts[0])); err != nil {
				t.Fatal(err)
			}
			if noticed := e.company == e.clock.Steady(); noticed != want {
				t.Errorf("%s: another replica is noticed: %t", owner, noticed)
			}
		})
	}
}

// TestRecallPending: of a rotation in hand the keyring is read while nothing else shows that the
// store can be read, and when another replica that carries it out may have come to an end.
func TestRecallPending(t *testing.T) {
	t.Parallel()
	for _, owner := range []string{"me", "other"} {
		synctest.Test(t, func(t *testing.T) {
			m, e, ts, _ := fleet(t, 1, 5, nil)
			e.Serve(ts...)
			other, _ := engineOn(t, m, owner, nil, nil)
			if err := other.Begin(t.Context(), ts[0], BySignal); err != nil {
				t.Fatal(err)
			}
			e.Visit(t.Context(), ts[0])
			tr, at := e.track(ts[0]), fmt.Sprint
			e.unbroken = e.moment().steady
			began := time.Now()
			for _, r := range []struct {
				after time.Duration
				want  bool
			}{{time.Second, true}, {e.policy.probe() - time.Second, true}, {e.policy.probe(), false}, {e.policy.Propagation + e.policy.Timing.Lease + time.Minute, owner == "me"}} {
				time.Sleep(time.Until(began.Add(r.after)))
				if r.after > time.Minute { // another keyring was read a moment ago
					now := e.moment()
					e.readAt, e.lastRead = now, now
				}
				if got := e.recall(tr); got != r.want {
					t.Errorf("%s, after %s: %t", owner, at(r.after), got)
				}
				e.unbroken += time.Millisecond // receivers could not read it either in between
				if e.recall(tr) && tr.pendingSeen.since < e.unbroken {
					t.Errorf("%s, after %s: the key counts as seen since %s, and the store is read since %s", owner, at(r.after), tr.pendingSeen.since, e.unbroken)
				}
			}
		})
	}
}
