package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tiwkeyd/internal/alive"
)

// patient is a transport that does what it can to bring a callback, which may never be sent
// again, to a receiver that is restarting: one that cannot be connected to is tried again, and
// one that closes a connection that had been idle gets the request once more, on a new one.
type patient struct {
	pooled, fresh *http.Transport
	wait          time.Duration
	log           *slog.Logger
}

func newPatient(o Options) *patient {
	pooled := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: o.UpstreamTimeout,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   1024,
		MaxConnsPerHost:       o.UpstreamConns * 3 / 4,
		DisableCompression:    true, // the answer is handed on as it is
		ForceAttemptHTTP2:     true,
	}
	alive.Watch(pooled)
	fresh := pooled.Clone()
	fresh.DisableKeepAlives = true
	fresh.MaxConnsPerHost = o.UpstreamConns / 4 // apart, or idle ones of the pool would keep it waiting
	return &patient{pooled: pooled, fresh: fresh, wait: o.UpstreamWait, log: o.Log}
}

// RoundTrip tries until the wait is over.
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	res, sent, err := p.send(r)
	if err == nil || !notConnected(err) || p.wait <= 0 {
		return res, err
	}
	p.log.Warn("the receiver does not listen; it is tried again", "wait", p.wait.String(), "error", err.Error())
	ctx, cancel := context.WithTimeout(r.Context(), p.wait)
	defer cancel()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 500*time.Millisecond
	res, ended := backoff.Retry(ctx, func() (*http.Response, error) {
		var res *http.Response
		if sent { // and may have come to the receiver: no connection that could break off again
			res, err = p.again(r)
		} else {
			res, sent, err = p.send(r)
		}
		if err != nil && !notConnected(err) {
			return nil, backoff.Permanent(err)
		}
		return res, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if ended != nil {
		return nil, err // tells more than that the time is over
	}
	return res, nil
}

// send sends a request, and once more if that was on a connection which had served before and
// ended without a byte of an answer: most likely the receiver closed it at that very moment.
// If it did not, the request comes to it twice, never more often. The library would repeat it
// for each idle connection, if it were given a way to.
func (p *patient) send(r *http.Request) (res *http.Response, sent bool, err error) {
	var used, answered atomic.Bool
	first := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn:              func(c httptrace.GotConnInfo) { used.Store(c.Reused) },
		GotFirstResponseByte: func() { answered.Store(true) },
	}))
	first.GetBody = nil
	if r.GetBody != nil {
		first.Body, _ = r.GetBody() // from memory: it cannot fail
	}
	res, err = p.pooled.RoundTrip(first)
	alive.Heed(p.pooled, err)
	if err == nil || r.GetBody == nil || !used.Load() || answered.Load() || timeout(err) {
		return res, false, err
	}
	res, err = p.again(r)
	return res, true, err
}

// again sends a request on a connection of its own.
func (p *patient) again(r *http.Request) (*http.Response, error) {
	again := r.WithContext(r.Context())
	again.GetBody = nil
	again.Body, _ = r.GetBody()
	return p.fresh.RoundTrip(again)
}

func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// timeout reports whether an error is that the receiver took too long: it may be about to
// answer.
func timeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
