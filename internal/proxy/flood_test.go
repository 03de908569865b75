package proxy

import (
	"strings"
	"testing"
	"time"
)

// TestRepeats: who has seen one callback, and sends it over and over while the receiver is away,
// does not fill the log.
func TestRepeats(t *testing.T) {
	t.Parallel()
	d := newDeaf(t)
	r := newRig(t, func(o *Options) { o.Upstream, o.UpstreamWait = parse(t, d.url), time.Millisecond })
	began := time.Now()
	for range 200 {
		r.post(callback(1))
	}
	for _, text := range []string{againText, "did not answer a genuine callback"} {
		if n, bound := strings.Count(r.log.String(), text), 20+1+int(time.Since(began)/time.Second); n < 20 || n > bound {
			t.Errorf("%d lines %q, and %d may be", n, text, bound)
		}
	}
	if value(t, r.metrics, series(failed)) != "200" {
		t.Error("not all are counted")
	}
}
