package logs

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"
)

func text(out io.Writer) *slog.Logger { return New(out, slog.LevelDebug, false) }

// TestHandler: the wrapper keeps what a slog.Handler promises.
func TestHandler(t *testing.T) {
	t.Parallel()
	for _, wrap := range []func(*slog.Logger) *slog.Logger{func(l *slog.Logger) *slog.Logger { return l }, Limit} {
		var out *bytes.Buffer
		slogtest.Run(t, func(*testing.T) slog.Handler {
			out = &bytes.Buffer{}
			return wrap(New(out, slog.LevelInfo, true)).Handler()
		}, func(t *testing.T) map[string]any {
			var m map[string]any
			if err := json.Unmarshal(out.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			return m
		})
	}
}

// TestCut: no text is longer than it may be, none is cut within a character, and it is told how
// long it was.
func TestCut(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := text(&out)
	for _, c := range []struct {
		log  *slog.Logger
		text string
		want string
	}{
		{log, strings.Repeat("x", longest), strings.Repeat("x", longest) + "\n"},
		{log, strings.Repeat("x", 900_000), `"` + strings.Repeat("x", longest) + "…(900000 bytes)\"\n"},
		{Limit(log), strings.Repeat("x", foreign), strings.Repeat("x", foreign) + "\n"},
		{Limit(log), strings.Repeat("x", foreign+1), `"` + strings.Repeat("x", foreign) + "…(257 bytes)\"\n"},
		{log, `parse "http://user:p%zz w@host": invalid`, `"parse \"http://***@host\": invalid"` + "\n"},
		{Limit(log), "x" + strings.Repeat("é", foreign), `"x` + strings.Repeat("é", foreign/2-1) + "…(513 bytes)\"\n"},
	} {
		out.Reset()
		c.log.Warn("msg", "n", 1, "text", c.text)
		if !strings.HasSuffix(out.String(), "msg=msg n=1 text="+c.want) {
			t.Errorf("%d bytes: %q", len(c.text), out.String())
		}
	}
	out.Reset()
	log.Warn(strings.Repeat("x", 900_000))
	ErrorLog(log, slog.LevelWarn, "the server says").Print(strings.Repeat("y", 900_000))
	if out.Len() > 3*longest || strings.Count(out.String(), "…(900000 bytes)") != 2 || !strings.Contains(out.String(), `level=WARN msg="the server says" error="yyy`) {
		t.Errorf("%d bytes: %.300s", out.Len(), out.String())
	}
}

// TestFlood: of one kind so many lines are written, of another as many again, and the sum of what
// was written and what was left out is what there was: told by the next line, or after a while.
func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &reader{}
		log := Limit(text(out).With("of", "ours"))
		flooded := func(n int) {
			for range n {
				log.Warn("a login was refused", "remote", "192.0.2.1")
			}
		}
		lines := func() int { return strings.Count(out.String(), "\n") }
		flooded(3000)
		log.Info("a login was refused")
		log.Warn("another")
		if lines() != burst+2 || strings.Contains(out.String(), "left_out") {
			t.Errorf("%d lines: %s", lines(), out.String())
		}
		out.forget()
		time.Sleep(pause)
		flooded(10)
		if lines() != 1 || !strings.Contains(out.String(), "remote=192.0.2.1 left_out=2980") {
			t.Errorf("the next line: %s", out.String())
		}
		out.forget()
		time.Sleep(tellAfter + pause)
		synctest.Wait()
		if lines() != 1 || !strings.HasSuffix(out.String(), "level=WARN msg=\"a login was refused\" of=ours left_out=9\n") {
			t.Errorf("when it is calm: %s", out.String())
		}
		out.forget()
		for range 60 {
			flooded(10)
			time.Sleep(pause)
		}
		if lines() > burst+60 {
			t.Errorf("%d lines in a minute of flood", lines())
		}
		time.Sleep(tellAfter)
		synctest.Wait()
		out.forget()
		time.Sleep(time.Hour)
		flooded(1)
		if lines() != 1 || strings.Contains(out.String(), "left_out") {
			t.Errorf("later: %s", out.String())
		}
	})
}
