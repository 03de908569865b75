// Package hostguard keeps web pages of others from what is served on this machine. Such a page
// has a name of its own, and can have that name lead to 127.0.0.1 (DNS rebinding): a browser here
// then takes our answers for the page's own, and lets it read them.
package hostguard

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

const refusal = "what comes over a loopback address has to call this localhost, by an IP address, by this machine's name, or by the name in TIWKEYD_HTTP_URL of `tiwkeyd run`; a proxy before it has to set Host to one of these"

// Handler hands on a request unless it came over a loopback address and calls this machine by a
// name that may be anybody's. known gives one more name that is ours, "" for none; nil is none.
func Handler(next http.Handler, known func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && at.IP.IsLoopback() && !ours(r.Host, known) {
			http.Error(w, refusal, http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours reports whether a Host header is none that DNS rebinding leads to. It takes a name: an IP
// address leads where it says, and a browser always sends one, unlike probes by HTTP/1.0.
func ours(host string, known func() string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.TrimSuffix(name, ".")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || host == "" || strings.EqualFold(name, "localhost") || strings.EqualFold(name, "localhost.localdomain") {
		return true
	}
	machine, err := os.Hostname()
	return err == nil && strings.EqualFold(name, machine) || known != nil && name != "" && strings.EqualFold(name, known())
}
