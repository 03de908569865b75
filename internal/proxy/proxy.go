// Package proxy is a reverse proxy that hands genuine callbacks on to a receiver written in
// any language, and nothing else.
package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tiwkeyd/internal/connlimit"
	"tiwkeyd/internal/logs"
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

	// UpstreamConns is how many connections to the receiver there may be; 0: as many as are wanted.
	UpstreamConns int

	Log     *slog.Logger
	Metrics *Metrics
}

// New gives the handler.
func New(o Options) (handler http.Handler, closeIdle func()) {
	options := o.Webhook
	options.Log, options.Observe = o.Log, o.Metrics.observe
	o.Log = logs.Limit(o.Log) // who has seen one callback can send it over and over
	transport, loops := newPatient(o), newLoops(o)
	reverse := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			rewrite(p, o.Upstream)
			p.Out.Header.Add("Via", "1.1 "+loops.self)
		},
		Transport: transport,
		ErrorLog:  logs.ErrorLog(o.Log, slog.LevelWarn, "the answer of the receiver could not be handed on"),
		ModifyResponse: func(res *http.Response) error {
			// The callback has come to the receiver. What it goes on to answer matters as long as
			// the sender is there.
			context.AfterFunc(sender(res.Request), func() { _ = res.Body.Close() })
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			o.Log.Error("the receiver did not answer a genuine callback", "upstream", o.Upstream.Redacted(), "error", err.Error())
			http.Error(w, "the receiver does not answer", http.StatusBadGateway)
		},
	}
	verified := webhook.Middleware(options)(keepAnswer(reverse))
	return o.Metrics.time(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if loops.refuse(w, r) {
			return
		}
		verified.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), senderKey{}, r.Context())))
	})), transport.pooled.CloseIdleConnections
}

// keepAnswer has what the receiver said count, also where the sender has not waited for all of
// it: the library gives up an answer that it cannot hand back by a panic.
func keepAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connlimit.Proven(r.Context())
		defer func() {
			if p := recover(); p != nil && (p != http.ErrAbortHandler || sender(r).Err() == nil) {
				panic(p)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

type senderKey struct{}

// sender is the context that ends when the sender of a request goes away, or has its answer.
func sender(r *http.Request) context.Context {
	return r.Context().Value(senderKey{}).(context.Context)
}

// rewrite makes the request to the receiver. Hop-by-hop headers are gone already, so that the
// sender cannot have ours removed by naming them in Connection.
func rewrite(p *httputil.ProxyRequest, upstream *url.URL) {
	p.SetURL(upstream)
	if upstream.Path == "" || upstream.Path == "/" {
		p.Out.URL.RawQuery = p.In.URL.RawQuery // as it came: nobody here reads it
	} else { // the receiver's own choice, not the sender's
		p.Out.URL.Path, p.Out.URL.RawPath, p.Out.URL.RawQuery = upstream.Path, upstream.RawPath, ""
	}
	for name := range p.Out.Header {
		if ours(name) {
			delete(p.Out.Header, name)
		}
	}
	p.SetXForwarded()
	// The body is here whole, and was read as JSON in UTF-8: so must the receiver, whatever the
	// sender calls it. A connection that changes its protocol would take anything, from whoever
	// has seen one callback.
	for _, name := range []string{"Expect", "Connection", "Upgrade", "Content-Encoding"} {
		p.Out.Header.Del(name)
	}
	p.Out.Header.Set("Content-Type", "application/json")
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
	sum := sha256.Sum256(event.Body)
	p.Out.Header.Set(headerIdempotency, hex.EncodeToString(sum[:]))
	p.Out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(event.Body)), nil }
}

// ours reports whether a receiver may take a header for one that only this proxy sets: many
// take whatever is neither letter nor digit in its name for the same.
func ours(name string) bool {
	name = strings.Map(func(r rune) rune {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return '-'
		}
		return r
	}, strings.ToLower(name))
	switch name {
	case "idempotency-key", "x-idempotency-key", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip":
		return true
	}
	return strings.HasPrefix(name, strings.ToLower(headerPrefix))
}

// plain reports whether an event's type, which the signature does not cover, is fit for a
// header. The receiver finds every other one in the body.
func plain(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) < 0
}
