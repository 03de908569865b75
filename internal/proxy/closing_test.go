package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How a receiver closes a connection without a word.
const (
	afterAnswer     = "after each answer"
	insteadOfAnswer = "instead of the second answer"
	whileSent       = "while the second request is sent"
	alwaysWhileSent = "while each request is sent"
	amidAnswer      = "amid the second answer"
)

// closing is a receiver that closes its connections.
func closing(t *testing.T, when string) (url string, answered func() map[string]int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]int{}
	var group sync.WaitGroup
	serve := func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		b := bufio.NewReader(conn)
		for first := true; ; first = false {
			if when == alwaysWhileSent || (when == whileSent && !first) {
				_, _ = b.ReadByte()
				_ = conn.(*net.TCPConn).SetLinger(0)
				return
			}
			q, err := http.ReadRequest(b)
			if err != nil {
				return
			}
			body, err := io.ReadAll(q.Body)
			if err != nil || (when == insteadOfAnswer && !first) {
				return
			}
			mu.Lock()
			got[string(body)]++
			mu.Unlock()
			if when == amidAnswer && !first {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-")
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = b.ReadByte() // until the proxy has it, and closes
				return
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil || when == afterAnswer {
				return
			}
		}
	}
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	return "http://" + l.Addr().String(), func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// TestClosingReceiver loses nothing: what was on an idle connection that the receiver closed
// at that moment is sent again.
func TestClosingReceiver(t *testing.T) {
	t.Parallel()
	for when, padding := range map[string]int{afterAnswer: 0, insteadOfAnswer: 0, whileSent: 900_000} {
		t.Run(when, func(t *testing.T) {
			at, answered := closing(t, when)
			r := newRig(t, func(o *Options) { o.Upstream, o.UpstreamWait = parse(t, at), 0 })
			const senders = 4
			each := 60
			if padding > 0 {
				each = 10
			}
			var group sync.WaitGroup
			for s := range senders {
				group.Go(func() {
					for i := range each {
						if status, text := r.post(callback(s*each+i) + strings.Repeat(" ", padding)); status != http.StatusOK || text != "ok" {
							t.Errorf("%d %s", status, text)
						}
					}
				})
			}
			group.Wait()
			got := answered()
			for i := range senders * each {
				if got[callback(i)+strings.Repeat(" ", padding)] == 0 {
					t.Errorf("callback %d was lost", i)
				}
			}
			if t.Failed() {
				t.Logf("log:\n%s", r.log)
			}
		})
	}
}

// TestBrokenReceiver: what may be no idle connection's end is not repeated.
func TestBrokenReceiver(t *testing.T) {
	t.Parallel()
	at, answered := closing(t, amidAnswer)
	r := newRig(t, func(o *Options) { o.Upstream = parse(t, at) })
	for i, want := range []int{http.StatusOK, http.StatusBadGateway, http.StatusOK, http.StatusBadGateway} {
		if status, _ := r.post(callback(i)); status != want || answered()[callback(i)] != 1 {
			t.Errorf("request %d: %d, came %d times", i, status, answered()[callback(i)])
		}
	}
	at, _ = closing(t, alwaysWhileSent)
	r = newRig(t, func(o *Options) { o.Upstream = parse(t, at) })
	if status, _ := r.post(callback(1) + strings.Repeat(" ", 900_000)); status != http.StatusBadGateway || strings.Contains(r.log.String(), againText) {
		t.Errorf("%d\n%s", status, r.log)
	}
}

// TestBrokenAnswer: an answer that breaks off is no success.
func TestBrokenAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.receiver.handle = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	res, err := http.Post(r.URL, "application/json", strings.NewReader(callback(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if text, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("it seems whole: %s", text)
	}
	await(t, "it is counted", func() bool { return value(t, r.metrics, series(failed)) == "1" })
	if value(t, r.metrics, series(handled)) != "0" {
		t.Error("it is counted as handled")
	}
	await(t, "it is logged", func() bool {
		return strings.Contains(r.log.String(), "level=WARN msg=\"the answer of the receiver could not be handed on\" error=\"httputil:")
	})
}

// TestErrors tells those apart that mean that nothing has come to the receiver.
func TestErrors(t *testing.T) {
	t.Parallel()
	wrap := func(op string, err error) error {
		return fmt.Errorf("x: %w", &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, err)})
	}
	for _, c := range []struct {
		err                   error
		notConnected, timeout bool
	}{
		{nil, false, false}, {io.EOF, false, false}, {context.Canceled, false, false}, {os.ErrDeadlineExceeded, false, true}, {wrap("dial", syscall.ECONNREFUSED), true, false},
		{wrap("dial", os.ErrDeadlineExceeded), true, true}, {wrap("write", syscall.EPIPE), false, false}, {wrap("read", syscall.ECONNRESET), false, false}, {wrap("read", syscall.ETIMEDOUT), false, true},
	} {
		if notConnected(c.err) != c.notConnected || timeout(c.err) != c.timeout {
			t.Errorf("%v: not connected %v, timeout %v", c.err, notConnected(c.err), timeout(c.err))
		}
	}
}

// TestDyingReceiver: one that takes a callback and then dies gets it twice at most, however
// many connections to it were idle.
func TestDyingReceiver(t *testing.T) {
	t.Parallel()
	t.Run("listening", func(t *testing.T) { dying(t, false) })
	t.Run("no more listening", func(t *testing.T) { dying(t, true) })
}

func dying(t *testing.T, deaf bool) {
	r := newRig(t, func(o *Options) { o.UpstreamWait = 300 * time.Millisecond })
	const n = 8
	var all sync.WaitGroup
	r.receiver.do(func(http.ResponseWriter, *http.Request) { all.Done(); all.Wait() })
	all.Add(n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { r.post(callback(i)) })
	}
	group.Wait()
	r.receiver.do(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	want := 2
	if deaf {
		_ = r.upstream.Listener.Close()
		want = 1
	}
	if status, _ := r.post(callback(100)); status != http.StatusBadGateway {
		t.Errorf("status %d", status)
	}
	came := 0
	for _, q := range r.receiver.requests() {
		if q.body == callback(100) {
			came++
		}
	}
	if came != want {
		t.Errorf("it came %d times", came)
	}
}
