package webhook

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func dial(t *testing.T, server *httptest.Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// TestSlowBodyOfAnotherMethod: what is no callback need not be read to its end.
func TestSlowBodyOfAnotherMethod(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newFront(Options{}))
	defer server.Close()
	c := dial(t, server)
	if _, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 405 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestHalfClose: a sender that closes its side when it has sent everything waits for an answer.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	p := newPlace(canaryA)
	p.slow = 300 * time.Millisecond
	c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
	defer c.Close()
	server := httptest.NewServer(newFront(Options{Keys: c}))
	defer server.Close()
	conn := dial(t, server)
	body := callback(canaryA)
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
}

// TestManyLongBodies: all long bodies together get the room there is, and short ones pass all
// the same.
func TestManyLongBodies(t *testing.T) {
	t.Parallel()
	const limit, room = 100_000, 250_000
	f := newFront(Options{MaxBody: limit, MaxMemory: room, BodyTimeout: 300 * time.Millisecond, Keys: &failing{}})
	wait := make(chan struct{})
	entered := make(chan struct{}, 10)
	f.handle = func(http.ResponseWriter, *http.Request, []byte) { entered <- struct{}{}; <-wait }
	long := func(n int) string {
		body := with(t, "teacher", fmt.Sprintf("%d%s", n, strings.Repeat("x", limit*9/10)))
		if len(body) > limit {
			t.Fatal("it is too long")
		}
		return body
	}
	var group sync.WaitGroup
	for n := range 2 {
		group.Go(func() {
			if w := f.post(long(n)); w.Code != 200 {
				t.Errorf("a long body with room for it: %d", w.Code)
			}
		})
	}
	<-entered
	<-entered
	if w := f.post(long(2)); w.Code != 503 || f.last().Reason != Undecided {
		t.Errorf("a long body without room for it: %d", w.Code)
	}
	group.Go(func() {
		if w := f.post(callback(canaryA)); w.Code != 200 {
			t.Errorf("a short body meanwhile: %d", w.Code)
		}
	})
	<-entered
	close(wait)
	group.Wait()
	for n := range 20 { // the room is given back, whatever becomes of the body
		if w := f.post(long(n) + "x"); w.Code != 400 {
			t.Errorf("%d", w.Code)
		}
		if w := f.post(long(n) + strings.Repeat(" ", limit)); w.Code != 413 {
			t.Errorf("%d", w.Code)
		}
	}
	if w := f.post(long(3)); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

// TestDefaults: Options with Keys alone are complete.
func TestDefaults(t *testing.T) {
	t.Parallel()
	v := NewVerifier(Options{Keys: Static{testKeys}, Leeway: -time.Hour})
	if v.MaxBody != 1<<20 || v.MaxMemory != 64<<20 || v.BodyTimeout != 10*time.Second || v.RereadTimeout != 5*time.Second || v.Leeway != 0 {
		t.Errorf("%+v", v.Options)
	}
	for _, body := range []string{callback(canaryA), callback("x"), "{"} {
		w := httptest.NewRecorder()
		v.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		if want := map[bool]int{true: 404, false: 401}[body == callback(canaryA)]; w.Code != want && body != "{" {
			t.Errorf("%d", w.Code)
		}
	}
	if e, err := v.Verify(context.Background(), []byte(callback(canaryB))); err != nil || e.KeyID != "b" || string(e.Body) != callback(canaryB) {
		t.Errorf("%v, %v", e, err)
	}
	if _, err := v.Verify(context.Background(), []byte(callback("x"))); ReasonOf(err) != BadSignature {
		t.Error(err)
	}
	if v := NewVerifier(Options{Keys: Static{testKeys}, MaxBody: 100 << 20}); v.MaxMemory <= v.MaxBody {
		t.Errorf("room %d for bodies of %d", v.MaxMemory, v.MaxBody)
	}
}
