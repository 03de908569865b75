package tencent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	app       = 1400000001
	secretID  = "AKIDcanary"
	secretKey = "CANARYsecretkey"
	canaryKey = "CANARYcallbackkeyCANARYcallbackkeyCANARY"
)

func start(t *testing.T, o tiwtest.Options) (*tiwtest.Server, *Client) {
	t.Helper()
	if o.Rate == 0 {
		o.Rate = -1
	}
	s, err := tiwtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddCredential(secretID, secretKey, "")
	s.AddApp(app)
	return s, client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
}

func client(t *testing.T, url string, credentials Credentials) *Client {
	t.Helper()
	c, err := New(Options{Endpoint: url, Credentials: credentials, Rate: 10000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func target(s secrets.Service) secrets.Target { return secrets.Target{SdkAppID: app, Service: s} }

// check wants an error of a class and code, and that it shows no secret.
func check(t *testing.T, name string, err error, class rotator.Class, code string) *rotator.APIError {
	t.Helper()
	var api *rotator.APIError
	if !errors.As(err, &api) {
		t.Errorf("%s: %v is no APIError", name, err)
		return &rotator.APIError{}
	}
	if api.Class != class || api.Code != code {
		t.Errorf("%s: %s %s, want %s %s (%v)", name, api.Class, api.Code, class, code, err)
	}
	if api.Action == "" || api.Meaning == "" || api.Advice == "" {
		t.Errorf("%s: %+v does not say all", name, api)
	}
	if s := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(s, "CANARY") {
		t.Errorf("%s: the error shows a secret: %s", name, s)
	}
	return api
}

func TestAllServices(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	for _, service := range secrets.Services() {
		tg := target(service)
		if service == secrets.PPTCheck { // at the mainland site only
			_, err := c.KeyInForce(t.Context(), tg)
			check(t, "at the other site", err, refused, "UnsupportedRegion")
			c.region = MainlandRegion
		}
		if k, err := c.KeyInForce(t.Context(), tg); err != nil || !k.IsZero() {
			t.Errorf("%s: before: %v, %v", service, k, err)
		}
		key := secrets.NewKey("id", canaryKey+string(service[:3]))
		id, err := c.SetKey(t.Context(), tg, key)
		if err != nil || id == "" {
			t.Errorf("%s: set: %q, %v", service, id, err)
		}
		if got := s.KeyInForce(app, string(service)); got != key.Reveal() {
			t.Errorf("%s: the server has another key", service)
		}
		if k, err := c.KeyInForce(t.Context(), tg); err != nil || !k.Equal(key) || k.ID() != "" {
			t.Errorf("%s: after: %v, %v", service, k, err)
		}
	}
	if n := s.Calls("SetTranscodeCallbackKey"); n != 1 {
		t.Errorf("%d calls of SetTranscodeCallbackKey", n)
	}
}

// TestCodes has every code of the API page, and what is like them, answered by the server.
func TestCodes(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	key := secrets.NewKey("id", canaryKey)
	for code, class := range map[string]rotator.Class{
		"AuthFailure": refused, "AuthFailure.InvalidAuthorization": refused, "AuthFailure.InvalidSecretId": refused, "AuthFailure.MFAFailure": refused,
		"AuthFailure.SecretIdNotFound": refused, "AuthFailure.SignatureFailure": refused, "AuthFailure.TokenFailure": refused, "AuthFailure.UnauthorizedOperation": refused,
		"AuthFailure.SignatureExpire": forNow,
		"InvalidParameter":            refused, "InvalidParameter.BodyParameterTypeUnmatched": refused, "InvalidParameterValue": refused, "InvalidParameterValue.X": refused,
		"ResourceUnavailable.NotRegistered": refused, "ResourceUnavailable.ServiceExpired": refused, "ResourceUnavailable": doubt, "ResourceUnavailable.Other": doubt,
		"UnauthorizedOperation": refused, "UnauthorizedOperation.SdkAppId": refused, "UnauthorizedOperation.CamNoAuth": refused,
		"MissingParameter": refused, "UnknownParameter": refused, "ResourceNotFound": refused, "ResourceNotFound.X": refused,
		"UnsupportedOperation": refused, "UnsupportedProtocol": refused, "UnsupportedRegion": refused, "InvalidAction": refused, "NoSuchVersion": refused,
		"NoSuchProduct": refused, "ActionOffline": refused, "IpInBlacklist": refused, "IpNotInWhitelist": refused, "RequestSizeLimitExceeded": refused,
		"RequestLimitExceeded": forNow, "RequestLimitExceeded.UinLimitExceeded": forNow, "RequestLimitExceeded.GlobalRegionUinLimitExceeded": forNow,
		"LimitExceeded": forNow, "ResourceInsufficient": forNow, "ResourceInUse": forNow, "ResourceInUse.X": forNow,
		"InternalError": doubt, "InternalError.Db": doubt, "FailedOperation": doubt, "ServiceUnavailable": doubt, "DryRunOperation": doubt, "InvalidRequest": doubt,
		"ResponseSizeLimitExceeded": doubt, "SomethingNew": doubt, "AuthFailureX": doubt, "InvalidParameterX": doubt,
	} {
		s.Plan("Set", app, tiwtest.Refuse(code))
		_, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), key)
		api := check(t, code, err, class, code)
		if api.RequestID == "" || api.Message == "" {
			t.Errorf("%s: RequestId %q, message %q", code, api.RequestID, api.Message)
		}
		forbidden := code == "AuthFailure.UnauthorizedOperation" || code == "UnauthorizedOperation" || code == "UnauthorizedOperation.CamNoAuth"
		if api.Forbidden != forbidden {
			t.Errorf("%s: forbidden is %v", code, api.Forbidden)
		}
	}
	if s.KeyInForce(app, "whiteboard-push") != "" {
		t.Error("a refused call changed the key")
	}
	unknownApp := secrets.Target{SdkAppID: 5, Service: secrets.WhiteboardPush}
	_, err := c.SetKey(t.Context(), unknownApp, key)
	check(t, "unknown application", err, refused, "UnauthorizedOperation.SdkAppId")
}

// TestFaults has every other way to go wrong: whatever it is, the class says doubtful.
func TestFaults(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	tg := target(secrets.WhiteboardPush)
	for _, f := range []struct {
		fault   tiwtest.Fault
		code    string
		applied bool
	}{
		{tiwtest.Drop(), "ClientError.NetworkError", false},
		{tiwtest.ApplyThenDrop(), "ClientError.NetworkError", true},
		{tiwtest.Garbage(), "ClientError.ParseJsonError", true},
		{tiwtest.WrongShape(), codeUnexpected, true},
		{tiwtest.HTTPError(), "ClientError.NetworkError", false},
		{tiwtest.ApplyThenError(), "InternalError", true},
	} {
		s.SetKey(app, "whiteboard-push", "old")
		s.Plan("Set", 0, f.fault)
		key := secrets.NewKey("id", canaryKey)
		_, err := c.SetKey(t.Context(), tg, key)
		check(t, f.fault.String(), err, doubt, f.code)
		if applied := s.KeyInForce(app, "whiteboard-push") == canaryKey; applied != f.applied {
			t.Errorf("%s: applied is %v", f.fault, applied)
		}
		s.SetKey(app, "whiteboard-push", canaryKey)
		s.Plan("Describe", 0, f.fault)
		_, err = c.KeyInForce(t.Context(), tg) // its answers have the key in the clear
		check(t, "read back: "+f.fault.String(), err, doubt, f.code)
	}
	for _, f := range []tiwtest.Fault{tiwtest.SlowLoris(), tiwtest.Delay(time.Hour)} {
		s.Plan("Set", 0, f)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := c.SetKey(ctx, tg, secrets.NewKey("id", canaryKey))
		cancel()
		var api *rotator.APIError
		if !errors.As(err, &api) || api.Class != doubt || !strings.HasPrefix(api.Code, "ClientError.") || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", f, err)
		}
	}
	applied := make(chan tiwtest.Applied, 1)
	s.OnApply(func(a tiwtest.Applied) { applied <- a })
	s.Plan("Set", 0, tiwtest.DropThenApply(50*time.Millisecond))
	_, err := c.SetKey(t.Context(), tg, secrets.NewKey("id", "late"))
	check(t, "late", err, doubt, "ClientError.NetworkError")
	if a := <-applied; !a.Late || a.Key != "late" {
		t.Errorf("%+v", a.Late)
	}
	if s.Planned() != 0 {
		t.Errorf("%d faults were not met", s.Planned())
	}
}

