package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/internal/testport"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// hanging is a receiver that does not answer until it is let.
func (r *rig) hanging() (url string, inHand *atomic.Int32, let func()) {
	inHand = &atomic.Int32{}
	wait := make(chan struct{})
	url = r.standing(func(_ http.ResponseWriter, q *http.Request) {
		inHand.Add(1)
		select {
		case <-wait:
		case <-q.Context().Done():
		}
	})
	return url, inHand, func() { close(wait) }
}

// TestProxyStops: told to, it finishes what is in hand, and takes nothing new.
func TestProxyStops(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := newRig(t)
		k := r.newKey()
		r.put(testTarget, entry(k, rotator.Current))
		url, inHand, let := r.hanging()
		p := r.proxy(url, nil)
		status := make(chan int, 1)
		body := r.fresh(testTarget.SdkAppID, k)
		go func() { got, _ := send(t, p.url, body); status <- got }()
		r.await("a request is in hand", func() bool { return inHand.Load() == 1 })
		if got, text := get(t, p.metrics+"/readyz"); got != http.StatusOK || text != "ok\n" {
			t.Errorf("ready: %d %s", got, text)
		}
		p.signal(s)
		r.awaitOutput(p.process, "the requests in hand are finished first")
		if got, text := get(t, p.metrics+"/readyz"); got != http.StatusServiceUnavailable || !strings.Contains(text, "stopping") {
			t.Errorf("readyz while it stops: %d %s", got, text)
		}
		if got, _ := get(t, p.metrics+"/healthz"); got != http.StatusOK {
			t.Errorf("healthz while it stops: %d", got)
		}
		r.await("new connections are refused", func() bool {
			c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		if p.exited() {
			t.Error("it ended with a request in hand")
		}
		let()
		if got := <-status; got != http.StatusOK {
			t.Errorf("the request in hand was answered %d", got)
		}
		<-p.done
		if p.code != 0 || !strings.Contains(p.String(), `"msg":"stopped"`) {
			t.Errorf("%s: exit status %d\n%s", s, p.code, p)
		}
	}
}

// TestProxyStopsReading the keys only when nothing is in hand any more: a callback whose body
// is still coming when it is told to stop may be signed with a key that it does not know yet.
func TestProxyStopsReading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, next := r.newKey(), r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	p := r.proxy(r.standing(nil), nil)
	r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	body := r.fresh(testTarget.SdkAppID, next)
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	if res, err := http.ReadResponse(answers, nil); err != nil || res.StatusCode != http.StatusContinue {
		t.Fatal(res, err)
	}
	p.signal(syscall.SIGTERM)
	r.awaitOutput(p.process, "the requests in hand are finished first")
	r.put(testTarget, entry(next, rotator.Current), entry(k, rotator.Previous))
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(answers, nil)
	if status, text := answerOf(t, res, err); status != http.StatusOK || !strings.HasSuffix(text, next.ID()) {
		t.Errorf("%d %s", status, text)
	}
	<-p.done
	if p.code != 0 {
		t.Errorf("exit status %d\n%s", p.code, p)
	}
}

// TestProxyStopTimeout: what is in hand for too long is given up, and it says so.
func TestProxyStopTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	url, inHand, let := r.hanging()
	defer let()
	p := r.proxy(url, []string{"--stop-timeout", "50ms"})
	body := r.fresh(testTarget.SdkAppID, k)
	gone := make(chan error, 1)
	go func() {
		res, err := http.Post(p.url, "application/json", strings.NewReader(body))
		if err == nil {
			_ = res.Body.Close()
		}
		gone <- err
	}()
	r.await("a request is in hand", func() bool { return inHand.Load() == 1 })
	p.signal(syscall.SIGTERM)
	<-p.done
	if p.code != exitInternal || !strings.Contains(p.String(), "requests were still in hand 50ms after it was told to stop (--stop-timeout)") {
		t.Errorf("exit status %d\n%s", p.code, p)
	}
	if <-gone == nil {
		t.Error("the request in hand was answered")
	}
}

// TestProxySignals: those that mean something to `run` do not end it.
func TestProxySignals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	p := r.proxy(r.standing(nil), nil)
	for range 5 {
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
			p.signal(s)
			if status, text := send(t, p.url, r.fresh(testTarget.SdkAppID, k)); status != http.StatusOK || p.exited() {
				t.Fatalf("%s: %d %s", s, status, text)
			}
		}
	}
}

