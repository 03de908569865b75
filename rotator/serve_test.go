package rotator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestServeAndDrop has targets come and go while the engine runs.
func TestServeAndDrop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(3)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		e, log := engineOn(t, m, "me", nil, nil)
		e.Serve(ts[0])
		stop := running(e, nil)
		time.Sleep(time.Minute)
		e.ServeFound(ts[1], ts[1], ts[2])
		e.Ask(BySignal, ts...)
		time.Sleep(tablePolicy.Propagation + time.Second)
		if got := []int{m.setCalls(ts[0]), m.setCalls(ts[1]), m.setCalls(ts[2])}; fmt.Sprint(got) != "[1 1 1]" {
			t.Errorf("rotations: %v", got)
		}
		e.Drop(ts[0], secrets.Target{SdkAppID: 99, Service: secrets.Transcode})
		m.change(func() { m.rings[ts[1]] = Snapshot{Version: 9} }) // removed by somebody
		looks := func() (n int) { m.change(func() { n = m.looks }); return n }
		time.Sleep(tablePolicy.Reconcile + time.Minute)
		if got := e.Targets(); len(got) != 1 || got[0] != ts[2] {
			t.Errorf("it still deals with %v", got)
		}
		before := looks()
		time.Sleep(tablePolicy.Reconcile + time.Second)
		synctest.Wait()
		if m.keyring(ts[1]) != nil || looks() > before+2 || !strings.Contains(log.String(), "the keyring is gone") {
			t.Errorf("the removed target: %s, %d looks\n%s", describe(m.keyring(ts[1])), looks()-before, log)
		}
		// It is enrolled again, and the dropped one is served again.
		m.adoptedKey(ts[1], "again")
		e.ServeFound(ts[1])
		e.Serve(ts[0])
		e.Ask(BySignal, ts[:2]...)
		time.Sleep(tablePolicy.Propagation + time.Minute)
		stop()
		if got := []int{m.setCalls(ts[0]), m.setCalls(ts[1]), m.setCalls(ts[2])}; fmt.Sprint(got) != "[2 2 1]" || len(e.Targets()) != 3 {
			t.Errorf("rotations: %v of %v", got, e.Targets())
		}
	})
}

// TestFoundIsConfigured: a target that is named by the operator, too, is adopted if need be.
func TestFoundIsConfigured(t *testing.T) {
	t.Parallel()
	for _, found := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(1)
			e, _ := engineOn(t, m, "me", nil, nil)
			if found {
				e.ServeFound(ts...)
			} else {
				e.ServeFound(ts...)
				e.Serve(ts...)
				e.ServeFound(ts...)
			}
			stop := running(e, nil)
			time.Sleep(time.Minute)
			stop()
			if adopted := m.keyring(ts[0]) != nil; adopted == found {
				t.Errorf("adopted: %t", adopted)
			}
		})
	}
}

// TestUrgentFirst: who asks for one target does not wait for the thousands that are due.
func TestUrgentFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(500)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		var order []secrets.Target
		e, _ := engineOn(t, m, "me", nil, func(ev Event) {
			if ev.Step == StepStage && ev.Kind == Done {
				m.change(func() { order = append(order, ev.Target) })
			}
		})
		m.latency = time.Second // so that the visits of all take a while
		stop := running(e, ts)
		time.Sleep(time.Minute)
		m.change(func() { order = nil })
		e.Ask(BySignal, ts...)
		time.Sleep(2 * time.Second)
		e.Ask(ByCommand, ts[400])
		e.Ask(ByRevoke, ts[300])
		time.Sleep(time.Hour)
		stop()
		place := map[secrets.Target]int{}
		for i, target := range order {
			place[target] = i
		}
		if a, b := place[ts[400]], place[ts[300]]; len(order) < 500 || a > 5*maxVisits || b > 5*maxVisits {
			t.Errorf("of %d, what was asked for by name came as number %d, what was leaked as number %d", len(order), a, b)
		}
	})
}
