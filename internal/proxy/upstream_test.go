package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/webhook"
)

// deaf is an address that is taken and does not listen until it is told to.
type deaf struct {
	t    *testing.T
	file *os.File
	url  string
}

func newDeaf(t *testing.T) *deaf {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	d := &deaf{t: t, file: os.NewFile(uintptr(fd), "socket")}
	t.Cleanup(func() { _ = d.file.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	d.url = fmt.Sprintf("http://127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	return d
}

// serve has it listen from now on.
func (d *deaf) serve(h http.Handler) {
	d.t.Helper()
	raw, err := d.file.SyscallConn()
	if err != nil {
		d.t.Fatal(err)
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 128) }); err != nil || listenErr != nil {
		d.t.Fatal(err, listenErr)
	}
	l, err := net.FileListener(d.file)
	if err != nil {
		d.t.Fatal(err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: hang}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	d.t.Cleanup(func() { _ = server.Close(); <-done })
}

const againText = "the receiver does not listen; it is tried again"

// TestRestartingReceiver: while it does not listen callbacks wait, and come to it once each.
func TestRestartingReceiver(t *testing.T) {
	t.Parallel()
	d := newDeaf(t)
	r := newRig(t, func(o *Options) { o.Upstream = parse(t, d.url) })
	const n = 20
	var group sync.WaitGroup
	var good atomic.Int32
	for i := range n {
		group.Go(func() {
			if status, _ := r.post(callback(i)); status == http.StatusOK {
				good.Add(1)
			}
		})
	}
	await(t, "all of them wait", func() bool { return strings.Count(r.log.String(), againText) == n })
	if len(r.receiver.requests()) != 0 || good.Load() != 0 {
		t.Fatal("something was answered before the receiver listened")
	}
	d.serve(r.receiver)
	group.Wait()
	got := map[string]int{}
	for _, q := range r.receiver.requests() {
		if sum(q.body) != q.Header.Get("Idempotency-Key") {
			t.Error("a body is not what was sent")
		}
		got[q.body]++
	}
	for i := range n {
		if got[callback(i)] != 1 {
			t.Errorf("callback %d came %d times", i, got[callback(i)])
		}
	}
	if good.Load() != n || value(t, r.metrics, series(failed)) != "0" {
		t.Errorf("%d of %d were answered 200", good.Load(), n)
	}
}

// TestNoReceiver is told to the sender, the log and the metrics.
func TestNoReceiver(t *testing.T) {
	t.Parallel()
	for wait, again := range map[time.Duration]bool{0: false, -time.Second: false, 80 * time.Millisecond: true} {
		d := newDeaf(t)
		r := newRig(t, func(o *Options) { o.Upstream, o.UpstreamWait = parse(t, d.url), wait })
		status, text := r.post(callback(1))
		if status != http.StatusBadGateway || !strings.Contains(text, "the receiver does not answer") || strings.Contains(text, "127.0.0.1") {
			t.Errorf("%s: %d %s", wait, status, text)
		}
		log := r.log.String()
		log = log[max(0, strings.Index(log, "level=ERROR")):]
		if !strings.Contains(log, "level=ERROR msg=\"the receiver did not answer a genuine callback\"") || !strings.Contains(log, d.url) || !strings.Contains(log, "connection refused") {
			t.Errorf("%s: log:\n%s", wait, log)
		}
		if strings.Contains(r.log.String(), againText) != again {
			t.Errorf("%s: tried again: %v", wait, !again)
		}
		if value(t, r.metrics, series(failed)) != "1" || value(t, r.metrics, series(handled)) != "0" {
			t.Errorf("%s: metrics:\n%s", wait, scrape(t, r.metrics))
		}
	}
}

// TestOtherFailure is not waited for: something was sent.
func TestOtherFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.receiver.handle = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	if status, _ := r.post(callback(1)); status != http.StatusBadGateway || len(r.receiver.requests()) != 1 || strings.Contains(r.log.String(), againText) {
		t.Errorf("%d, sent %d times", status, len(r.receiver.requests()))
	}
	// Nor while it is waited for: it listens by now, and breaks off.
	d := newDeaf(t)
	r = newRig(t, func(o *Options) { o.Upstream = parse(t, d.url) })
	r.receiver.handle = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	done := make(chan int)
	go func() { status, _ := r.post(callback(1)); done <- status }()
	await(t, "it waits", func() bool { return strings.Contains(r.log.String(), againText) })
	d.serve(r.receiver)
	if status := <-done; status != http.StatusBadGateway || len(r.receiver.requests()) != 1 || strings.Contains(r.log.String(), "refused") && !strings.Contains(r.log.String(), "EOF") {
		t.Errorf("%d, sent %d times\n%s", status, len(r.receiver.requests()), r.log)
	}
}

// TestSlowReceiver is given up after the timeout.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.UpstreamTimeout = 50 * time.Millisecond })
	r.receiver.handle = func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }
	if status, _ := r.post(callback(1)); status != http.StatusBadGateway || value(t, r.metrics, series(failed)) != "1" || !strings.Contains(r.log.String(), "timeout awaiting response headers") {
		t.Errorf("%d\n%s", status, r.log)
	}
	if n := len(r.receiver.requests()); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	// The same on a connection that has served before.
	slow := r.receiver.handle
	r.receiver.do(nil)
	if status, _ := r.post(callback(2)); status != http.StatusOK {
		t.Fatal(status)
	}
	r.receiver.do(slow)
	if status, _ := r.post(callback(3)); status != http.StatusBadGateway || len(r.receiver.requests()) != 3 {
		t.Errorf("%d; sent %d times", status, len(r.receiver.requests())-2)
	}
}

