package connlimit

import (
	"bufio"
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hang ends a wait that would never end; nothing is measured with it.
const hang = time.Minute

// house is a server with a limit, and what it logged.
type house struct {
	t      *testing.T
	limit  *Limit
	server *http.Server
	at     string

	mu  sync.Mutex
	log bytes.Buffer
}

func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

func (h *house) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// open serves: GET /proven marks its connection, POST reads the body, /slow waits for release.
func open(t *testing.T, most int, patience time.Duration, release <-chan struct{}) *house {
	t.Helper()
	h := &house{t: t, limit: New("house", most, patience)}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(h, nil))
	h.at = inner.Addr().String()
	h.server = h.limit.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch r.URL.Path {
		case "/proven":
			Proven(r.Context())
		case "/slow":
			fmt.Fprint(w, "began")
			_ = http.NewResponseController(w).Flush()
			<-release
		}
	}), log)
	done := make(chan struct{})
	go func() { defer close(done); _ = h.server.Serve(h.limit.Listener(inner, log)) }()
	t.Cleanup(func() { _ = h.server.Close(); <-done })
	return h
}

// from connects from a host of loopback and says something.
func (h *house) from(host byte, says string) net.Conn {
	h.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}).Dial("tcp", h.at)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(hang))
	_, _ = io.WriteString(c, says)
	return c
}

// asks sends a request on a connection, has it answered, and the connection idle.
func (h *house) asks(c net.Conn, path string) {
	h.t.Helper()
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		h.t.Fatalf("%s: %v, %v", path, res, err)
	}
	_ = res.Body.Close()
	h.await("it is idle", func() bool { return h.queues()[2] == 0 })
	h.settle()
}

// settle waits until the server has answered all and waits for each peer. Before that, which connection has waited for
// longest depends on how busy the machine is.
func (h *house) settle() {
	h.t.Helper()
	h.await("all connections are idle", func() bool {
		h.limit.mu.Lock()
		defer h.limit.mu.Unlock()
		for _, queue := range []*list.List{h.limit.waiting, h.limit.proven} {
			for e := queue.Front(); e != nil; e = e.Next() {
				if c := e.Value.(*held); c.over || !c.reading.Load() {
					return false
				}
			}
		}
		return true
	})
}

// gone waits until a connection is closed.
func (h *house) gone(c net.Conn, what string) {
	h.t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
		h.t.Fatalf("%s was not closed", what)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func (h *house) await(what string, condition func() bool) {
	h.t.Helper()
	for end := time.Now().Add(hang); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("it never came to this: %s\n%s", what, h.logged())
		}
	}
}

// queues gives how many connections wait, are proven and wait, and are in hand.
func (h *house) queues() [3]int {
	h.limit.mu.Lock()
	defer h.limit.mu.Unlock()
	return [3]int{h.limit.waiting.Len(), h.limit.proven.Len(), h.limit.inHand.Len()}
}

const half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"

// TestLongestGoes: of connections that wait, whatever for, the one that has for longest is closed for a
// new one; what it sends meanwhile is no request.
func TestLongestGoes(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"nothing": "", "half a header": "POST / HT", "half a body": half, "an answered request": "GET"} {
		h := open(t, 2, 0, nil)
		first := h.from(1, strings.TrimPrefix(says, "GET"))
		if says == "GET" {
			h.asks(first, "/")
		}
		h.await("the first is held", func() bool { return h.queues() == [3]int{1, 0, 0} })
		second := h.from(1, "")
		h.await("both are held", func() bool { return h.queues() == [3]int{2, 0, 0} })
		h.settle()
		_, _ = io.WriteString(first, "x")
		third := h.from(1, "")
		h.gone(first, name)
		h.asks(second, "/")
		h.asks(third, "/")
		h.await("both wait again", func() bool { return h.queues() == [3]int{2, 0, 0} })
	}
}

