package page

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// stamp is a time as a page says it, and as a machine reads it.
type stamp struct{ Clock, Machine, Ago string }

func stampOf(t, now time.Time) stamp {
	return stamp{t.UTC().Format("2006-01-02 15:04:05 UTC"), rfc3339(t), relative(t, now)}
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// relative is a time as one says it.
func relative(t, now time.Time) string {
	switch d := t.Sub(now); {
	case d >= time.Second:
		return "in " + span(d)
	case d > -time.Second:
		return "now"
	default:
		return span(-d) + " ago"
	}
}

// span is a length of time in its two largest units.
func span(d time.Duration) string {
	d = max(0, d)
	for _, u := range []struct {
		of, part   time.Duration
		name, less string
	}{{24 * time.Hour, time.Hour, "d", "h"}, {time.Hour, time.Minute, "h", "min"}, {time.Minute, time.Second, "min", "s"}} {
		if d < u.of {
			continue
		}
		if rest := d % u.of / u.part; rest > 0 {
			return fmt.Sprintf("%d %s %d %s", d/u.of, u.name, rest, u.less)
		}
		return fmt.Sprintf("%d %s", d/u.of, u.name)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// plain is somebody else's text on one line, without characters that are not seen but change
// what is: that have what comes after them read from right to left, for one.
func plain(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(c rune) rune {
		if unicode.Is(unicode.Cf, c) || unicode.IsControl(c) && !unicode.IsSpace(c) {
			return -1
		}
		return c
	}, s)), " ")
}
