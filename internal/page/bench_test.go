package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/page/pagetest"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// store has the same keyring for every target, settled and with the longest history; tencent
// has its key in force.
type store struct{ ring rotator.Keyring }

func (s *store) String() string { return "memory" }

func (s *store) Read(_ context.Context, t secrets.Target) (rotator.Snapshot, error) {
	ring := s.ring.Clone()
	ring.Target = t
	return rotator.Snapshot{Keyring: ring, Version: 1, Written: time.Now().Add(-time.Hour)}, nil
}

func (s *store) Write(context.Context, secrets.Target, *rotator.Keyring, int64) (int64, error) {
	panic("nothing is to be written")
}

func (s *store) Purge(context.Context, secrets.Target, int64) error { return nil }

type tencent struct{ key string }

func (a tencent) SetKey(context.Context, secrets.Target, secrets.Key) (string, error) {
	panic("nothing is to be set")
}

func (a tencent) KeyInForce(context.Context, secrets.Target) (secrets.Key, error) {
	return secrets.NewKey("", a.key), nil
}

// BenchmarkPage renders a page of ten thousand targets, from the memory of a real engine that
// has looked at all of them: it sorts all, and shows fifty.
func BenchmarkPage(b *testing.B) {
	const key = "CANARY-the-key-of-ten-thousand-targets-00000000000000000000000000"
	now := time.Now()
	s := &store{rotator.Keyring{RotatedAt: now.Add(-5 * time.Hour), History: pagetest.FullHistory(now),
		Keys: []rotator.Entry{{Key: secrets.NewKey("Kq7benchmark", key), State: rotator.Current, CreatedAt: now.Add(-6 * time.Hour), ActivatedAt: now.Add(-5 * time.Hour)}}}}
	policy := rotator.Policy{Propagation: 6 * time.Minute, Grace: 24 * time.Hour, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute, KeyLength: 64, OnDrift: rotator.AlarmOnly, Timing: rotator.StandardTiming()}
	m := observe.New(observe.Build{})
	e, err := rotator.New(rotator.Options{Store: s, API: tencent{key}, Policy: policy, Events: m.Event, Due: func(_ secrets.Target, _ *rotator.Keyring, at time.Time) time.Time { return at.Add(24 * time.Hour) }})
	if err != nil {
		b.Fatal(err)
	}
	targets := make([]secrets.Target, 10000)
	for i := range targets {
		targets[i] = secrets.Target{SdkAppID: 1400000000 + int64(i), Service: secrets.WhiteboardPush}
	}
	m.Serve(observe.Served{Engine: e, Targets: targets, Policy: policy})
	for _, t := range targets {
		e.Visit(b.Context(), t)
	}
	p := New(Options{Look: m.Report, Has: func(t secrets.Target) bool { return t.SdkAppID != 9 }})
	for name, path := range map[string]string{"none": "/target/9/whiteboard-push", "elsewhere": "/nothing"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			}
		})
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		h := m.Handler()
		b.Run(path[1:], func(b *testing.B) {
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			}
		})
	}
	for name, path := range map[string]string{"list": "/?sort=next&dir=desc&page=100", "search": "/?q=9999", "target": "/target/1400007777/whiteboard-push"} {
		b.Run(name, func(b *testing.B) {
			size := 0
			for b.Loop() {
				w := httptest.NewRecorder()
				p.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if size = w.Body.Len(); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "31 new keys, 31 rollbacks") || strings.Contains(w.Body.String(), "CANARY") {
					b.Fatalf("%d:\n%s", w.Code, w.Body)
				}
			}
			b.ReportMetric(float64(size), "bytes/page")
		})
	}
}
