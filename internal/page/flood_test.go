package page

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestFlood: whoever reaches the page can write few lines of each kind, none of which is long.
func TestFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	began := time.Now()
	for range 150 {
		r.send("POST", "/login", url.Values{"token": {"wrong"}})
		r.send("POST", "/login/"+strings.Repeat("p", 100_000), nil, func(req *http.Request) { req.Header.Set("Origin", "http://"+strings.Repeat("o", 100_000)) })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	const kinds = 3 // wrong, too many, of another site
	lines, bound := strings.Count(r.log.String(), "\n"), kinds*(20+1+int(time.Since(began)/time.Second))
	if lines < kinds*20/2 || lines > bound || r.log.Len() > lines*1000 {
		t.Errorf("%d lines of %d bytes, and %d may be:\n%.1000s", lines, r.log.Len(), bound, r.log.String())
	}
	if !strings.Contains(r.log.String(), "ooo…(100007 bytes)") {
		t.Error("a long origin is not cut")
	}
}
