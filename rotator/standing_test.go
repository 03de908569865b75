package rotator

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestStandings tells of each target as the last visit left it, and holds no key.
func TestStandings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(2)
		m.adoptedKey(ts[0], "CANARY-first")
		var e *Engine
		e, _ = engineOn(t, m, "me", nil, func(ev Event) {
			for _, s := range e.Standings() {
				if s.Drift {
					t.Errorf("drift at %s: %+v", ev.Step, s)
				}
			}
		})
		stop := running(e, ts)
		time.Sleep(time.Minute)
		by := func() map[secrets.Target]Standing {
			got := map[secrets.Target]Standing{}
			for _, s := range e.Standings() {
				if got[s.Target] = s; strings.Contains(fmt.Sprintf("%+v %#v", s, s), "CANARY") {
					t.Error("a key is in it")
				}
			}
			return got
		}
		s := by()[ts[0]]
		if !s.Read || !s.Adopted || s.KeyID != "first" || s.PendingID != "" || s.Rotation != "" || s.Drift || !s.Due.Equal(s.RotatedAt.Add(24*time.Hour)) {
			t.Errorf("settled: %+v", s)
		}
		e.Ask(BySignal, ts[0])
		time.Sleep(time.Minute)
		k := m.keyring(ts[0])
		s = by()[ts[0]]
		if s.PendingID != k.Pending().Key.ID() || s.Rotation != k.Rotation.ID || s.Reason != BySignal || !s.Ours || !s.LeaseUntil.Equal(k.Rotation.LeaseUntil) || s.ReadyAt.Before(k.Pending().PushAfter) {
			t.Errorf("in hand: %+v", s)
		}
		// The pending key in force, as after a push, is no drift.
		m.change(func() { m.inForce[ts[0]] = k.Pending().Key })
		time.Sleep(tablePolicy.Reconcile + tablePolicy.Propagation)
		if s = by()[ts[0]]; s.Drift || s.KeyID != k.Pending().Key.ID() || len(s.History) != 1 || s.History[0].Code != "" || s.Previous != 1 || s.LastError != nil {
			t.Errorf("done: %+v", s)
		}
		stop()
		at := by()[ts[0]].At
		time.Sleep(time.Hour)
		if s = by()[ts[0]]; !s.At.Equal(at) || len(by()) != 2 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

// TestStalledLoop: the loop that hands out the visits is stuck, and none is under way.
func TestStalledLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(2)
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, ts)
		time.Sleep(time.Hour)
		if about, d := e.Stalled(); d != 0 || about != (secrets.Target{}) {
			t.Errorf("an engine that waits is stalled for %s at %s", d, about)
		}
		e.mu.Lock()
		e.wake <- struct{}{}
		about, stalled := e.Stalled() // a lock is nothing that a bubble's clock waits for
		for i := 0; stalled == 0 && i < 1e7; i++ {
			runtime.Gosched()
			e.progress.mu.Lock()
			if e.progress.loop != nil {
				stalled = 1
			}
			e.progress.mu.Unlock()
		}
		if stalled == 0 || about != (secrets.Target{}) {
			t.Error("the loop waits for the lock, and that counts as a wait for events")
		}
		e.mu.Unlock()
		stop()
		if _, d := e.Stalled(); d != 0 {
			t.Errorf("an engine that has ended is stalled for %s", d)
		}
	})
}

// TestStalledVisit tells of the one that has got on least recently.
func TestStalledVisit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(3)
		release := make(chan struct{})
		stuck := ts[1]
		e, _ := engineOn(t, m, "me", nil, func(ev Event) {
			if ev.Target == stuck && ev.Kind == Begin {
				<-release
			}
		})
		stop := running(e, ts)
		time.Sleep(time.Hour)
		if about, d := e.Stalled(); about != stuck || d != time.Hour {
			t.Errorf("stalled for %s at %s", d, about)
		}
		close(release)
		time.Sleep(time.Second)
		if about, d := e.Stalled(); d != 0 {
			t.Errorf("stalled for %s at %s", d, about)
		}
		stop()
	})
}

// TestSlowIsNotStalled: neither a store nor a Tencent that takes as long as it may makes a
// visit look stuck.
func TestSlowIsNotStalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		e, _ := engineOn(t, m, "me", nil, nil)
		m.latency, m.slow = callLimit, tablePolicy.Timing.PushDeadline
		stop := running(e, ts)
		var worst time.Duration
		for range 2000 {
			time.Sleep(time.Second)
			if _, d := e.Stalled(); d > worst {
				worst = d
			}
		}
		if worst >= e.StallLimit() || worst < callLimit {
			t.Errorf("stalled for %s, the limit is %s", worst, e.StallLimit())
		}
		stop()
	})
}

// TestLongVisit: a visit may take as long as it needs if it gets on.
func TestLongVisit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		var e *Engine
		var worst, took time.Duration
		began := time.Now()
		e, _ = engineOn(t, m, "me", nil, func(ev Event) {
			time.Sleep(time.Minute)
			_, d := e.Stalled()
			worst = max(worst, d)
			if ev.Step == StepStage && ev.Kind == Done {
				took = time.Since(began)
			}
		})
		stop := running(e, ts)
		time.Sleep(20 * time.Minute)
		stop()
		if worst >= 2*time.Minute || took <= e.StallLimit() {
			t.Errorf("stalled for %s in a visit of %s", worst, took)
		}
	})
}

// TestManyStandings: all of ten thousand targets are told of while visits go on.
func TestManyStandings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(10000)
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, ts)
		for range 2 {
			if n := len(e.Standings()); n != len(ts) && n != 0 {
				t.Errorf("%d", n)
			}
			time.Sleep(time.Minute)
		}
		stop()
		for _, s := range e.Standings() {
			if s.PendingID == "" {
				t.Fatalf("%+v", s)
			}
		}
	})
}
