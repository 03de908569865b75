package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// replica is a daemon on a machine with a clock of its own.
type replica struct {
	w      *World
	n      int
	name   string
	config config
	engine *rotator.Engine
	log    *slog.Logger
	next   time.Time
	busy   bool
	skew   time.Duration     // of its clock, within what replicas may disagree by
	jump   time.Duration     // and what it is wrong by for a while
	still  bool              // it is paused with all its clocks, and nobody sets them
	stood  time.Duration     // for how long its steady clock stood still
	node   *rotator.Snapshot // what its node of Vault tells, if that is no longer the leader
	told   rotator.Snapshot  // what it read or wrote last
	toldAt time.Time
	epoch  int              // of its last write, and
	wrote  *rotator.Keyring // what that was; nil: nothing since a key was sent

	stopping bool           // it is to end its visit after the step in hand
	asked    rotator.Reason // what a mutant holds back
}

// crash is what a killed replica panics with.
type crash struct{}

// now is the world's time as this replica's machine tells it.
func (r *replica) now() time.Time { return r.w.now.Add(r.skew + r.jump) }

// restart gives it an engine that remembers nothing.
func (r *replica) restart() {
	if !r.w.quiet { // without a log a world costs half as much
		r.log = slog.New(slog.NewTextHandler(reader{r.w}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r.config, r.told, r.stopping = r.w.configured(r.n), rotator.Snapshot{}, false
	r.engine = r.newEngine()
}

func (r *replica) newEngine() *rotator.Engine {
	e, err := rotator.New(r.options())
	if err != nil {
		panic(err)
	}
	return e
}

// ask has somebody ask for a new key.
func (r *replica) ask(reason rotator.Reason) {
	if r.asked = reason; !r.w.Mutant.holdsBack(r.w) {
		r.asked = ""
		r.engine.Ask(reason, r.w.target)
	}
	if !r.busy && r.next.Before(never) {
		r.next = r.w.now
	}
}

// stopper is a context that ends when a replica is to end its visit.
type stopper struct {
	context.Context
	r *replica
}

func (s stopper) Err() error {
	if s.r.stopping {
		return context.Canceled
	}
	return nil
}

func (r *replica) tell(ev rotator.Event) {
	if ev.Kind == rotator.Begin && r.w.draw(3) == 0 {
		r.interlude() // between the decision and what is done about it
	}
	if !r.w.quiet {
		fmt.Fprintf(reader{r.w}, "%+v", ev)
	}
	switch {
	case ev.Kind == rotator.Idle:
		return
	case ev.Err != nil:
		r.w.say("%s %s %s: %v", r.name, ev.Step, ev.Kind, ev.Err)
	default:
		r.w.say("%s %s %s (key %s)", r.name, ev.Step, ev.Kind, ev.Key)
	}
	if ev.Kind == rotator.Done && ev.Step == rotator.StepCommit {
		r.w.commits++
	}
	if ev.Kind == rotator.Done && ev.Step == rotator.StepStage {
		r.w.stages++
	}
	if ev.Kind == rotator.Done && ev.Step == rotator.StepRollback {
		r.w.rollbacks++
	}
}

// reader reads what replicas log and tell. I6: no key shows in it.
type reader struct{ w *World }

func (l reader) Write(line []byte) (int, error) {
	l.w.read++
	for _, key := range l.w.known {
		if bytes.Contains(line, []byte(key.Reveal())) {
			l.w.fail("I6: %s shows in the log", key)
		}
	}
	return len(line), nil
}

// know remembers keys that must not show.
func (w *World) know(keys ...secrets.Key) {
	for _, k := range keys {
		if !w.quiet && !k.IsZero() && !slices.ContainsFunc(w.known, k.Equal) {
			w.known = append(w.known, k)
		}
	}
}

// visit runs one visit; a crash replaces the engine by a new one.
func (r *replica) visit() {
	if r.busy {
		return
	}
	if r.asked != "" {
		r.ask(r.asked)
	}
	r.busy = true
	defer func() {
		r.busy = false
		if p := recover(); p != nil {
			if _, ok := p.(crash); !ok {
				panic(p)
			}
			r.w.say("%s is killed", r.name)
			r.restart()
			r.next = r.w.now.Add(time.Duration(r.w.draw(300)) * time.Second)
		}
		switch {
		case r.w.now.Before(r.w.anew):
			r.stopping = false
			r.leave()
		case r.stopping:
			r.reload()
		}
	}()
	next := r.engine.Visit(stopper{background, r}, r.w.target)
	r.next = next.Add(-r.skew - r.jump)
	if least := r.w.now.Add(100 * time.Millisecond); r.next.Before(least) {
		r.next = least
	}
}

// interlude happens inside a call, at every await: time passes, others run, the caller may die.
func (r *replica) interlude() {
	w := r.w
	if w.mishap(100) {
		r.turnClock()
	}
	switch {
	case w.calm:
	case w.mishap(60):
		panic(crash{})
	case w.has(Reload) && w.mishap(100):
		r.reload()
	case w.depth < 4 && w.mishap(25): // a pause, of seconds to hours
		w.depth++
		pause := time.Duration(w.draw(400)) * time.Second
		if w.draw(4) == 0 {
			pause *= 40
		}
		began, suspended := w.now, w.draw(2) == 0
		w.say("%s is paused for %s (with its clock: %t)", r.name, pause, suspended)
		r.still = suspended
		w.Run(pause)
		r.still = false
		w.depth--
		if suspended {
			r.stood += w.now.Sub(began)
		}
		w.say("%s goes on", r.name)
	default:
		w.advance(time.Duration(w.draw(1500)) * time.Millisecond)
	}
}

// turnClock makes its clock wrong, or right again: wrong by so little that clocks still agree
// well enough, or by so much that Tencent refuses. The daemon finds out at its next wake-up.
func (r *replica) turnClock() {
	w := r.w
	switch {
	case r.still:
		return
	case r.jump != 0:
		r.jump = 0
	case w.draw(2) == 0:
		r.jump = time.Duration(int(w.draw(61))-30) * time.Second
	default: // from minutes to a year: what is about as long as a pause or a wait deceives most
		r.jump = 6*time.Minute<<w.draw(17) + time.Duration(w.draw(600))*time.Second
		if w.draw(2) == 0 {
			r.jump = -r.jump
		}
	}
	w.say("%s has its clock wrong by %s", r.name, r.jump)
	if !r.busy && r.next.Before(never) && !w.now.Before(w.anew) {
		r.next = w.now
	}
}

func (r *replica) rightClock() {
	r.jump = 0
	if !r.busy && r.next.Before(never) && !r.w.now.Before(r.w.anew) {
		r.next = r.w.now
	}
}

// clock is a replica's clock.
type clock struct{ r *replica }

func (c clock) Now() time.Time { return c.r.now() }

func (c clock) Steady() time.Duration {
	if c.r.w.Mutant == OneClock {
		return c.r.now().Sub(simStart)
	}
	return c.r.w.now.Sub(simStart) - c.r.stood
}

func (c clock) After(time.Duration) (<-chan time.Time, func()) { panic("nobody sleeps in here") }

type deadlineKey struct{}

// deadline is one by both clocks, as the machine's is.
type deadline struct {
	wall   time.Time
	steady time.Duration
}

func (c clock) WithDeadline(ctx context.Context, wall time.Time, steady time.Duration) (context.Context, context.CancelFunc) {
	if c.r.w.draw(3) == 0 {
		c.r.interlude()
	}
	return context.WithValue(ctx, deadlineKey{}, deadline{wall, steady}), func() {}
}

// passed reports whether the deadline of a call is over.
func (c clock) passed(ctx context.Context) bool {
	d, ok := ctx.Value(deadlineKey{}).(deadline)
	return !ok || !c.Now().Before(d.wall) || c.Steady() >= d.steady
}

// random draws keys and names from the world.
type random struct{ w *World }

func (r random) Read(p []byte) (int, error) {
	var b [8]byte
	for n := 0; n < len(p); {
		binary.LittleEndian.PutUint64(b[:], r.w.draw(1<<63))
		n += copy(p[n:], b[:7])
	}
	return len(p), nil
}
