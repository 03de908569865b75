package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/webhook"
)

// TestNamesByLetter: a letter or a digit in a name is that, and everything else may be taken
// for a dash.
func TestNamesByLetter(t *testing.T) {
	t.Parallel()
	for _, c := range "azm059" {
		if name := strings.ReplaceAll("X-Tiwkeyd-Key-Id", "-", string(c)); ours(name) {
			t.Errorf("%s is taken for ours", name)
		}
	}
	for _, c := range "!#$%&'*+-.^_`|~" { // all that RFC 9110 lets stand in a name
		if name := strings.ReplaceAll("X-Tiwkeyd-Key-Id", "-", string(c)); !ours(name) {
			t.Errorf("%s is not taken for ours", name)
		}
	}
}

// TestMoreNames: what receivers know a repeated callback by is ours, too.
func TestMoreNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Idempotency-Key", "x_idempotency_key", "X-Real-Ip", "x.real.ip"} {
		if !ours(name) {
			t.Errorf("%s is not taken for ours", name)
		}
	}
}

// TestRootUpstream: a receiver that is named with the slash behind it has no path of its own.
func TestRootUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Upstream = parse(t, "/") })
	body := callback(1)
	if status := r.raw(fmt.Sprintf("POST /a/b?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)); status != 200 || r.receiver.requests()[0].RequestURI != "/a/b?x=1" {
		t.Errorf("%d %v", status, r.receiver.requests())
	}
}

// TestLogged: what is refused is told in the proxy's own log.
func TestLogged(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if status, _ := r.post("{"); status != http.StatusBadRequest || !strings.Contains(r.log.String(), "callback not handed on") {
		t.Errorf("%d, log:\n%s", status, r.log)
	}
}

// TestBounded: a receiver that does not answer the network's questions is not waited for
// without end. That cannot be shown in short: the times are seconds.
func TestBounded(t *testing.T) {
	t.Parallel()
	p := newPatient(Options{UpstreamTimeout: hang, UpstreamConns: 8})
	for name, transport := range map[string]*http.Transport{"pooled": p.pooled, "fresh": p.fresh} {
		if transport.DialContext == nil || transport.TLSHandshakeTimeout <= 0 || transport.ResponseHeaderTimeout != hang || transport.IdleConnTimeout <= 0 {
			t.Errorf("the %s transport waits without end", name)
		}
	}
	if p.pooled.MaxConnsPerHost != 6 || p.fresh.MaxConnsPerHost != 2 {
		t.Error("there may be more connections to the receiver than were given")
	}
	if p.pooled.DisableKeepAlives || !p.fresh.DisableKeepAlives {
		t.Error("what is called fresh is kept, or the other way round")
	}
}

// TestUnrepeatable: a body that is not there any more is not sent again.
func TestUnrepeatable(t *testing.T) {
	t.Parallel()
	at, answered := closing(t, insteadOfAnswer)
	p := newPatient(Options{UpstreamWait: hang, Log: slog.New(slog.DiscardHandler)})
	defer p.pooled.CloseIdleConnections()
	for i, want := range []bool{true, false} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, io.NopCloser(strings.NewReader(callback(i))))
		if err != nil {
			t.Fatal(err)
		}
		q.ContentLength = int64(len(callback(i)))
		res, err := p.RoundTrip(q)
		if (err == nil) != want || answered()[callback(i)] != map[bool]int{true: 1}[want] {
			t.Fatalf("request %d: %v, it was answered %d times", i, err, answered()[callback(i)])
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}
}

// TestUnreadableCertificate is not told to have expired.
func TestUnreadableCertificate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tls.pem")
	replace(t, path, []byte("nonsense"))
	if _, err := LoadCertificate(path, path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "read the TLS certificate from") {
		t.Error(err)
	}
}

// twoPlaces is a webhook.Reader of one target that can be read and one that cannot.
type twoPlaces struct{ place }

func (p *twoPlaces) ReadKeys(ctx context.Context, t webhook.Target) (webhook.Keys, error) {
	if t != target {
		return webhook.Keys{}, fmt.Errorf("%s is away", t)
	}
	return p.place.ReadKeys(ctx, t)
}

// TestFailing tells of each target whether it can be read.
func TestFailing(t *testing.T) {
	t.Parallel()
	other := target
	other.SdkAppID = 7
	cache := webhook.NewCache(t.Context(), &twoPlaces{}, webhook.CacheOptions{}, target, other)
	defer cache.Close()
	await(t, "both were looked at", cache.Ready)
	m := NewMetrics(cache)
	for at, want := range map[webhook.Target]string{target: "0", other: "1"} {
		if got := value(t, m, fmt.Sprintf("tiwkeyd_proxy_keys_read_failing{target=%q}", at)); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
	described := make(chan *prometheus.Desc, 10)
	keyAges{cache}.Describe(described)
	if len(described) != 3 {
		t.Errorf("%d metrics are described", len(described))
	}
}
