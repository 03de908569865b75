package observe

import (
	"errors"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/secrets"
)

func fleet(n int) *Monitor {
	m := New(Build{})
	targets := make([]secrets.Target, n)
	for i := range targets {
		targets[i] = secrets.Target{SdkAppID: int64(i + 1), Service: secrets.WhiteboardPush}
	}
	m.Serve(Served{Targets: targets})
	return m
}

// TestKept: in a large fleet what takes long is made for at most a tenth of the time, however often it is
// asked for; in a small one it is made each time; and it is not kept once nobody asks.
func TestKept(t *testing.T) {
	t.Parallel()
	for targets, c := range map[int]struct{ least, most int }{manyTargets + 1: {8, 10}, manyTargets: {500, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			m, k, made := fleet(targets), &kept[int]{}, 0
			for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(time.Millisecond / 10) {
				k.get(m, func() int {
					made++
					time.Sleep(max(time.Millisecond, time.Duration(targets-manyTargets)*10*time.Millisecond))
					return made
				})
			}
			if made < c.least || made > c.most {
				t.Errorf("%d targets: it was made %d times", targets, made)
			}
			k.get(m, func() int { time.Sleep(time.Hour); return 0 })
			time.Sleep(keptAtMost)
			synctest.Wait()
			if k.have != nil {
				t.Error("it is kept for nobody")
			}
		})
	}
}

// TestOneAtATime: those that ask at the same time take the memory and the time of one.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	m, k := fleet(manyTargets+1), &kept[int]{}
	var now atomic.Int32
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			k.get(m, func() int {
				defer now.Add(-1)
				if n := now.Add(1); n > 1 {
					t.Errorf("%d at a time", n)
				}
				runtime.Gosched()
				return 0
			})
		})
	}
	group.Wait()
}

// TestOneForAll: all that goes through the targets for a stranger is made once for all of them. What does
// not is told at once.
func TestOneForAll(t *testing.T) {
	t.Parallel()
	m := fleet(manyTargets + 1)
	m.reads.ended(nil, time.Now())
	late := errors.New("what is kept")
	m.lates.have = &late
	m.reports.have = &Report{Summary: "what is kept"}
	m.views.have = &view{}
	kept := prometheus.Gatherer(prometheus.NewRegistry())
	m.metrics.have = &kept
	for path, want := range map[string]string{"/readyz": "what is kept\n", "/metrics": ""} {
		w := httptest.NewRecorder()
		if m.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil)); w.Body.String() != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if r := m.Report(); r.Summary != "what is kept" || !errors.Is(r.Wrong, late) {
		t.Errorf("%+v", r)
	}
	if v := m.look(); v.standings != nil {
		t.Error("another look was taken")
	}
	m.Stopping()
	if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("it is about to end: %v", err)
	}
}
