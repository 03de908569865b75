package tencent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"tiwkeyd/internal/alive"
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
	base := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: callTimeout / 2}).DialContext,
		TLSHandshakeTimeout:   callTimeout / 2,
		ResponseHeaderTimeout: callTimeout,
		MaxIdleConnsPerHost:   16, // what is under way at the limit of both APIs, where an answer takes 400 ms
		ForceAttemptHTTP2:     true,
	}
	alive.Watch(base)
	return &transport{now: now, base: base}
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
	alive.Heed(t.base, err)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		res.Body = limited{io.LimitReader(res.Body, maxAnswer), res.Body}
	} else if err := refusal(res); err != nil {
		return nil, err
	}
	// The SDK would hand an event stream to a goroutine of its own.
	res.Header.Set("Content-Type", "application/json")
	return res, nil
}

// refusal has an error of the API that came with another status be one that came with 200, as all should, so that its
// code and RequestId are kept. Anything else is somebody else's page. A redirect, if followed, would send the key
// wherever it points.
func refusal(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	_ = res.Body.Close()
	var said struct {
		Response struct {
			Error     struct{ Code string }
			RequestID string `json:"RequestId"`
		}
	}
	if err != nil || json.Unmarshal(body, &said) != nil || said.Response.Error.Code == "" || said.Response.RequestID == "" {
		return fmt.Errorf("the endpoint answered with HTTP status %d, which is not an answer of the API", res.StatusCode)
	}
	res.StatusCode, res.Status, res.ContentLength = http.StatusOK, "200 OK", int64(len(body))
	res.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

type limited struct {
	io.Reader
	io.Closer
}
