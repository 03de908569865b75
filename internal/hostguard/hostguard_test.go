package hostguard

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestHandler are the names by which a machine may be called. Those of strangers are refused where
// a browser on this machine may be the one who calls.
func TestHandler(t *testing.T) {
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	const loopback, outside = "127.0.0.1", "192.0.2.7"
	for _, c := range []struct {
		what, at string
		hosts    []string
		status   int
	}{
		{"no name, as in HTTP/1.0", loopback, []string{""}, 200},
		{"this machine's own names", loopback, []string{"localhost", "LOCALHOST:9469", "localhost:", machine, strings.ToUpper(machine) + ":9469"}, 200},
		{"its addresses", loopback, []string{"127.0.0.1", "127.0.0.1:9469", "127.8.9.1:1", "[::1]:9469", "[::1]"}, 200},
		{"addresses, as a sidecar hands them on", loopback, []string{"192.0.2.1:9469", "10.1.2.3", "[fe80::1%eth0]:9469"}, 200},
		{"the name that is set", loopback, []string{"keys.example", "KEYS.example:443"}, 200},
		{"names of strangers", loopback, []string{"evil.example", "evil.example:9469", "evil", "localhost.evil.example", "evil.localhost.", "keys.example.evil.example", "xkeys.example", " "}, 421},
		{"what only looks like an address", loopback, []string{"127.0.0.1.evil.example", "127.1", "0x7f000001", "127.0.0.1:9469:1", "[evil.example]:9469", ":9469"}, 421},
		{"over IPv6", "::1", []string{"evil.example"}, 421},
		{"from another machine", outside, []string{"evil.example", "tiwkeyd.svc.cluster.local:9469", "keys.example", outside}, 200},
	} {
		for _, host := range c.hosts {
			for known, set := range map[string]func() string{"": nil, "keys.example": func() string { return "keys.example" }, "none": func() string { return "" }} {
				want := c.status
				if strings.EqualFold(strings.TrimSuffix(host, ":443"), "keys.example") && c.at == loopback && known != "keys.example" {
					want = 421
				}
				r := httptest.NewRequest("GET", "/metrics", nil)
				r.Host = host
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(c.at), Port: 9469}))
				w := httptest.NewRecorder()
				Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), set).ServeHTTP(w, r)
				if w.Code != want || want == 421 && (strings.Count(w.Body.String(), "\n") != 1 || !strings.Contains(w.Body.String(), "localhost")) {
					t.Errorf("%s: %q where %q is set: %d %s", c.what, host, known, w.Code, w.Body)
				}
			}
		}
	}
}
