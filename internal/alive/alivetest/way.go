// Package alivetest is a way to a server that swallows what is sent on the connections that stand, for tests.
package alivetest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// limit is how long it may take until a program is over a way that swallowed its connections.
const limit = 30 * time.Second

// way is a net.Listener, and dials it. It is all in memory, so that its time is that of testing/synctest.
type way struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	hole   atomic.Pointer[atomic.Bool] // of the connections made from now on: they lead nowhere
	mu     sync.Mutex
	ends   []net.Conn
}

func newWay() *way {
	w := &way{accept: make(chan net.Conn), closed: make(chan struct{})}
	w.hole.Store(new(atomic.Bool))
	return w
}

// swallow has all that is sent on the connections that stand go nowhere. New ones work.
func (w *way) swallow() { w.hole.Swap(new(atomic.Bool)).Store(true) }

func (w *way) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, in := net.Pipe()
	out, far := net.Pipe()
	hole := w.hole.Load()
	pass := func(from, to net.Conn) {
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			if !hole.Load() {
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
			if err != nil {
				if !hole.Load() {
					_ = to.Close()
				}
				return
			}
		}
	}
	go pass(in, out)
	go pass(out, in)
	w.mu.Lock()
	w.ends = append(w.ends, in, out)
	w.mu.Unlock()
	select {
	case w.accept <- far:
		return near, nil
	case <-w.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *way) Accept() (net.Conn, error) {
	select {
	case c := <-w.accept:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *way) Close() error {
	w.once.Do(func() { close(w.closed) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.ends {
		_ = c.Close()
	}
	return nil
}

func (w *way) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

// Recovers sends requests with t, on several connections at a time where that is HTTP/1.1, has the way swallow these,
// and tries until a request gets its answer. It is for a synctest bubble, in which time is exact. try makes one
// request to https://server.test, however long it takes; handle answers it.
func Recovers(tb testing.TB, t *http.Transport, major int, handle http.HandlerFunc, try func() error) {
	tb.Helper()
	w := newWay()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != major {
			tb.Errorf("the request comes over %s", r.Proto)
		}
		time.Sleep(time.Second) // the others come meanwhile
		handle(out, r)
	}))
	_ = server.Listener.Close()
	server.Listener, server.EnableHTTP2 = w, major == 2
	server.StartTLS()
	defer server.Close()
	defer t.CloseIdleConnections()
	t.Proxy, t.DialContext = nil, w.dial
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	t.TLSClientConfig.InsecureSkipVerify = true
	for _, spell := range []time.Duration{0, 3 * time.Second, 20 * time.Second} { // that nobody asks anything
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				if err := try(); err != nil {
					tb.Errorf("before anything is swallowed: %v", err)
				}
			})
		}
		group.Wait()
		w.swallow()
		began, failed := time.Now(), 0
		time.Sleep(spell)
		for err := try(); err != nil; err = try() {
			if failed++; time.Since(began) > 10*time.Minute {
				tb.Fatalf("it goes on failing: %v", err)
			}
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		tb.Logf("HTTP/%d, the first request after %s: %d failed, over it after %s", major, spell, failed, took)
		if took > limit || failed > major || spell == 20*time.Second && failed > 0 {
			tb.Errorf("HTTP/%d, the first request after %s: %d requests failed, and it took %s", major, spell, failed, took)
		}
	}
}