// TestProxyMonitoring is what /metrics, /healthz and /readyz tell.
func TestProxyMonitoring(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	second := secrets.Target{SdkAppID: testTarget.SdkAppID, Service: secrets.Transcode}
	p := r.proxy(r.standing(nil), nil, "TIWKEYD_TARGETS="+testTarget.String()+","+second.String())
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 200, "/readyz": 503, "/": 404, "/debug/pprof/": 404} {
		if status, text := get(t, p.metrics+path); status != want {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if _, text := get(t, p.metrics+"/readyz"); !strings.Contains(text, "no key could be read yet") {
		t.Errorf("readyz: %s", text)
	}
	// An application that nobody has taken over yet does not stand in the way of the others.
	r.put(testTarget, entry(k, rotator.Current))
	r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
	reads := func(failing string) func() bool {
		return func() bool {
			_, text := get(t, p.metrics+"/metrics")
			return strings.Contains(text, `tiwkeyd_proxy_keys_read_failing{target="`+second.String()+`"} `+failing)
		}
	}
	r.await("the other's keys are not there", reads("1"))
	r.put(second, entry(r.newKey(), rotator.Current))
	r.await("the other's keys are there", reads("0"))
	send(t, p.url, r.fresh(testTarget.SdkAppID, k))
	send(t, p.url, "{")
	_, text := get(t, p.metrics+"/metrics")
	for _, want := range []string{`tiwkeyd_proxy_requests_total{result="handled"} 1`, `tiwkeyd_proxy_requests_total{result="malformed"} 1`, `tiwkeyd_proxy_keys{target="` + second.String() + `"} 1`,
		`tiwkeyd_proxy_keys_age_seconds{target="` + testTarget.String() + `"} `} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in:\n%s", want, text)
		}
	}
	// A callback is not for the address of the metrics, nor are they for its.
	if status, _ := send(t, p.metrics+"/", r.fresh(testTarget.SdkAppID, k)); status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
		t.Errorf("a callback to the metrics: %d", status)
	}
	if status, _ := get(t, p.url+"/metrics"); status != http.StatusMethodNotAllowed {
		t.Errorf("metrics from outside: %d", status)
	}
}

// TestProxyFlags: those that change what is handed on.
func TestProxyFlags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	adopted := secrets.Target{SdkAppID: 1400000003, Service: secrets.WhiteboardPush}
	s, err := r.store.Write(t.Context(), adopted, &rotator.Keyring{Target: adopted, AcceptUnsigned: true}, 0)
	if err != nil {
		t.Fatal(s, err)
	}
	late := func() string { return r.signed(testTarget.SdkAppID, k, time.Now().Add(-time.Minute)) }
	unsigned := func() string { return r.fresh(adopted.SdkAppID, secrets.Key{}) }
	once := r.fresh(testTarget.SdkAppID, k)
	var handed atomic.Int32
	url := r.standing(func(_ http.ResponseWriter, _ *http.Request) { handed.Add(1) })
	targets := "TIWKEYD_TARGETS=" + testTarget.String() + "," + adopted.String()
	for _, c := range []struct {
		args   []string
		body   func() string
		status int
		handed bool
	}{
		{nil, late, 401, false}, {[]string{"--leeway", "2m"}, late, 200, true}, {[]string{"--leeway", "30s"}, late, 401, false},
		{nil, unsigned, 401, false}, {[]string{"--allow-unsigned"}, unsigned, 200, true},
		{[]string{"--max-body", "10"}, func() string { return once }, 413, false}, {nil, func() string { return once + strings.Repeat(" ", 1<<20-len(once)) }, 200, true}, {nil, func() string { return once + strings.Repeat(" ", 1<<20-len(once)+1) }, 413, false},
	} {
		p := r.proxy(url, c.args, targets)
		r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
		before := handed.Load()
		if status, text := send(t, p.url, c.body()); status != c.status || (handed.Load() > before) != c.handed {
			t.Errorf("%v: %d %s", c.args, status, text)
		}
	}
	p := r.proxy(url, []string{"--replay-guard", "--metrics", ""}, targets)
	before := handed.Load()
	for range 3 {
		if status, text := send(t, p.url, once); status != http.StatusOK {
			t.Errorf("%d %s", status, text)
		}
	}
	if n := handed.Load() - before; n != 1 || p.metrics != "http://" {
		t.Errorf("handed on %d times; metrics at %s", n, p.metrics)
	}
	// The timeouts.
	hang, _, let := r.hanging()
	defer let()
	p = r.proxy(hang, []string{"--upstream-timeout", "50ms"})
	if status, text := send(t, p.url, once); status != http.StatusBadGateway {
		t.Errorf("a receiver that hangs: %d %s", status, text)
	}
	away, _ := testport.Free(t)
	p = r.proxy("http://"+away, []string{"--upstream-wait", "0", "--body-timeout", "50ms"})
	if status, text := send(t, p.url, once); status != http.StatusBadGateway || strings.Contains(p.String(), "it is tried again") {
		t.Errorf("a receiver that is away: %d %s", status, text)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 408" {
		t.Errorf("%s, %v", answer, err)
	}
	r.awaitOutput(p.process, "did not come within 50ms")
	q, err := http.NewRequest(http.MethodPost, p.url, strings.NewReader(once))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	res, err := http.DefaultClient.Do(q)
	if status, _ := answerOf(t, res, err); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB: %d", status)
	}
}
