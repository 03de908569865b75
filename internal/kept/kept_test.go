package kept

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
)

// TestKept: in a large fleet what takes long is made for at most a tenth of the time, however often it is
// asked for; in a small one it is made each time; and it is not kept once nobody asks.
func TestKept(t *testing.T) {
	t.Parallel()
	for targets, c := range map[int]struct{ least, most int }{Many + 1: {8, 10}, Many: {500, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			k, made := &Value[int]{}, 0
			for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(time.Millisecond / 10) {
				k.Get(targets, func() int {
					made++
					time.Sleep(max(time.Millisecond, time.Duration(targets-Many)*10*time.Millisecond))
					return made
				})
			}
			if made < c.least || made > c.most {
				t.Errorf("%d targets: it was made %d times", targets, made)
			}
			k.Get(targets, func() int { time.Sleep(time.Hour); return 0 })
			time.Sleep(most)
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
	k := &Value[int]{}
	var now atomic.Int32
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			k.Get(Many+1, func() int {
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

// slow is a metric that takes a while to tell.
type slow struct {
	desc   *prometheus.Desc
	asked  *int
	broken bool
}

func (s slow) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

func (s slow) Collect(ch chan<- prometheus.Metric) {
	time.Sleep(10 * time.Millisecond)
	*s.asked++
	if s.broken {
		ch <- prometheus.NewInvalidMetric(s.desc, errors.New("it is broken"))
		return
	}
	ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, 1)
}

// TestMetrics: a large fleet's metrics, and what is wrong with them, are gathered for all who ask.
func TestMetrics(t *testing.T) {
	t.Parallel()
	for _, broken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			asked, registry := 0, prometheus.NewRegistry()
			registry.MustRegister(slow{prometheus.NewDesc("slow", "It is slow.", nil, nil), &asked, broken})
			h := Metrics(registry, func() int { return Many + 1 })
			for range 20 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				if good := w.Code == 200 && strings.Contains(w.Body.String(), "slow 1\n"); good == broken {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			}
			if asked != 1 {
				t.Errorf("it was asked %d times", asked)
			}
			time.Sleep(most)
		})
	}
}
