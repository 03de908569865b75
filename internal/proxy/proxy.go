// Package proxy is a reverse proxy that hands genuine callbacks on to a receiver written in
// any language, and nothing else.
package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tiwkeyd/webhook"
)

// The headers that tell the receiver what was verified. Whatever comes from outside with
// their prefix is taken away.
const (
	headerPrefix   = "X-Tiwkeyd-"
	HeaderKeyID    = headerPrefix + "Key-Id"
	HeaderEvent    = headerPrefix + "Event-Type"
	HeaderSdkAppID = headerPrefix + "Sdk-App-Id"

	// headerIdempotency has the SHA-256 of the body: a receiver can tell by it that a callback
	// came twice.
	headerIdempotency = "Idempotency-Key"
)

// Options are the proxy's settings.
type Options struct {
	Upstream *url.URL
	Webhook  webhook.Options // Observe is the proxy's own

	// UpstreamTimeout is how long the receiver may take to begin its answer.
	UpstreamTimeout time.Duration

	// UpstreamWait is how long a receiver that does not listen is tried again: it may just be
	// restarting, and Tencent may send a callback but once.
	UpstreamWait time.Duration

	Log     *slog.Logger
	Metrics *Metrics
}

// New gives the handler.
func New(o Options) (handler http.Handler, closeIdle func()) {
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: o.UpstreamTimeout,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true, // the answer is handed on as it is
		ForceAttemptHTTP2:     true,
	}
	reverse := &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { rewrite(p, o.Upstream) },
		Transport: &patient{next: transport, wait: o.UpstreamWait, log: o.Log},
		ErrorLog:  slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			o.Metrics.upstreamErrors.Inc()
			o.Log.Error("the receiver did not answer a genuine callback", "upstream", o.Upstream.Redacted(), "error", err.Error())
			http.Error(w, "the receiver does not answer", http.StatusBadGateway)
		},
	}
	options := o.Webhook
	options.Log, options.Observe = o.Log, o.Metrics.observe
	return o.Metrics.time(webhook.Middleware(options)(reverse)), transport.CloseIdleConnections
}

// rewrite makes the request to the receiver. Hop-by-hop headers are gone already, so that the
// sender cannot have ours removed by naming them in Connection.
func rewrite(p *httputil.ProxyRequest, upstream *url.URL) {
	p.SetURL(upstream)
	p.SetXForwarded()
	for name := range p.Out.Header {
		// Many receivers take _ in a header's name for -.
		if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), strings.ToLower(headerPrefix)) {
			delete(p.Out.Header, name)
		}
	}
	p.Out.Header.Del(headerIdempotency)
	event, ok := webhook.FromContext(p.In.Context())
	if !ok {
		return // only in a test without the middleware
	}
	p.Out.Header.Set(HeaderSdkAppID, strconv.FormatInt(event.SdkAppID, 10))
	if event.KeyID != "" {
		p.Out.Header.Set(HeaderKeyID, event.KeyID)
	}
	if plain(event.EventType) {
		p.Out.Header.Set(HeaderEvent, event.EventType)
	}
	// With these two the transport sends it once more on another connection if the receiver
	// closed an idle one at that very moment.
	sum := sha256.Sum256(event.Body)
	p.Out.Header.Set(headerIdempotency, hex.EncodeToString(sum[:]))
	p.Out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(event.Body)), nil }
}

// plain reports whether an event's type, which the signature does not cover, is fit for a
// header. The receiver finds every other one in the body.
func plain(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) < 0
}

// patient is a transport that tries a receiver again which could not be connected to. Of
// such a request nothing was sent.
type patient struct {
	next http.RoundTripper
	wait time.Duration
	log  *slog.Logger
}

// RoundTrip tries until the wait is over.
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.next.RoundTrip(r)
	if !notConnected(err) || p.wait <= 0 {
		return res, err
	}
	p.log.Warn("the receiver does not listen; it is tried again", "wait", p.wait.String(), "error", err.Error())
	ctx, cancel := context.WithTimeout(r.Context(), p.wait)
	defer cancel()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 500*time.Millisecond
	res, ended := backoff.Retry(ctx, func() (*http.Response, error) {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			again.Body, _ = r.GetBody() // from memory: it cannot fail
		}
		var res *http.Response
		if res, err = p.next.RoundTrip(again); err != nil && !notConnected(err) {
			return nil, backoff.Permanent(err)
		}
		return res, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if ended != nil {
		return nil, err // tells more than that the time is over
	}
	return res, nil
}

func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
