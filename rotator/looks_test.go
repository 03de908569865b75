package rotator

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// fleet gives an engine for n settled targets that all were looked at.
func fleet(t *testing.T, n int, rate float64, due func(secrets.Target, time.Time) time.Time) (*memory, *Engine, []secrets.Target, func() string) {
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

// TestLooksYield: while rotations wait for their turn, looks that can wait leave Tencent's limit to them, and
// take it up again after.
func TestLooksYield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 5000, 5
		wave := time.Now().Add(10 * time.Minute)
		m, e, ts, _ := fleet(t, n, rate, func(t secrets.Target, at time.Time) time.Time {
			if t.SdkAppID%10 == 0 && at.Before(wave) {
				return wave
			}
			return time.Time{}
		})
		e.stageRate, e.policy.Propagation = 1, time.Second
		stop := running(e, ts)
		defer stop()
		spell := func(d time.Duration) (looks int) {
			before := 0
			m.change(func() { before = m.looks })
			time.Sleep(d)
			m.change(func() { looks = m.looks - before })
			return looks
		}
		if got := spell(100 * time.Second); got < 490 || got > 510 {
			t.Errorf("%d looks in 100 quiet seconds", got)
		}
		time.Sleep(time.Until(wave) + 20*time.Second)
		// One of each new key, and one before it of who was not looked at yet.
		if got := spell(100 * time.Second); got < 90 || got > 210 {
			t.Errorf("%d looks in 100 seconds of a wave of one key a second", got)
		}
		time.Sleep(10 * time.Minute)
		if got := spell(100 * time.Second); got < 490 || got > 510 {
			t.Errorf("%d looks in 100 seconds after the wave", got)
		}
	})
}

// TestCall has a row for what keeps the first in line from being looked at.
func TestCall(t *testing.T) {
	t.Parallel()
	waits := func(d time.Duration) [2]lane {
		return [2]lane{{}, {queue: queue{{at: time.Now().Add(d)}}}}
	}
	for name, c := range map[string]struct {
		change func(*lanes)
		called bool
		next   time.Duration // from now on
	}{
		"nobody is in line":              {func(l *lanes) { l.line = nil }, false, 0},
		"it is time":                     {func(*lanes) {}, true, time.Second / 5},
		"it is not time yet":             {func(l *lanes) { l.nextLook = time.Now().Add(time.Second) }, false, time.Second},
		"rotations are put off":          {func(l *lanes) { l.putOff = make([]visit, 1) }, false, lineCheck},
		"a key waits to be set":          {func(l *lanes) { l.lane = waits(-time.Minute) }, false, lineCheck},
		"a key is to be set in a minute": {func(l *lanes) { l.lane = waits(time.Minute) }, true, time.Second / 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			e, _ := engineOn(t, newMemory(), "me", nil, nil)
			e.lookRate = 5
			first, second := e.track(secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}), e.track(secrets.Target{SdkAppID: 2, Service: secrets.WhiteboardPush})
			l := lanes{line: []visit{{tr: first}, {tr: second}}}
			c.change(&l)
			next := e.call(&l)
			if called := len(l.lane[0].queue) == 1; called != c.called || first.called != c.called || second.called || next.IsZero() != (c.next == 0) || (c.next != 0 && time.Until(next) != c.next) {
				t.Errorf("%s: called: %t, %d still in line, the next in %s", name, called, len(l.line), time.Until(next))
			}
			if l.hurry(time.Now()); l.nextLook.After(time.Now()) || !l.sought.IsZero() {
				t.Errorf("%s: the clock was set back, and nobody is called by the old one", name)
			}
		})
	}
}

