package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/internal/proxy"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
)

// BenchmarkProxy compares the proxy to a bare ReverseProxy that reads the same body first, as
// requests a second, measured in turns.
func BenchmarkProxy(b *testing.B) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"error_code":0}`)
	}))
	defer receiver.Close()
	upstream, err := url.Parse(receiver.URL)
	if err != nil {
		b.Fatal(err)
	}
	key, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
	if err != nil {
		b.Fatal(err)
	}
	handler, closeIdle := proxy.New(proxy.Options{Upstream: upstream, UpstreamTimeout: time.Minute, UpstreamWait: time.Second, Log: slog.New(slog.DiscardHandler),
		Metrics: proxy.NewMetrics(nil), Webhook: webhook.Options{Keys: webhook.Static{{SdkAppID: testTarget.SdkAppID, Accept: []webhook.Key{key}}}}})
	defer closeIdle()
	transport := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	defer transport.CloseIdleConnections()
	reverse := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(upstream); p.SetXForwarded() }}
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, webhook.DefaultMaxBody))
		if err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		reverse.ServeHTTP(w, r)
	})
	ours, theirs := httptest.NewServer(handler), httptest.NewServer(bare)
	defer ours.Close()
	defer theirs.Close()
	body := tiwtest.Callback(testTarget.SdkAppID, "WhiteboardPushStarted", 1, key.Reveal(), time.Now().Add(time.Hour))
	const turn = 2000
	post(b, ours.URL, body, turn) // warm
	post(b, theirs.URL, body, turn)
	var mine, others time.Duration
	for b.Loop() {
		mine += post(b, ours.URL, body, turn)
		others += post(b, theirs.URL, body, turn)
	}
	b.ReportMetric(float64(others)/float64(mine), "x_bare")
	b.ReportMetric(turn*float64(b.N)/mine.Seconds(), "requests/s")
	b.ReportMetric(0, "ns/op")
}

// post sends n requests over sixteen connections and gives the time that took.
func post(b *testing.B, url string, body []byte, n int64) time.Duration {
	b.Helper()
	began := time.Now()
	var left atomic.Int64
	left.Store(n)
	var group sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	for range 16 {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				res, err := client.Post(url, "application/json", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					b.Errorf("status %d", res.StatusCode)
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

// BenchmarkFlood has 100,000 callbacks with bad signatures come in as fast as they are
// answered, and tells how often the keys were read meanwhile, and how much longer genuine
// callbacks took than before. The proxy is a process of its own.
func BenchmarkFlood(b *testing.B) {
	r := newRig(b)
	r.useVault(vaulttest.Start(b))
	first, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
	if err != nil {
		b.Fatal(err)
	}
	r.secret(first.Reveal())
	k := &rotator.Keyring{Target: testTarget, RotatedAt: time.Now(), Keys: []rotator.Entry{{Key: first, State: rotator.Current, CreatedAt: time.Now(), ActivatedAt: time.Now()}}}
	if _, err := r.store.Write(b.Context(), testTarget, k, 0); err != nil {
		b.Fatal(err)
	}
	var reads atomic.Int64
	toVault, err := url.Parse(lastOf(r.env, "VAULT_ADDR"))
	if err != nil {
		b.Fatal(err)
	}
	counting := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		if strings.Contains(p.In.URL.Path, "/data/") {
			reads.Add(1)
		}
		p.SetURL(toVault)
	}}
	front := httptest.NewServer(counting)
	defer front.Close()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer receiver.Close()
	p := r.start([]string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--upstream", receiver.URL}, "TIWKEYD_LOG_LEVEL=info", "VAULT_ADDR="+front.URL)
	r.awaitOutput(p, "hands genuine callbacks on")
	at := "http://" + announced(p.String(), "listen")
	good := tiwtest.Callback(testTarget.SdkAppID, "WhiteboardPushStarted", 1, first.Reveal(), time.Now().Add(time.Hour))
	bad := tiwtest.Callback(testTarget.SdkAppID, "WhiteboardPushStarted", 1, strings.Repeat("x", 64), time.Now().Add(time.Hour))
	quiet := latencies(b, at, good, 2000, nil)

	const requests, connections = 100_000, 4000
	for b.Loop() {
		began, before := time.Now(), reads.Load()
		flood, done := context.WithCancel(context.Background())
		var left atomic.Int64
		left.Store(requests)
		var group sync.WaitGroup
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
		for range connections {
			group.Go(func() {
				for left.Add(-1) >= 0 {
					res, err := client.Post(at, "application/json", bytes.NewReader(bad))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
					if res.StatusCode != http.StatusUnauthorized {
						b.Errorf("a bad signature was answered %d", res.StatusCode)
						return
					}
				}
			})
		}
		go func() { group.Wait(); done() }()
		under := latencies(b, at, good, 1<<30, flood)
		group.Wait()
		client.CloseIdleConnections()
		took := time.Since(began)
		b.ReportMetric(requests/took.Seconds(), "bad/s")
		// The first of them came at the beginning of the first second.
		b.ReportMetric(float64(reads.Load()-before-1)/took.Seconds(), "reads/s")
		for name, q := range map[string]float64{"p50": .5, "p90": .9, "p99": .99} {
			b.ReportMetric(float64(quantile(under, q))/float64(quantile(quiet, q)), "x_quiet_"+name)
		}
		b.Logf("%d bad in %s; genuine: quiet p50 %s p99 %s, meanwhile %d, p50 %s p99 %s", requests, took.Round(time.Second), quantile(quiet, .5), quantile(quiet, .99), len(under), quantile(under, .5), quantile(under, .99))
	}
	b.ReportMetric(0, "ns/op")
}

// latencies sends genuine callbacks one after the other, n of them or until ctx ends.
func latencies(b *testing.B, url string, body []byte, n int, ctx context.Context) []time.Duration {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var all []time.Duration
	for len(all) < n && (ctx == nil || ctx.Err() == nil) {
		began := time.Now()
		res, err := client.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			b.Fatalf("a genuine callback was answered %d", res.StatusCode)
		}
		all = append(all, time.Since(began))
	}
	return all
}

func quantile(d []time.Duration, q float64) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[int(float64(len(d)-1)*q)]
}

// announced reads a member of the proxy's first log line.
func announced(log, name string) string {
	_, rest, _ := strings.Cut(log, fmt.Sprintf("%q:\"", name))
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
