package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"tiwkeyd/internal/printable"
	"tiwkeyd/rotator"
)

// progress tells a person what a rotation is doing: a terminal gets one live line that
// counts waits down, a pipe gets each new state as a line of its own.
type progress struct {
	out   io.Writer
	live  bool
	width func() int // of the terminal, in characters; 0: not known
	now   func() time.Time

	mu    sync.Mutex
	line  string    // what is going on
	until time.Time // and until when, if it is a wait
	last  string    // the last plain line, so that none is said twice
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, live: isTerminal(out), width: func() int { return widthOf(out) }, now: time.Now}
}

func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// isTerminal reports whether a person watches w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// event is the engine's Options.Events.
func (p *progress) event(ev rotator.Event) {
	text, until := narrate(ev)
	if text == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text = ev.Target.String() + "  " + printable.Text(text)
	if p.live && ev.Kind == rotator.Idle {
		p.line, p.until = text, until
		p.redraw()
		return
	}
	if text == p.last {
		return
	}
	p.last = text
	p.clear()
	p.line = ""
	if !until.IsZero() {
		text += fmt.Sprintf(" (until %s)", until.Format(time.TimeOnly))
	}
	fmt.Fprintln(p.out, text)
}

// run keeps the live line counting until ctx ends.
func (p *progress) run(ctx context.Context) {
	if !p.live {
		return
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			p.redraw()
			p.mu.Unlock()
		case <-ctx.Done():
			p.mu.Lock()
			p.clear()
			p.mu.Unlock()
			return
		}
	}
}

func (p *progress) redraw() {
	if p.line == "" {
		return
	}
	left := ""
	if d := p.until.Sub(p.now()).Round(time.Second); d > 0 {
		left = fmt.Sprintf("  %s left", d)
	}
	line := []rune(p.line)
	if most := p.width() - len(left) - 1; most > 0 && len(line) > most { // a line that wraps would be drawn below itself
		line = append(line[:most-1:most-1], '…')
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s%s", string(line), left)
}

func (p *progress) clear() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// narrate puts an event into words; "" for those that a person need not see.
func narrate(ev rotator.Event) (string, time.Time) {
	switch ev.Kind {
	case rotator.Error:
		text := fmt.Sprintf("%s failed: %v", ev.Step, ev.Err)
		var api *rotator.APIError
		if errors.As(ev.Err, &api) && api.Class != rotator.Refused {
			text += "; going on"
		}
		return text, time.Time{}
	case rotator.Idle:
		if ev.Hold == rotator.Rest {
			return "", time.Time{}
		}
		return "waiting: " + ev.Why, ev.Until
	case rotator.Begin:
		return "", time.Time{}
	}
	switch ev.Step {
	case rotator.StepAdopt:
		if ev.Key.IsZero() {
			return "no key is set at Tencent yet: callbacks are unsigned until the first one is in force", time.Time{}
		}
		return fmt.Sprintf("key %s: taken over as it stands at Tencent", ev.Key), time.Time{}
	case rotator.StepStage:
		return fmt.Sprintf("key %s: written as pending (%s), receivers come to accept it", ev.Key, ev.Reason), time.Time{}
	case rotator.StepHasten:
		return fmt.Sprintf("key %s: no more waiting, the old key is to be revoked", ev.Key), time.Time{}
	case rotator.StepClaim:
		return fmt.Sprintf("key %s: its rotation is taken over from a replica that went away", ev.Key), time.Time{}
	case rotator.StepPush:
		return fmt.Sprintf("key %s: set at Tencent", ev.Key), time.Time{}
	case rotator.StepReassert:
		return fmt.Sprintf("key %s: set at Tencent again", ev.Key), time.Time{}
	case rotator.StepCommit:
		return fmt.Sprintf("key %s: in force, and current", ev.Key), time.Time{}
	case rotator.StepRollback:
		return "rolled back: the key stays as it was", time.Time{}
	case rotator.StepRetire:
		return "older keys retired", time.Time{}
	case rotator.StepRestore:
		return "what receivers read was changed by hand, and is written anew", time.Time{}
	case rotator.StepRaise:
		return "its receivers get as long as TIWKEYD_PROPAGATION says, and the keyring says so now", time.Time{}
	}
	return "", time.Time{}
}
