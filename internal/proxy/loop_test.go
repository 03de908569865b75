package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// TestLoop: a callback that comes back, by itself or over another proxy, is answered 508 once, and the log says
// what to do, also where many come back.
func TestLoop(t *testing.T) {
	t.Parallel()
	for _, proxies := range []int{1, 2, 3} {
		var first atomic.Pointer[rig]
		var requests atomic.Int32
		back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			first.Load().Config.Handler.ServeHTTP(w, r)
		}))
		t.Cleanup(back.Close)
		at := back.URL
		var r *rig
		for range proxies {
			r = newRig(t, func(o *Options) { o.Upstream = parse(t, at) })
			at = r.URL
		}
		first.Store(r)
		for i := range 3 {
			if status, _ := r.post(callback(i)); status != http.StatusLoopDetected {
				t.Errorf("%d proxies: %d", proxies, status)
			}
		}
		told := strings.Count(r.log.String(), "give the receiver's own address")
		if n := requests.Load(); n != 3 || told != 1 || value(t, r.metrics, series(loop)) != "3" {
			t.Errorf("%d proxies: %d requests came back, told %d times", proxies, n, told)
		}
	}
}

// TestChain: as many proxies as may stand behind one another are no loop.
func TestChain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	behind := r.receiver
	for hops := 1; hops <= mostHops+1; hops++ {
		want := http.StatusOK
		if hops > mostHops {
			want = http.StatusLoopDetected
		}
		if status, _ := r.post(callback(hops)); status != want {
			t.Errorf("%d proxies: %d", hops, status)
		}
		next := r.URL
		r = newRig(t, func(o *Options) { o.Upstream = parse(t, next) })
	}
	if n := len(behind.requests()); n != mostHops {
		t.Errorf("the receiver got %d", n)
	}
}

// TestMadeUp: a header of somebody else's is refused, or passed on; what is genuine does not have ours.
func TestMadeUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for header, want := range map[string]int{"Via: 1.1 nginx\r\n": 200, "Via: 1.1 tiwkeyd-other\r\nVia: 1.0 fred, 1.1 tiwkeyd-more\r\n": 200,
		"Via: " + strings.Repeat("1.1 tiwkeyd-other, ", mostHops) + "1.1 x\r\n": http.StatusLoopDetected} {
		body := callback(1)
		if status := r.raw(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)); status != want {
			t.Errorf("%s: %d", header, status)
		}
	}
	for _, got := range r.receiver.requests() {
		if via := got.Header.Values("Via"); !strings.Contains(via[len(via)-1], pseudonym) || len(via) < 2 {
			t.Errorf("it was handed on via %v", via)
		}
	}
}

// TestLeadsTo: an upstream that is the proxy's own listener.
func TestLeadsTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		upstream, listen, metrics, want string
	}{
		{"http://127.0.0.1:8080", "127.0.0.1:8080", "", "--listen"},
		{"http://127.0.0.1:8080/path", "[::]:8080", "", "--listen"},
		{"http://localhost:8080", "0.0.0.0:8080", "", "--listen"},
		{"http://localhost:8080", "127.0.0.1:8080", "", "--listen"},
		{"http://[::1]:8080", "[::]:8080", "", "--listen"},
		{"http://0.0.0.0:8080", "127.0.0.1:8080", "", "--listen"},
		{"http://[::]:8080", "[::1]:8080", "", "--listen"},
		{"http://[::ffff:127.0.0.1]:8080", "127.0.0.1:8080", "", "--listen"},
		{"http://127.0.0.1:9470", "127.0.0.1:8080", "127.0.0.1:9470", "--metrics"},
		{"http://127.0.0.1", "[::]:80", "", "--listen"},
		{"https://127.0.0.1", "[::]:443", "", "--listen"},
		{"https://127.0.0.1", "[::]:80", "127.0.0.1:9470", ""},
		{"http://127.0.0.1:3000", "[::]:8080", "127.0.0.1:9470", ""},
		{"http://127.0.0.1:8080", "192.0.2.1:8080", "", ""},
		{"http://192.0.2.1:8080", "[::]:8080", "", ""},
		{"http://0.0.0.0:8080", "192.0.2.1:8080", "", ""},
		{"http://does-not-exist.invalid:8080", "[::]:8080", "", ""},
	} {
		u, err := url.Parse(c.upstream)
		if err != nil {
			t.Fatal(err)
		}
		if got := LeadsTo(t.Context(), u, map[string]string{"--listen": c.listen, "--metrics": c.metrics}); got != c.want {
			t.Errorf("%s with %s and %s leads to %q", c.upstream, c.listen, c.metrics, got)
		}
	}
}