func TestNeverSent(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	tg := target(secrets.WhiteboardPush)
	s.SetKey(app, "whiteboard-push", "old")
	for name, k := range map[string]secrets.Key{"empty": {}, "too long": secrets.NewKey("id", strings.Repeat("CANARY", 11))} {
		_, err := c.SetKey(t.Context(), tg, k)
		check(t, name, err, forNow, codeNotSent)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.SetKey(cancelled, tg, secrets.NewKey("id", canaryKey))
	check(t, "cancelled", err, forNow, codeNotSent)
	_, err = c.SetKey(t.Context(), secrets.Target{SdkAppID: app, Service: "odd"}, secrets.NewKey("id", canaryKey))
	check(t, "unknown service", err, forNow, codeNotSent)
	none := client(t, s.URL, &source{name: "nowhere", fetch: func(context.Context) (Credential, error) { return Credential{}, errors.New("nobody home") }})
	_, err = none.SetKey(t.Context(), tg, secrets.NewKey("id", canaryKey))
	check(t, "no credential", err, forNow, codeNotSent)
	if s.Calls("SetWhiteboardPushCallbackKey") != 0 || s.KeyInForce(app, "whiteboard-push") != "old" {
		t.Error("something was sent")
	}
}

// TestLateByEitherClock has the process stopped between signing and sending: the context's timer
// has not fired, but a clock says that the deadline has passed. That the wall clock was set back
// meanwhile does not make it earlier.
func TestLateByEitherClock(t *testing.T) {
	t.Parallel()
	s, _ := start(t, tiwtest.Options{})
	for name, now := range map[string]func() time.Time{
		"wall clock":      func() time.Time { return time.Now().Round(0).Add(time.Minute) },
		"monotonic clock": func() time.Time { return laterByTheMonotonicClock(time.Now(), time.Minute) },
	} {
		var late atomic.Bool
		c, err := New(Options{Endpoint: s.URL, Credentials: Static(NewCredential(secretID, secretKey, "")), Now: func() time.Time {
			if late.Load() {
				return now()
			}
			return time.Now()
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		sets := s.Calls("SetWhiteboardPushCallbackKey")
		late.Store(true)
		_, err = c.SetKey(ctx, target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
		check(t, name, err, forNow, codeNotSent)
		if s.Calls("SetWhiteboardPushCallbackKey") != sets {
			t.Errorf("%s: it was sent", name)
		}
		late.Store(false)
		if _, err := c.SetKey(ctx, target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey)); err != nil {
			t.Errorf("%s, in time: %v", name, err)
		}
	}
}

// laterByTheMonotonicClock is what time.Now gives after the wall clock was set back by d and d
// has passed. A time.Time is its wall clock, its monotonic one, and a place.
func laterByTheMonotonicClock(now time.Time, d time.Duration) time.Time {
	(*[2]int64)(unsafe.Pointer(&now))[1] += int64(d)
	return now
}

// TestRedirect has the endpoint send the client elsewhere: the key must not go there.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.RedirectHandler(other.URL, status))
		c := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
		_, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
		check(t, fmt.Sprint(status), err, doubt, "ClientError.NetworkError")
		c.Close()
		s.Close()
	}
	if elsewhere.Load() != 0 {
		t.Error("the request went elsewhere")
	}
}

// TestEndlessAnswer must not fill the memory.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for block := strings.Repeat("x", 1<<20); ; sent.Add(1) {
			if _, err := w.Write([]byte(block)); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	c := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
	_, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush))
	check(t, "endless", err, doubt, "ClientError.ParseJsonError")
	if len(err.Error()) > 1000 {
		t.Errorf("the error has %d characters", len(err.Error()))
	}
}

