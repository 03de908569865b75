//go:build torture

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// reloadEvery is how often some daemon is given other settings and told to reload: twenty minutes of
// Tencent's, in the time scale of these tests.
const reloadEvery = 20 * time.Second

// reloadWithOthers is that, in the summary.
const reloadWithOthers = "daemon given other settings, and told to reload"

// settings are drawn anew at each reload, so that daemons differ in all of them. Whatever propagation
// a daemon is told of, or none, or a shorter one, receivers get what the keyring says: no daemon
// may go by less. The first one is never told of less than receivers need, and never of none: a keyring
// that was made anew by another one must learn it from somebody.
func (w *torture) settings(i int) string {
	draw := func(from ...string) string { return from[w.random.IntN(len(from))] }
	between := func(least, most int, unit string) string {
		return fmt.Sprintf("%d%s", least+w.random.IntN(most-least+1), unit)
	}
	told := draw(tortured.String(), tortured.String(), "7s")
	if i > 0 {
		told = draw(told, "", "1s")
	}
	lines := []string{
		"TIWKEYD_TARGETS=" + w.targets(), "TIWKEYD_SCHEDULE=@every " + between(14, 30, "s"),
		"TIWKEYD_GRACE=" + between(10, 30, "m"), "TIWKEYD_RECONCILE=" + between(10, 300, "s"), "TIWKEYD_ATTEMPT_LIMIT=" + between(5, 60, "m"),
		"TIWKEYD_KEY_LENGTH=" + between(32, 64, ""), "TIWKEYD_RATE=" + between(3, 20, ""),
		// Either is right: nobody sets a foreign key, and a key of ours that went is not adopted again.
		"TIWKEYD_ON_DRIFT=" + draw("reassert", "adopt"),
	}
	if told != "" {
		lines = append(lines, "TIWKEYD_PROPAGATION="+told)
	} else { // the default of six minutes, sixty times as fast; a schedule must leave room for the six
		lines[1] = "TIWKEYD_SCHEDULE=@every " + between(10, 20, "m")
		lines = append(lines, "TEST_PROPAGATION="+tortured.String())
	}
	return strings.Join(lines, "\n") + "\n"
}

// targets are those that daemons serve at present.
func (w *torture) targets() string {
	if w.remaking {
		return w.app.target.String()
	}
	return w.app.target.String() + "," + w.other.target.String()
}

// first are the settings that a daemon starts with.
func (w *torture) first() string {
	return fmt.Sprintf("TIWKEYD_TARGETS=%s\nTIWKEYD_SCHEDULE=@every 20s\nTIWKEYD_GRACE=10m\nTIWKEYD_RECONCILE=1m\nTIWKEYD_PROPAGATION=%s\n", w.targets(), tortured)
}

// give has a daemon find settings at its next reload, or start.
func (w *torture) give(i int, settings string) {
	d := w.daemons[i]
	next := d.settings + ".next"
	if err := os.WriteFile(next, []byte(settings), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(next, d.settings); err != nil {
		w.t.Fatal(err)
	}
}

// reload gives other settings to some daemon. One that is away has them when it starts.
func (w *torture) reload() {
	i := w.random.IntN(len(w.daemons))
	w.give(i, w.settings(i))
	d := w.daemons[i]
	if d.exited() {
		return
	}
	now := time.Now()
	d.signal(syscall.SIGHUP)
	w.befell[reloadWithOthers]++
	w.picture.mishap(reloadWithOthers, "settings "+d.name, now)(now)
}

// launch starts a daemon with the settings that it was given last.
func (w *torture) launch(d *victim) {
	d.process = w.start([]string{"run", "--env-file", d.settings}, d.env...)
}
