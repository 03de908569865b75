package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/internal/alive/alivetest"
)

// TestDeadConnections: something between the proxy and its receiver swallows what is sent on the connections that
// stand. A callback on HTTP/2 is sent once more; on HTTP/1.1 nobody knows whether the receiver is only slow.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	for major := 1; major <= 2; major++ {
		synctest.Test(t, func(t *testing.T) {
			p := newPatient(Options{UpstreamConns: 64, UpstreamTimeout: 10 * time.Second, UpstreamWait: time.Second, Log: slog.New(slog.DiscardHandler)})
			alivetest.Recovers(t, p.pooled, major, func(http.ResponseWriter, *http.Request) {}, func() error {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://server.test/", strings.NewReader("a callback"))
				if err != nil {
					return err
				}
				res, err := p.RoundTrip(r)
				if err != nil {
					return err
				}
				_, _ = io.Copy(io.Discard, res.Body)
				if res.StatusCode != http.StatusOK {
					return fmt.Errorf("HTTP status %d", res.StatusCode)
				}
				return res.Body.Close()
			})
		})
	}
}
