//go:build receivers

package receivers_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAnswers sends every callback there is an opinion on, with and without its length told.
func TestAnswers(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, pending))
		for _, w := range wants() {
			for _, chunked := range []bool{false, true} {
				code, answer := s.post(t, w.body, chunked)
				if !slices.Contains(w.verdict, code) {
					t.Errorf("%s (chunked: %v): answered %d, where it must be one of %v", short(w.name), chunked, code, w.verdict)
				}
				if code == http.StatusOK && answer != `{"error_code":0}` {
					t.Errorf("%s (chunked: %v): answered with %q", short(w.name), chunked, answer)
				}
			}
		}
		s.accepts(t, current)
	})
}

func short(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// TestMethods shows that a genuine body counts in a POST only.
func TestMethods(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, pending))
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			if code, _ := s.send(t, method, bytes.NewReader(callback(current))); code == http.StatusOK {
				t.Errorf("%s with a genuine callback is answered 200", method)
			}
		}
		if code, _ := s.send(t, http.MethodGet, nil); code == http.StatusOK {
			t.Error("GET is answered 200")
		}
		s.accepts(t, current)
	})
}

// TestNginxHandsOn shows that the application behind nginx gets the genuine callbacks as they
// were sent, and no others.
func TestNginxHandsOn(t *testing.T) {
	for _, r := range recipes() {
		if r.file != "nginx.conf" {
			continue
		}
		need(t, r.install, r.needs...)
		s := serve(t, r, keyring(t, previous, current, pending))
		var passed []string
		for _, w := range wants() {
			for _, chunked := range []bool{false, true} {
				if code, _ := s.post(t, w.body, chunked); code == http.StatusOK {
					passed = append(passed, "POST /any/path?q=1\n"+string(w.body))
				}
			}
		}
		if got := s.application.requests(); !slices.Equal(got, passed) {
			t.Errorf("the application got %d requests, where %d were answered 200; or they were changed", len(got), len(passed))
		}
		if !slices.ContainsFunc(passed, func(s string) bool { return strings.Contains(s, "WhiteboardPushStopped") }) {
			t.Error("nothing was handed on")
		}
	}
}
