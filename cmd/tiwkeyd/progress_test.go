package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestNarrowTerminal: the live line never wraps, however long what is going on is, and goes on to count down.
func TestNarrowTerminal(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, width := range []int{0, 5, 40, 80, 200} {
		var out bytes.Buffer
		p := &progress{out: &out, live: true, width: func() int { return width }, now: func() time.Time { return now },
			line: "1400000001/whiteboard-push  waiting: Tencent did not tell which key is in force, … and so on", until: now.Add(12 * time.Second)}
		p.redraw()
		line := strings.TrimPrefix(out.String(), "\r\x1b[K")
		if n := utf8.RuneCountInString(line); width >= 40 && n >= width || !strings.HasSuffix(line, "  12s left") {
			t.Errorf("%d of %d columns: %q", n, width, line)
		}
		if whole := strings.HasPrefix(line, p.line); whole != (width == 0 || width == 200 || width == 5) {
			t.Errorf("%d columns: %q", width, line)
		}
	}
}