// goneFrom sends a callback and goes away, without an answer or with the beginning of one,
// when it is time.
func (r *rig) goneFrom(when func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, strings.NewReader(callback(1)))
	if err != nil {
		r.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if res, err := http.DefaultClient.Do(q); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}()
	await(r.t, "it is in hand", when)
	cancel()
	<-gone
}

func (r *rig) done() bool {
	return value(r.t, r.metrics, "tiwkeyd_proxy_request_duration_seconds_count") == "1"
}

// TestGoneSender: who sent a callback and goes away may not send it again. It comes to the
// receiver all the same, which is not disturbed.
func TestGoneSender(t *testing.T) {
	t.Parallel()
	d := newDeaf(t)
	r := newRig(t, func(o *Options) { o.Upstream = parse(t, d.url) })
	r.goneFrom(func() bool { return strings.Contains(r.log.String(), againText) })
	d.serve(r.receiver)
	await(t, "the proxy is done with it", r.done)
	if got := r.receiver.requests(); len(got) != 1 || got[0].body != callback(1) {
		t.Errorf("it came %d times", len(got))
	}

	r = newRig(t, nil)
	goOn := make(chan struct{})
	r.receiver.handle = func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-goOn:
		case <-q.Context().Done():
			t.Error("the receiver was disturbed")
		}
	}
	r.goneFrom(func() bool { return len(r.receiver.requests()) == 1 })
	close(goOn)
	await(t, "the proxy is done with it", r.done)
}

// TestGoneSenderReplay: what the receiver has taken and said so of is not sent to it again, though
// nobody waited for all that it said.
func TestGoneSenderReplay(t *testing.T) {
	t.Parallel()
	for _, words := range []string{"", "ok", strings.Repeat("long", 20000)} {
		r := newRig(t, func(o *Options) { o.Webhook.Replays = webhook.NewReplayGuard(0) })
		goOn := make(chan struct{})
		r.receiver.do(func(w http.ResponseWriter, _ *http.Request) {
			<-goOn
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, words)
		})
		r.goneFrom(func() bool { return len(r.receiver.requests()) == 1 })
		close(goOn)
		await(t, "the proxy is done with it", r.done)
		if value(t, r.metrics, series(failed)) != "0" {
			t.Errorf("%.9q: counted as failed", words)
		}
		r.receiver.do(nil)
		if status, _ := r.post(callback(1)); status != http.StatusOK || len(r.receiver.requests()) != 1 {
			t.Errorf("%.9q: %d, it came %d times", words, status, len(r.receiver.requests()))
		}
	}
}

// TestStalledAnswer: of an answer that has begun and nobody waits for, the rest is not waited
// for either.
func TestStalledAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ended := make(chan struct{})
	var begun atomic.Bool
	r.receiver.handle = func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		begun.Store(true)
		<-q.Context().Done()
		close(ended)
	}
	r.goneFrom(begun.Load)
	<-ended
	await(t, "the proxy is done with it", r.done)
}

// TestStreaming: what the receiver has said is handed back before it has said all.
func TestStreaming(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	goOn := make(chan struct{})
	r.receiver.handle = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // which it is not: nobody looks
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-goOn
		_, _ = w.Write(large)
	}
	q, err := http.NewRequest(http.MethodPost, r.URL, strings.NewReader(callback(1)))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("%q, %v", first, err)
	}
	close(goOn)
	rest, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(rest, large) || res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d bytes, %v, %v", len(rest), err, res.Header)
	}
}

// TestReuse: connections to the receiver are kept, also those of many callbacks at once.
func TestReuse(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	const n = 16
	var all sync.WaitGroup
	r.receiver.handle = func(http.ResponseWriter, *http.Request) { all.Done(); all.Wait() }
	from := map[string]bool{}
	for range 5 {
		all.Add(n)
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() { r.post(callback(i)) })
		}
		group.Wait()
	}
	for _, q := range r.receiver.requests() {
		from[q.RemoteAddr] = true
	}
	if len(from) > 3*n {
		t.Errorf("%d connections for %d callbacks, %d at once", len(from), 5*n, n)
	}
}