// TestRateLimit keeps the sliding second of the real API, with a server that counts it.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	s, err := tiwtest.Start(tiwtest.Options{Rate: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.AddCredential(secretID, secretKey, "")
	s.AddApp(app)
	fast := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
	var limited int
	for range 6 {
		_, err := fast.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
		if err != nil {
			check(t, "too fast", err, forNow, "RequestLimitExceeded")
			limited++
		}
	}
	if set, _ := APIs(secrets.WhiteboardPush); limited == 0 || fast.Limits()[set].Exceeded != int64(limited) {
		t.Errorf("the server refused %d, the limiter knows of %d", limited, fast.Limits()[set].Exceeded)
	}
	// Another API has a limit of its own.
	if _, err := fast.KeyInForce(t.Context(), target(secrets.WhiteboardPush)); err != nil {
		t.Errorf("another API: %v", err)
	}
	c, err := New(Options{Endpoint: s.URL, Rate: 3})
	if err != nil {
		t.Fatal(err)
	}
	for api, l := range c.Limits() {
		if l.Allowed != 3*margin*startShare {
			t.Errorf("%s: it begins with %v/s", api, l.Allowed)
		}
	}
	if len(c.limits) != 2*len(secrets.Services()) {
		t.Errorf("%d limits", len(c.limits))
	}
}

// TestErrorWithoutCode is no success, though the SDK takes it for one.
func TestErrorWithoutCode(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"Response":{"Error":{"Code":"","Message":"odd"},"RequestId":"r-9"}}`))
	}))
	defer s.Close()
	c := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
	_, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
	if api := check(t, "no code", err, doubt, codeUnexpected); api.RequestID != "r-9" {
		t.Errorf("%v", err)
	}
}
