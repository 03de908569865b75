package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/webhook"
)

// TestNamesByLetter: a letter or a digit in a name is that, and everything else may be taken
// for a dash.
func TestNamesByLetter(t *testing.T) {
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

// TestUnrepeatable: a body that is not there any more is not sent again.
func TestUnrepeatable(t *testing.T) {
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
