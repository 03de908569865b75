package observe

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// asks gives the status and the line of a page.
func (r *rig) asks(path string) (int, string) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	line := strings.TrimSuffix(w.Body.String(), "\n")
	if strings.Contains(line, "\n") || strings.Contains(line, "CANARY") {
		r.t.Errorf("%s answers %q", path, line)
	}
	return w.Code, line
}

func (r *rig) tells(when, path string, code int, text string) {
	r.t.Helper()
	if got, line := r.asks(path); got != code || !strings.Contains(line, text) {
		r.t.Errorf("%s: %s answers %d %q, want %d %q", when, path, got, line, code, text)
	}
}

// TestReady: the store, the login, and whether keys are replaced in time.
func TestReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one, two)
		r.tells("before the first read", "/readyz", 503, "the store was not read yet")
		r.tells("before the first read", "/healthz", 200, "ok")
		r.w.storeErr = errAway
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		r.tells("the store is away from the start", "/readyz", 503, "the store cannot be read: the store is away: no route")
		r.tells("the store is away", "/healthz", 200, "ok")
		if s := r.Status(); s != "the store cannot be read: the store is away: no route" {
			t.Errorf("status: %q", s)
		}
		r.w.change(func() { r.w.storeErr = nil })
		time.Sleep(time.Minute)
		r.tells("all is well", "/readyz", 200, "ok")
		if s := r.Status(); s != "2 targets: 2 waiting" {
			t.Errorf("status: %q", s)
		}
		time.Sleep(time.Hour)
		next := r.w.keyring(one).RotatedAt.Add(24 * time.Hour)
		if other := r.w.keyring(two).RotatedAt.Add(24 * time.Hour); other.Before(next) {
			next = other
		}
		if s := r.Status(); s != "2 targets: 2 settled; next rotation "+next.UTC().Format(time.RFC3339) {
			t.Errorf("status: %q", s)
		}
		r.w.change(func() { r.w.storeErr = errAway })
		time.Sleep(11 * time.Minute)
		r.tells("the store is away again", "/readyz", 503, "the store cannot be read")
		r.w.change(func() { r.w.storeErr = nil })
		time.Sleep(time.Minute)
		r.tells("it is back", "/readyz", 200, "ok")
		r.Stopping()
		r.tells("it is to end", "/readyz", 503, "stopping")
		r.tells("it is to end", "/healthz", 200, "ok")
	})
}

// TestMet: every target that is served, and none before the store was listed where it tells which.
func TestMet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one, two)
		met := func(when string, want bool) {
			t.Helper()
			if r.Met() != want {
				t.Errorf("%s: %v", when, !want)
			}
		}
		met("before the start", false)
		r.w.storeErr = errAway
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		met("in vain", true)
		r.change(func(s *Served) { s.Discovers = true })
		met("before the list", false)
		r.Listed(errAway)
		met("the list could not be read", false)
		r.Listed(nil)
		met("listed", true)
		if New(Build{}).Met() {
			t.Error("nothing is served, and all was met")
		}
	})
}

// TestLongUnread: an engine that does not read counts no more as ready, though the last read
// was good.
func TestLongUnread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		stop := r.run()
		time.Sleep(time.Hour)
		stop()
		last := r.reads.good
		time.Sleep(time.Until(last.Add(21 * time.Minute)))
		r.tells("twice the interval and a minute", "/readyz", 200, "ok")
		time.Sleep(time.Second)
		r.tells("longer", "/readyz", 503, "the store was last read 21m1s ago")
	})
}