// TestLineStandsStill: who waits to be looked at while nobody is called is visited when something else is due, within
// a minute.
func TestLineStandsStill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		e.lookRate = 5
		l := lanes{putOff: make([]visit, 1)}
		due := []time.Duration{0, 30 * time.Second, time.Hour, -1}
		for i, d := range due {
			v := visit{tr: e.track(secrets.Target{SdkAppID: int64(i + 1), Service: secrets.WhiteboardPush})}
			if d >= 0 {
				v.at = time.Now().Add(d)
			}
			l.line = append(l.line, v)
		}
		for _, want := range []int{1, 2, 2} {
			if at := e.call(&l); len(l.lane[0].queue) != want || len(l.line) != len(due)-want || time.Until(at) != lineCheck {
				t.Errorf("%d are visited, %d in line, again in %s; want %d", len(l.lane[0].queue), len(l.line), time.Until(at), want)
			}
			for _, v := range l.lane[0].queue {
				if v.tr.called {
					t.Error("whose rotation is due is looked at out of turn")
				}
			}
			time.Sleep(lineCheck - time.Second)
			if e.call(&l); len(l.lane[0].queue) != want {
				t.Error("the line is gone through before its time")
			}
			time.Sleep(time.Second)
		}
	})
}

// TestReloadKeepsTheLine: a reload has nobody looked at out of turn.
func TestReloadKeepsTheLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, ts, _ := fleet(t, 2000, 1, nil)
		stop := running(e, ts)
		time.Sleep(time.Minute)
		stop()
		before := 0
		m.change(func() { before = m.looks })
		o := e.parts()
		o.LookRate = 1
		e.Reconfigure(o, true)
		defer running(e, ts)()
		time.Sleep(10 * time.Second)
		m.change(func() {
			if n := m.looks - before; n > 12 {
				t.Errorf("%d looks in ten seconds after a reload", n)
			}
		})
	})
}

// TestNobodyCalls: a command, whose engine has no line, looks at once.
func TestNobodyCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, ts, _ := fleet(t, 1, 5, nil)
		if e.Visit(t.Context(), ts[0]); m.looks != 1 {
			t.Errorf("%d looks", m.looks)
		}
	})
}

// TestInLine: who waits to be looked at is visited before, if something else is due first or is asked for.
func TestInLine(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		at   time.Time
		ask  Reason
		line int
	}{
		"nothing else is due":             {time.Time{}, "", 4},
		"something is due after its turn": {now.Add(time.Hour), "", 4},
		"something is due before":         {now, "", 3},
		"it is asked for":                 {time.Time{}, ByCommand, 3},
	} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		e.lookRate = 5
		tr := e.track(codecTarget)
		tr.hold = Turn
		if c.ask != "" {
			e.Ask(c.ask, codecTarget)
		}
		l := lanes{}
		for i := range 3 {
			other := e.track(secrets.Target{SdkAppID: int64(i + 2), Service: secrets.WhiteboardPush})
			other.hold = Turn
			l.line = append(l.line, visit{tr: other})
		}
		if e.add(&l, visit{tr, c.at}); len(l.line) != c.line || len(l.lane[0].queue) != 4-c.line {
			t.Errorf("%s: %d in line, %d not", name, len(l.line), len(l.lane[0].queue))
		}
		e.Ask(ByRevoke, secrets.Target{SdkAppID: 2, Service: secrets.WhiteboardPush})
		if e.expedite(&l); len(l.line) != c.line-1 || len(l.lane[0].queue) != 5-c.line || l.lane[0].queue[0].tr.target.SdkAppID != 2 {
			t.Errorf("%s: whose key leaked is still in line: %+v", name, l)
		}
	}
}

// TestLastInLine: the only one in line is visited for something else, and nobody is left to be called.
func TestLastInLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		e.lookRate = 5
		l := lanes{line: []visit{{tr: e.track(codecTarget), at: time.Now()}}}
		if at := e.call(&l); len(l.lane[0].queue) != 1 || len(l.line) != 0 || time.Until(at) != lineCheck {
			t.Errorf("%d are visited, %d in line, again in %s", len(l.lane[0].queue), len(l.line), time.Until(at))
		}
	})
}

// TestIntervalIsTold when it changes much, and not where it is what was configured.
func TestIntervalIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, log := engineOn(t, newMemory(), "me", nil, nil)
		e.lookRate = 5
		for _, c := range []struct {
			served int
			told   int // in all
		}{{1, 0}, {2400, 0}, {5000, 1}, {5500, 1}, {10000, 2}, {1, 3}, {2, 3}} {
			e.served = c.served
			e.tellInterval()
			if told := strings.Count(log.String(), "looked at less often"); told != c.told {
				t.Errorf("%d targets: told %d times, want %d\n%s", c.served, told, c.told, log)
			}
		}
	})
}
