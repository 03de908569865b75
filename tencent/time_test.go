package tencent

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// TestServerTime takes the time from whatever answers, without a credential and without
// following where it is sent.
func TestServerTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	s, c := start(t, tiwtest.Options{Now: func() time.Time { return at }})
	if got, err := c.ServerTime(t.Context()); err != nil || !got.Equal(at) {
		t.Errorf("%s, %v", got, err)
	}
	for _, api := range []string{"SetWhiteboardPushCallbackKey", "DescribeWhiteboardPushCallback"} {
		if s.Calls(api) != 0 {
			t.Errorf("it called %s", api)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"no date": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			http.Redirect(w, r, s.URL, http.StatusFound)
		},
	} {
		web := httptest.NewServer(answer)
		c := client(t, web.URL, Static(Credential{}))
		if got, err := c.ServerTime(t.Context()); err != nil || !got.IsZero() {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		c.Close()
		web.Close()
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ServerTime(over); err == nil || !strings.Contains(err.Error(), "reach "+s.URL) {
		t.Errorf("given up: %v", err)
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	for _, s := range secrets.Services() {
		if set, describe := Actions(s); !strings.HasPrefix(set, "Set") || !strings.HasPrefix(describe, "Describe") {
			t.Errorf("%s: %q and %q", s, set, describe)
		}
	}
}
