package observe

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/internal/kept"
	"tiwkeyd/secrets"
)

func large() *Monitor {
	m := New(Build{})
	targets := make([]secrets.Target, kept.Many+1)
	for i := range targets {
		targets[i] = secrets.Target{SdkAppID: int64(i + 1), Service: secrets.WhiteboardPush}
	}
	m.Serve(Served{Targets: targets})
	return m
}

// TestOneForAll: what goes through all targets is made once, however many strangers ask for it. What does not, such
// as that the daemon is stopping, is told at once.
func TestOneForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testOneForAll)
}

func testOneForAll(t *testing.T) {
	m := large()
	m.reads.ended(nil, time.Now())
	took := func() { time.Sleep(time.Second) } // so that it is kept
	late := errors.New("what is kept")
	m.lates.Get(kept.Many+1, func() error { took(); return late })
	m.reports.Get(kept.Many+1, func() Report { took(); return Report{Summary: "what is kept"} })
	m.views.Get(kept.Many+1, func() view { took(); return view{} })
	w := httptest.NewRecorder()
	if m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil)); w.Body.String() != "what is kept\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	gathered, h := 0, m.Handler()
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow"}, func() float64 { took(); gathered++; return 1 }))
	for range 3 {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil)); !strings.Contains(w.Body.String(), "slow 1\n") || gathered != 1 {
			t.Errorf("status %d, gathered %d times", w.Code, gathered)
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
