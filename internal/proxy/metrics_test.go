package proxy

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
)

// place is a webhook.Reader that can be away.
type place struct {
	away  atomic.Bool
	reads atomic.Int32
}

func (p *place) ReadKeys(context.Context, webhook.Target) (webhook.Keys, error) {
	p.reads.Add(1)
	if p.away.Load() {
		return webhook.Keys{}, errors.New("away")
	}
	return testKeys, nil
}

func (p *place) String() string { return "a place" }

func newCache(t *testing.T, p *place) *webhook.Cache {
	c := webhook.NewCache(t.Context(), p, webhook.CacheOptions{Every: 5 * time.Millisecond}, target)
	t.Cleanup(c.Close)
	return c
}

const ageSeries, keysSeries = `tiwkeyd_proxy_keys_age_seconds{target="1400000001/whiteboard-push"}`, `tiwkeyd_proxy_keys{target="1400000001/whiteboard-push"}`

// TestMetrics has the values after a mix of requests.
func TestMetrics(t *testing.T) {
	t.Parallel()
	cache := newCache(t, &place{})
	r := newRig(t, func(o *Options) {
		o.Webhook.Keys, o.Metrics, o.Webhook.Replays, o.Webhook.MaxBody = cache, NewMetrics(cache), webhook.NewReplayGuard(0), 5000
	})
	await(t, "the keys are there", cache.Ready)
	late := expiry.AddDate(-1, 0, 0)
	sent := 0
	for body, times := range map[string]int{callback(1): 3, callback(2): 1, string(tiwtest.Callback(testApp, event, 3, canaryB, expiry)): 1, string(tiwtest.Callback(testApp, "evil\"} 1\nx", 3, canaryB, expiry)): 1,
		"{": 2, string(tiwtest.Callback(testApp, event, 1, canaryA, late)): 1, string(tiwtest.Callback(testApp, event, 1, "never ours", expiry)): 2,
		string(tiwtest.Callback(testApp, event, 1, "", expiry)): 1, string(tiwtest.Callback(987654321, event, 1, canaryA, expiry)): 1, strings.Repeat(" ", 5001): 1} {
		for range times {
			r.post(body)
			sent++
		}
	}
	for name, want := range map[string]string{
		series(handled): "4", series("replayed"): "2", series("malformed"): "2", series("expired"): "1", series("bad signature"): "2", series("unsigned"): "1", series("wrong application"): "1",
		series("too large"): "1", series("incomplete"): "0", series("undecided"): "0", "tiwkeyd_proxy_rereads_total": "2", series(failed): "0",
		"tiwkeyd_proxy_request_duration_seconds_count": strconv.Itoa(sent), keysSeries: "2",
	} {
		if got := value(t, r.metrics, name); got != want {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	text := scrape(t, r.metrics)
	if strings.Contains(text, "evil") || strings.Contains(text, "987654321") || strings.Contains(text, event) {
		t.Error("a label has a value from outside")
	}
	if !strings.Contains(text, "go_goroutines") || !strings.Contains(text, "process_open_fds") {
		t.Error("the process's own metrics are missing")
	}
}

// TestSumOfTime: the duration is counted to the end of the answer.
func TestSumOfTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.UpstreamTimeout = 30 * time.Millisecond })
	wait := make(chan struct{})
	defer close(wait)
	done := make(chan struct{}, 1)
	r.receiver.handle = func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done(); done <- struct{}{} }
	r.post(callback(1))
	<-done
	if got, err := strconv.ParseFloat(value(t, r.metrics, "tiwkeyd_proxy_request_duration_seconds_sum"), 64); err != nil || got < 0.03 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestLint is what Prometheus's own rules say. The names that are not ours are not checked.
func TestLint(t *testing.T) {
	t.Parallel()
	cache := newCache(t, &place{})
	await(t, "the keys are there", cache.Ready)
	text := scrape(t, NewMetrics(cache))
	var ours []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, "tiwkeyd_") {
			ours = append(ours, line)
		}
	}
	if n := strings.Count(text, "# HELP tiwkeyd_"); n != 7 {
		t.Errorf("%d metrics of ours", n)
	}
	problems, err := promlint.New(strings.NewReader(strings.Join(ours, ""))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// Every reason that there is has its series from the start.
	for _, reason := range webhook.Reasons() {
		if value(t, NewMetrics(nil), series(string(reason))) != "0" {
			t.Errorf("there is no series of %s", reason)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^tiwkeyd_proxy_requests_total`).FindAllString(text, -1)); n != len(webhook.Reasons())+3 {
		t.Errorf("%d series of requests", n)
	}
}

// TestKeyAge grows while the place where the keys are is away, and there is none before they
// were ever read.
func TestKeyAge(t *testing.T) {
	t.Parallel()
	p := &place{}
	p.away.Store(true)
	cache := newCache(t, p)
	m := NewMetrics(cache)
	await(t, "a reading failed", func() bool { return p.reads.Load() > 1 })
	if value(t, m, ageSeries) != "" || value(t, m, keysSeries) != "0" {
		t.Errorf("before anything was read: age %s, %s keys", value(t, m, ageSeries), value(t, m, keysSeries))
	}
	age := func() float64 {
		v, err := strconv.ParseFloat(value(t, m, ageSeries), 64)
		if err != nil {
			return -1
		}
		return v
	}
	p.away.Store(false)
	await(t, "the keys are read", func() bool { return age() >= 0 })
	p.away.Store(true)
	before := p.reads.Load()
	await(t, "a reading failed", func() bool { return p.reads.Load() > before+1 })
	then := age()
	await(t, "the age grows", func() bool { return age() > then+0.1 })
	if value(t, m, keysSeries) != "2" {
		t.Error("the keys are not held")
	}
	then = age()
	p.away.Store(false)
	await(t, "the age falls", func() bool { return age() < then })
}
