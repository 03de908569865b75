package alive

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/internal/alive/alivetest"
)

// TestDeadConnections: over both protocols one request fails at most, and none after a spell in which nobody asked.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	for major := 1; major <= 2; major++ {
		synctest.Test(t, func(t *testing.T) {
			transport := &http.Transport{ForceAttemptHTTP2: true}
			Watch(transport)
			alivetest.Recovers(t, transport, major, func(http.ResponseWriter, *http.Request) {}, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://server.test/", nil)
				if err != nil {
					return err
				}
				res, err := transport.RoundTrip(r)
				if Heed(transport, err); err != nil {
					return err
				}
				return res.Body.Close()
			})
		})
	}
}

// TestGivenUp: only who was not answered in time has the others closed; a caller that goes away has not.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		err    error
		closed bool
	}{{nil, false}, {context.Canceled, false}, {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false}, {context.DeadlineExceeded, true}, {fmt.Errorf("read: %w", context.DeadlineExceeded), true}} {
		var made atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				made.Add(1)
			}
		}
		server.Start()
		transport := &http.Transport{}
		for range 2 {
			res, err := (&http.Client{Transport: transport}).Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			Heed(transport, r.err)
		}
		if closed := made.Load() == 2; closed != r.closed {
			t.Errorf("%v: idle connections are closed: %t", r.err, closed)
		}
		transport.CloseIdleConnections()
		server.Close()
	}
}
