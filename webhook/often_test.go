package webhook

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFloodIsCounted: of many refusals some are told of, and of the others their number: by the
// next line, or by one that comes when it is calm. What comes from outside is cut.
func TestFloodIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		out := &lockedWriter{w: &log}
		f := &front{Handler: Middleware(Options{Keys: Static{testKeys}, Log: slog.New(slog.NewTextHandler(out, nil))})(http.NotFoundHandler())}
		flood := func(n int) {
			for range n {
				f.post("{")
			}
		}
		taken := func() string {
			synctest.Wait()
			out.mu.Lock()
			defer out.mu.Unlock()
			defer log.Reset()
			return log.String()
		}
		flood(1000)
		if text := taken(); strings.Count(text, "\n") != 20 || strings.Contains(text, "left_out") {
			t.Errorf("at first: %s", text)
		}
		time.Sleep(200 * time.Millisecond)
		flood(50)
		if text := taken(); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, " left_out=980\n") || !strings.Contains(text, "detail=") {
			t.Errorf("the next line: %s", text)
		}
		for range 100 {
			time.Sleep(200 * time.Millisecond)
			flood(3)
		}
		if n := strings.Count(taken(), "\n"); n > 101 {
			t.Errorf("%d lines in twenty seconds of flood", n)
		}
		flood(49)
		time.Sleep(time.Minute)
		if text := taken(); !strings.HasSuffix(text, "level=WARN msg=\"callback not handed on\" reason=malformed left_out=51\n") {
			t.Errorf("when it is calm: %s", text)
		}
		flood(1)
		if text := taken(); strings.Count(text, "\n") != 1 || strings.Contains(text, "left_out") {
			t.Errorf("later: %s", text)
		}
	})
	for text, want := range map[string]string{
		strings.Repeat("x", 256):       strings.Repeat("x", 256),
		strings.Repeat("x", 900_000):   strings.Repeat("x", 256) + "…(900000 bytes)",
		"x" + strings.Repeat("é", 128): "x" + strings.Repeat("é", 127) + "…(257 bytes)",
	} {
		if got := short(text); got != want {
			t.Errorf("%q", got)
		}
	}
}
