package webhook

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestReplayWhileHandled: a second copy waits for what becomes of the first.
func TestReplayWhileHandled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ first, handled int }{{200, 1}, {500, 2}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFront(Options{Replays: NewReplayGuard(10)})
			status := c.first
			f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) {
				answer := status
				status = 200
				time.Sleep(time.Second)
				w.WriteHeader(answer)
			}
			codes := make(chan int, 3)
			for range 3 {
				go func() { codes <- f.post(callback(canaryA)).Code }()
			}
			ok := 0
			for range 3 {
				if <-codes == 200 {
					ok++
				}
			}
			if want := 4 - c.handled; ok != want || len(f.events) != c.handled {
				t.Errorf("the first is answered %d: %d answers are 200, %d were handled", c.first, ok, len(f.events))
			}
		})
	}
}

func TestReplayLeeway(t *testing.T) {
	t.Parallel()
	f := newFront(Options{Replays: NewReplayGuard(10), Leeway: time.Minute, Now: func() time.Time { return time.Unix(expiry2030+10, 0) }})
	for range 3 {
		f.post(callback(canaryA))
	}
	if len(f.events) != 1 {
		t.Errorf("it was handled %d times", len(f.events))
	}
}

// admitted is a callback that the guard takes for new, nil if it does not.
func admitted(g *ReplayGuard, d digest, expires int64, now time.Time) *sighting {
	s, err := g.admit(context.Background(), d, expires, now)
	if err != nil {
		panic(err)
	}
	return s
}

// TestReplayOrder: what expires first is forgotten first, and what failed takes no room.
func TestReplayOrder(t *testing.T) {
	t.Parallel()
	g := NewReplayGuard(4)
	now := time.Unix(1, 0)
	fresh := func(name string, expires int64, now time.Time) bool {
		s := admitted(g, digestOf([]byte(name)), expires, now)
		if s != nil {
			g.end(s, true)
		}
		return s != nil
	}
	for range 10 {
		g.end(admitted(g, digestOf([]byte("failing")), 50, now), false)
	}
	for name, at := range map[string]int64{"c": 300, "a": 100, "d": 400, "b": 200} {
		fresh(name, at, now)
	}
	if g.Forgotten() != 0 {
		t.Error("what failed takes room")
	}
	fresh("e", 500, now) // full: a goes
	for _, name := range []string{"b", "c", "d", "e"} {
		if fresh(name, 1000, now) {
			t.Errorf("%s was forgotten in place of what expires first", name)
		}
	}
	if g.Forgotten() != 1 || NewReplayGuard(0).limit != DefaultReplays {
		t.Error(g.Forgotten())
	}
	if fresh("b", 200, time.Unix(200, 0)) || !fresh("b", 200, time.Unix(201, 0)) {
		t.Error("the second of ExpireTime still counts, the next does not")
	}
	// One that was forgotten while it was handled may end afterwards.
	g = NewReplayGuard(1)
	slow := admitted(g, digestOf([]byte("slow")), 10, now)
	fresh("other", 20, now)
	g.end(slow, false)
	if len(g.seen) != 1 || len(g.expiry) != 1 || fresh("other", 20, now) {
		t.Errorf("%d remembered", len(g.seen))
	}
}

// TestRecorder: which answers count as the end of a callback.
func TestRecorder(t *testing.T) {
	t.Parallel()
	f := newFront(Options{Replays: NewReplayGuard(0)})
	for n, status := range []int{200, 204, 299, 300, 302, 400} {
		f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.WriteHeader(status)
			w.WriteHeader(500)
		}
		body := with(t, "teacher", strings.Repeat("x", n+1))
		if w := f.post(body); w.Body.Len() != 0 || f.last().Status != status {
			t.Errorf("%d: %q %+v", status, w.Body, f.last())
		}
		before := len(f.events)
		f.post(body)
		if again := len(f.events) > before; again == (status < 300) {
			t.Errorf("%d: handled again: %v", status, again)
		}
		if status < 300 && f.last().Status != 200 {
			t.Errorf("%+v", f.last())
		}
	}
	f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.(http.Flusher).Flush() }
	if w := f.post(callback(canaryA)); w.Body.Len() != 0 || !w.Flushed || f.last().Status != 200 {
		t.Errorf("%q %+v", w.Body, f.last())
	}
}

// hooked is a body before whose first bytes something happens.
type hooked struct {
	io.Reader
	before func()
}

func (h *hooked) Read(p []byte) (int, error) {
	if h.before != nil {
		h.before()
		h.before = nil
	}
	return h.Reader.Read(p)
}

// TestReplayAcrossExpiry: a copy counts by when it came, and its body may come after it has expired.
func TestReplayAcrossExpiry(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{2 * time.Second, DefaultBodyTimeout} {
		now, body := time.Unix(expiry2030, 0), callback(canaryA)
		f := newFront(Options{Replays: NewReplayGuard(10), Now: func() time.Time { return now }})
		f.post(body)
		f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", &hooked{strings.NewReader(body), func() { now = now.Add(late) }}))
		if len(f.events) != 1 || f.last().Reason != Replayed {
			t.Errorf("%s late: it was handled %d times", late, len(f.events))
		}
	}
}

// TestReplayWaiter: a copy that waits learns how the first ended, also if that was forgotten
// meanwhile, for its age or for want of room.
func TestReplayWaiter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit int
		late  time.Duration
		ok    bool
	}{"expired": {10, 5 * time.Second, true}, "full": {1, 0, true}, "failed": {1, 0, false}} {
		synctest.Test(t, func(t *testing.T) {
			g := NewReplayGuard(c.limit)
			now := time.Unix(expiry2030, 0)
			d := digestOf([]byte("x"))
			first := admitted(g, d, expiry2030, now)
			again := make(chan *sighting, 1)
			go func() { again <- admitted(g, d, expiry2030, now) }()
			synctest.Wait()
			admitted(g, digestOf([]byte("other")), expiry2030+100, now.Add(c.late))
			g.end(first, c.ok)
			if handled := <-again != nil; handled == c.ok {
				t.Errorf("%s: the first succeeded: %v, its copy is handled: %v", name, c.ok, handled)
			}
		})
	}
}

// TestReplayHangs: copies of a callback whose handler hangs are sent away after a while, and
// not told that all is well.
func TestReplayHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront(Options{Replays: NewReplayGuard(10)})
		hang, body := make(chan struct{}), callback(canaryA)
		f.handle = func(http.ResponseWriter, *http.Request, []byte) { <-hang }
		go f.post(body)
		synctest.Wait()
		began := time.Now()
		if w := f.post(body); w.Code != 503 || time.Since(began) != DefaultRereadTimeout {
			t.Errorf("%d after %s", w.Code, time.Since(began))
		}
		close(hang)
		synctest.Wait()
		if w := f.post(body); w.Code != 200 || len(f.events) != 1 {
			t.Errorf("%d, handled %d times", w.Code, len(f.events))
		}
	})
}
