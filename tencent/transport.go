package tencent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// errTooLate says that a request was ready only after its deadline and was not sent.
var errTooLate = errors.New("the deadline had passed before the request was sent; nothing was sent")

// maxAnswer bounds what is read of an answer, in bytes; the real ones have a few hundred.
const maxAnswer = 64 << 10

// transport is the last gate before the network.
type transport struct {
	base *http.Transport
	now  func() time.Time
}

func newTransport(now func() time.Time) *transport {
	if now == nil {
		now = time.Now
	}
	return &transport{now: now, base: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: callTimeout / 2}).DialContext,
		TLSHandshakeTimeout:   callTimeout / 2,
		ResponseHeaderTimeout: callTimeout,
		MaxIdleConnsPerHost:   16, // what is under way at the limit of both APIs, where an answer takes 400 ms
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}}
}

// RoundTrip sends a request unless its deadline has passed, by the wall clock or by the
// monotonic one. The context's own timer is not enough: it stands still while a machine is
// suspended, and a process that was stopped may send before the timer is noticed; the wall
// clock alone may have been set back. The request is signed by then, so what gets through
// carries a timestamp from before the deadline.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if deadline, ok := r.Context().Deadline(); ok {
		if now := t.now(); !now.Before(deadline) || !now.Round(0).Before(deadline.Round(0)) {
			return nil, errTooLate
		}
	}
	res, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		// The API answers 200 whatever happens: this is somebody else's page. A redirect,
		// if followed, would send the key wherever it points.
		_ = res.Body.Close()
		return nil, fmt.Errorf("the endpoint answered with HTTP status %d, which is not an answer of the API", res.StatusCode)
	}
	res.Body = limited{io.LimitReader(res.Body, maxAnswer), res.Body}
	// The SDK would hand an event stream to a goroutine of its own.
	res.Header.Set("Content-Type", "application/json")
	return res, nil
}

type limited struct {
	io.Reader
	io.Closer
}