// TestInHandStays: while every request is here whole, a new connection waits.
func TestInHandStays(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := open(t, 2, 0, release)
	var slow []net.Conn
	for range 2 {
		c := h.from(1, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{")
		slow = append(slow, c)
	}
	h.await("both are in hand", func() bool { return h.queues() == [3]int{0, 0, 2} })
	third := h.from(1, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	h.await("there is no room", func() bool { return strings.Contains(h.logged(), "all connections are taken") })
	if n := h.queues(); n != [3]int{0, 0, 2} {
		t.Errorf("%v", n)
	}
	close(release)
	for i, c := range append(slow, third) {
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}

// TestPatience: where a request in hand is safe for a time only, the oldest is given up after it.
func TestPatience(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := open(t, 1, time.Millisecond, release)
	first := h.from(1, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	h.await("it is in hand", func() bool { return h.queues() == [3]int{0, 0, 1} })
	h.asks(h.from(1, ""), "/")
	h.gone(first, "the request in hand")
	close(release)
}

// TestProvenGoLast, until they are more than half of all.
func TestProvenGoLast(t *testing.T) {
	t.Parallel()
	h := open(t, 4, 0, nil)
	var proven []net.Conn
	for i := range 2 {
		c := h.from(1, "")
		h.asks(c, "/proven")
		proven = append(proven, c)
		h.await("it is idle", func() bool { return h.queues() == [3]int{0, i + 1, 0} })
	}
	h.from(1, "")
	last := h.from(1, "")
	h.await("all are held", func() bool { return h.queues() == [3]int{2, 2, 0} })
	h.settle()
	for range 3 { // each closes another newcomer
		h.from(1, "")
	}
	h.gone(last, "a newcomer")
	for _, c := range proven {
		h.asks(c, "/")
	}
	third := h.from(1, "")
	h.asks(third, "/proven")
	h.await("most are proven", func() bool { return h.queues()[1] == 3 })
	h.asks(h.from(1, ""), "/")
	h.gone(proven[0], "the oldest proven one")
	h.asks(proven[1], "/")
}

// TestCrowdOfOneHost: it closes its own, also such as came after those of others.
func TestCrowdOfOneHost(t *testing.T) {
	t.Parallel()
	h := open(t, 4, 0, nil)
	alone := h.from(3, "")
	h.await("it is held", func() bool { return h.queues()[0] == 1 })
	var crowd []net.Conn
	for range 20 {
		crowd = append(crowd, h.from(2, ""))
	}
	h.gone(crowd[0], "the first of the crowd")
	h.await("all of them were accepted", func() bool { return h.closed() == 17 })
	h.asks(alone, "/")
}

func (h *house) closed() uint64 {
	h.limit.mu.Lock()
	defer h.limit.mu.Unlock()
	return h.limit.closed
}

// short is a listener that has no files at first.
type short struct {
	net.Listener
	mu     sync.Mutex
	errors []error
}

func (s *short) Accept() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errors) > 0 {
		err := s.errors[0]
		s.errors = s.errors[1:]
		return nil, &net.OpError{Op: "accept", Err: err}
	}
	return s.Listener.Accept()
}

// TestAcceptErrors are told once in a while; where files are short a connection that waits is given up.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	h := open(t, 4, 0, nil)
	held := h.from(1, "")
	h.await("it is held and may be given up", func() bool {
		h.limit.mu.Lock()
		defer h.limit.mu.Unlock()
		return h.limit.victim() != nil
	})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := h.limit.Listener(&short{Listener: inner, errors: []error{syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.EMFILE}}, slog.New(slog.NewTextHandler(h, nil)))
	for i := range 4 {
		if _, err := l.Accept(); err == nil {
			t.Error("no error")
		}
		if closed := h.closed(); closed != uint64(min(i, 1)) {
			t.Errorf("%d connections were closed after %d errors", closed, i+1)
		}
	}
	h.gone(held, "the connection that waits")
	if text := h.logged(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "raise nofile") || !strings.Contains(text, syscall.ECONNABORTED.Error()) {
		t.Errorf("log:\n%s", text)
	}
	_ = l.Close()
	before := h.logged()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || h.logged() != before {
		t.Errorf("%v, log:\n%s", err, h.logged())
	}
}

// TestCloseWhileWaiting: a listener that is closed waits for room no more.
func TestCloseWhileWaiting(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := open(t, 1, 0, release)
	slow := h.from(1, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	h.await("it is in hand", func() bool { return h.queues() == [3]int{0, 0, 1} })
	late := h.from(1, "")
	h.await("there is no room", func() bool { return strings.Contains(h.logged(), "all connections are taken") })
	done := make(chan error)
	go func() { done <- h.server.Shutdown(t.Context()) }()
	h.gone(late, "the one that waits for room")
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.gone(slow, "the one in hand")
}
