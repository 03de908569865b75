package vault

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"tiwkeyd/internal/alive/alivetest"
	"tiwkeyd/internal/bounded"
	"tiwkeyd/secrets/storetest"
)

// TestDeadConnections: something between this and Vault swallows what is sent on the connections that stand.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	for major := 1; major <= 2; major++ {
		synctest.Test(t, func(t *testing.T) {
			s, _ := open(t, "https://server.test", withToken("a token"))
			defer s.Close()
			transport := s.client.CloneConfig().HttpClient.Transport.(bounded.Transport).Transport
			alivetest.Recovers(t, transport, major, func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "/data/") {
					w.WriteHeader(http.StatusForbidden)
					_, _ = io.WriteString(w, `{"errors":["permission denied"]}`)
					return
				}
				_, _ = io.WriteString(w, `{"data":{"data":null,"metadata":{"version":1,"created_time":"2026-01-01T00:00:00Z","deletion_time":""}}}`)
			}, func() error {
				_, err := s.Secret(t.Context(), storetest.Target(), 0)
				return err
			})
		})
	}
}
