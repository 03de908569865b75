package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// demoState is one moment of the demo, as its view shows it.
type demoState struct {
	elapsed    time.Duration
	signing    secrets.Key // what Tencent signs with
	keyring    *rotator.Keyring
	verified   map[string]int64 // callbacks by the id of the key that verified them
	callbacks  int64
	refused    int64
	rate       int
	rotations  int
	rolledBack int
	fault      string // the fault at work, in words
	news       []string
	now        time.Time
}

// draw writes the live view, for a terminal: the whole screen, from the top.
func (s demoState) draw(out io.Writer) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\x1b[K\r\n", args...) }
	b.WriteString("\x1b[H")
	line("\x1b[1mtiwkeyd demo\x1b[0m  a TIW server, a webhook receiver and tiwkeyd, all on this machine   %s", s.elapsed.Round(time.Second))
	line("")
	line("  Tencent signs with   \x1b[1m%s\x1b[0m", s.signing)
	accepted := s.accepted()
	for i, a := range accepted {
		label := "                     "
		if i == 0 {
			label = "  receivers accept   "
		}
		line("%s%s", label, a)
	}
	for range 6 - len(accepted) {
		line("")
	}
	line("")
	colour := "\x1b[1;32m"
	if s.refused > 0 {
		colour = "\x1b[1;31m"
	}
	line("  callbacks   %d verified at %d/s   %srefused = %d\x1b[0m", s.callbacks-s.refused, s.rate, colour, s.refused)
	line("  rotations   %d done, %d rolled back", s.rotations, s.rolledBack)
	line("  fault       %s", dash(s.fault))
	line("")
	for _, n := range s.news {
		line("  %s", n)
	}
	b.WriteString("\x1b[J")
	_, _ = io.WriteString(out, b.String())
}

// accepted lists the keys that receivers accept, one line each.
func (s demoState) accepted() []string {
	if s.keyring == nil {
		return nil
	}
	var lines []string
	for _, e := range s.keyring.Keys {
		sign := " "
		if e.Key.Equal(s.signing) {
			sign = "●"
		}
		left := ""
		switch {
		case e.State == rotator.Pending && e.PushAfter.After(s.now):
			left = fmt.Sprintf("set in %.1fs", e.PushAfter.Sub(s.now).Seconds())
		case e.State == rotator.Previous:
			left = fmt.Sprintf("dropped in %.1fs", max(0, e.AcceptUntil.Sub(s.now).Seconds()))
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s %-10s  %-8s  verified %-6d  %s", sign, e.Key, e.State, s.verified[e.Key.ID()], left), " "))
	}
	return lines
}

// plain is the view in one line, for a pipe.
func (s demoState) plain() string {
	var accept []string
	if s.keyring != nil {
		for _, k := range s.keyring.Accept() {
			accept = append(accept, k.String())
		}
	}
	return fmt.Sprintf("signs=%s accepted=%s verified=%d refused=%d rotations=%d rolled_back=%d",
		s.signing, strings.Join(accept, ","), s.callbacks-s.refused, s.refused, s.rotations, s.rolledBack)
}