// TestOverdue counts from when the key was due, but not from before the start.
func TestOverdue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := newRig(t, w, one, two)
		refuse := func() {
			for range 1000 {
				w.setErrs = append(w.setErrs, answered(rotator.RefusedForNow, "LimitExceeded"))
			}
		}
		k := &rotator.Keyring{Target: two, RotatedAt: time.Now().Add(-48 * time.Hour),
			Keys: []rotator.Entry{{Key: secrets.NewKey("id", canary+"2"), State: rotator.Current, CreatedAt: time.Now().Add(-48 * time.Hour)}}}
		w.rings[two] = rotator.Snapshot{Version: 1, Keyring: k, Written: time.Now().Add(-48 * time.Hour)}
		refuse()
		stop := r.run()
		defer stop()
		time.Sleep(76 * time.Minute)
		r.tells("due since the start", "/readyz", 200, "ok")
		r.expect("due since the start", map[string]string{"tiwkeyd_targets_overdue": "0", of(two, "target_until_rotation_seconds"): seconds(time.Until(w.keyring(two).Rotation.RetryAt))})
		time.Sleep(time.Second)
		r.tells("for longer than a rotation takes", "/readyz", 503, "2 of 2 targets are overdue by more than 1h16m0s: 1400000001/whiteboard-push, 1400000002/whiteboard-push")
		r.tells("Tencent refuses", "/healthz", 200, "ok")
		r.expect("for longer than a rotation takes", map[string]string{"tiwkeyd_targets_overdue": "2"})
		w.change(func() { w.setErrs = nil })
		time.Sleep(24 * time.Hour)
		r.tells("Tencent takes the keys again", "/readyz", 200, "ok")
		// A day after the rotation the next one is due.
		w.change(refuse)
		at := r.w.keyring(one).RotatedAt
		if other := r.w.keyring(two).RotatedAt; other.Before(at) {
			at = other
		}
		time.Sleep(time.Until(at.Add(24*time.Hour + 76*time.Minute)))
		r.expect("the next one", map[string]string{"tiwkeyd_targets_overdue": "0"})
	})
}

// TestManyOverdue: the line stays short.
func TestManyOverdue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ts []secrets.Target
		for n := range int64(50) {
			ts = append(ts, secrets.Target{SdkAppID: n + 1, Service: secrets.Transcode})
		}
		r := newRig(t, newWorld(), ts...)
		if _, err := r.Store(r.w).Read(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		time.Sleep(80 * time.Minute)
		if _, err := r.Store(r.w).Read(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		if _, line := r.asks("/readyz"); line != "50 of 50 targets are overdue by more than 1h16m0s: 1/transcode, 2/transcode, 3/transcode, …" {
			t.Error(line)
		}
	})
}

// TestStuck: a visit that does not get on, though everything in it has a deadline.
func TestStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := newRig(t, w, one)
		stop := r.run()
		time.Sleep(time.Hour)
		r.tells("an engine that waits", "/healthz", 200, "ok")
		block := make(chan struct{})
		w.change(func() { w.block = block })
		r.engine.Ask(rotator.BySignal, one)
		time.Sleep(r.engine.StallLimit())
		r.tells("a call may take so long", "/healthz", 200, "ok")
		time.Sleep(time.Second)
		r.tells("but not longer", "/healthz", 503, "the engine is stuck: the visit of 1400000001/whiteboard-push has not got on for 4m31s")
		r.tells("but not longer", "/readyz", 503, "the engine is stuck")
		r.change(func(s *Served) { s.StallLimit = time.Hour })
		r.tells("another limit", "/healthz", 200, "ok")
		r.change(func(s *Served) { s.StallLimit = 0 })
		w.change(func() { w.block = nil })
		close(block)
		time.Sleep(time.Second)
		r.tells("it gets on", "/healthz", 200, "ok")
		stop()
		time.Sleep(time.Hour)
		r.tells("an engine that has ended", "/healthz", 200, "ok")
	})
}

// TestNothingServed: before there is an engine.
func TestNothingServed(t *testing.T) {
	t.Parallel()
	m := New(Build{})
	if err := m.Alive(); err != nil {
		t.Error(err)
	}
	if m.Ready() == nil || m.Status() != "the store was not read yet" {
		t.Error(m.Status())
	}
	m.scrape(t)
}

// TestPages: there are three, to be read.
func TestPages(t *testing.T) {
	t.Parallel()
	r := newRig(t, newWorld(), one)
	for path, want := range map[string]string{"/metrics": "tiwkeyd_targets_overdue 0", "/healthz": "ok"} {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %s", path, w.Body)
		}
		w = httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		if w.Code != 405 {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "go_goroutines") || !strings.Contains(w.Body.String(), "process_open_fds") {
		t.Error("the process's own metrics are missing")
	}
}
