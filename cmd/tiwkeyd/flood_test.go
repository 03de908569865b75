package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFloods: something that is no Vault, or no metadata service, answers the daemon with 64 MB. It takes
// a limited part of that into memory, says so, and lives.
func TestFloods(t *testing.T) {
	slow(t)
	t.Parallel()
	flood := func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, `{"Code":"Success","data":{"keys":["`)
		mega := strings.Repeat("x", 1<<20)
		for range 64 {
			if _, err := io.WriteString(w, mega); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"]}}`)
	}
	for _, c := range []struct {
		what    string
		env     func(url string) []string
		says    string
		handler http.HandlerFunc
	}{
		{"Vault", func(url string) []string {
			return []string{"TIWKEYD_STORE=vault", "VAULT_ADDR=" + url, "VAULT_TOKEN=CANARY-of-vault"}
		}, "longer than 4194304 bytes", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				_, _ = io.WriteString(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
				return
			}
			flood(w)
		}},
		{"the metadata service", func(url string) []string {
			return []string{"HTTP_PROXY=" + url, "TIWKEYD_TENCENT_CREDENTIALS=cvm-role"}
		}, "longer than 1048576 bytes", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/security-credentials/") {
				_, _ = io.WriteString(w, "the-role")
				return
			}
			flood(w)
		}},
	} {
		server := httptest.NewServer(c.handler)
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		d := r.daemon(c.env(server.URL)...)
		r.awaitOutput(d, c.says)
		kB := highWater(t, d)
		t.Logf("%s: the daemon had %d MB at most", c.what, kB>>10)
		if kB > 150<<10 && !raceEnabled {
			t.Errorf("%s: it took %d MB", c.what, kB>>10)
		}
		server.Close()
	}
}
