package rotator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// world is a simulated Vault, Tencent, set of receivers and set of replicas under one
// virtual clock. Everything in it is decided by one seed. A replica that is in the middle of
// a call can be left there while others run and time passes: the call simply runs them
// before it goes on, so that every pause is a nested call and all is deterministic.
type world struct {
	rnd    *rand.Rand
	now    time.Time
	target Target
	policy Policy
	calm   bool // no more faults

	// the store
	versions []version // all that ever became readable
	outages  []span
	down     bool

	// Tencent
	inForce   Key
	foreign   bool // somebody else set it
	inFlight  []flight
	forbidden bool
	barred    bool

	replicas  []*replica
	depth     int
	log       []string
	violation string
	commits   int
	rollbacks int
	revoked   bool
}

type version struct {
	k      *Keyring
	number int64
	from   time.Time
}

type span struct{ from, to time.Time }

// flight is a request that is still on its way to Tencent.
type flight struct {
	key    Key
	arrive time.Time
	signed time.Time
}

type replica struct {
	w      *world
	name   string
	engine *Engine
	next   time.Time
	busy   bool
	skew   time.Duration // of its clock, within what replicas may disagree by
	jump   time.Duration // and what it is wrong by for a while
}

// crash is what a killed replica panics with.
type crash struct{}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const signatureLife = 5 * time.Minute

func newWorld(seed uint64, replicas int) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), now: simStart,
		target: Target{SdkAppID: 1, Service: WhiteboardPush}}
	w.policy = Policy{Propagation: 6 * time.Minute, Grace: 30 * time.Minute, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
		KeyLength: 32, OnDrift: Reassert, Timing: StandardTiming()}
	if w.chance(3) {
		w.policy.Grace = 10 * time.Minute
	}
	if w.chance(4) {
		w.inForce = NewKey("", "key-from-before")
	}
	w.forbidden = w.chance(8) && !w.inForce.IsZero()
	for i := range replicas {
		r := &replica{w: w, name: string(rune('A' + i)), next: w.now, skew: time.Duration(w.rnd.IntN(181)-90) * time.Second}
		w.replicas = append(w.replicas, r)
		r.restart()
	}
	return w
}

func (w *world) chance(oneIn int) bool { return w.rnd.IntN(oneIn) == 0 }

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, w.now.Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
		w.say("VIOLATION: %s", w.violation)
	}
}

func (r *replica) restart() {
	e, err := New(Options{Store: simStore{r}, API: simAPI{r}, Clock: simClock{r}, Random: simRandom{r.w.rnd}, Policy: r.w.policy,
		Due: func(_ Target, at time.Time) time.Time { return at.Add(2 * time.Hour) },
		Events: func(ev Event) {
			if ev.Phase != Idle {
				r.w.say("%s %s %s %s %v", r.name, ev.Step, ev.Phase, ev.Key, ev.Err)
			}
			if ev.Phase == Done && ev.Step == StepCommit {
				r.w.commits++
			}
			if ev.Phase == Done && ev.Step == StepRollback {
				r.w.rollbacks++
			}
		}})
	if err != nil {
		panic(err)
	}
	r.engine = e
}

// visit runs one visit of a replica; a crash replaces it by a new one.
func (r *replica) visit() {
	if r.busy {
		return
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
			r.next = r.w.now.Add(time.Duration(r.w.rnd.IntN(300)) * time.Second)
		}
	}()
	next := r.engine.Visit(context.Background(), r.w.target)
	r.next = next.Add(-r.skew - r.jump)
	if least := r.w.now.Add(100 * time.Millisecond); r.next.Before(least) {
		r.next = least
	}
}

// advance moves the clock, lets requests arrive, and checks.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		first := -1
		for i, f := range w.inFlight {
			if !f.arrive.After(end) && (first < 0 || f.arrive.Before(w.inFlight[first].arrive)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		f := w.inFlight[first]
		w.inFlight = append(w.inFlight[:first], w.inFlight[first+1:]...)
		if f.arrive.After(w.now) {
			w.now = f.arrive
		}
		if age := w.now.Sub(f.signed); age.Abs() <= signatureLife {
			w.say("a late request sets %s", f.key)
			w.apply(f.key)
		}
	}
	w.now = end
	w.check()
}

func (w *world) apply(k Key) {
	if k.IsZero() {
		w.fail("I4: an empty key was set")
	}
	if !k.Equal(w.inForce) {
		w.foreign = false // setting a foreign key that was adopted again makes it no older
	}
	w.inForce = k
	w.check()
}

// oldestView is the earliest moment from which a receiver may still have its view: while
// the store is away nobody can read it anew. A spell that is shorter than three looks of the
// engine is the receivers' own affair: Propagation has to have room for it.
func (w *world) oldestView() time.Time {
	t := w.now.Add(-w.policy.Propagation)
	for i := len(w.outages) - 1; i >= 0; i-- {
		o := w.outages[i]
		if o.to.IsZero() {
			o.to = w.now
		}
		if o.to.Sub(o.from) < 3*w.policy.probe()+2*slowAnswer {
			continue
		}
		if o.to.After(t) && o.from.Add(-w.policy.Propagation).Before(t) {
			t = o.from.Add(-w.policy.Propagation)
		}
	}
	return t
}

// check is I1: every view that a receiver may have accepts the key in force.
func (w *world) check() {
	if w.foreign || len(w.versions) == 0 || w.revoked {
		return
	}
	oldest := w.oldestView()
	for i := len(w.versions) - 1; i >= 0; i-- {
		v := w.versions[i]
		if w.inForce.IsZero() {
			if !v.k.AcceptUnsigned {
				return // deleted by hand
			}
		} else if v.k.Lookup(w.inForce) == nil {
			w.fail("I1: %s is in force, and a receiver may see %v (readable since %s)", w.inForce, v.k.Accept(), v.from.Format("15:04:05"))
			return
		}
		if !v.from.After(oldest) {
			return
		}
	}
}

// interlude happens inside a call: time passes, others run, the caller may die.
func (r *replica) interlude() {
	w := r.w
	if w.calm {
		return
	}
	switch {
	case w.chance(60):
		panic(crash{})
	case w.depth < 4 && w.chance(25): // a pause, of seconds to hours
		w.depth++
		pause := time.Duration(w.rnd.IntN(400)) * time.Second
		if w.chance(4) {
			pause *= 40
		}
		w.say("%s is paused for %s", r.name, pause)
		w.runFor(pause)
		w.depth--
		w.say("%s goes on", r.name)
	default:
		w.advance(time.Duration(w.rnd.IntN(1500)) * time.Millisecond)
	}
}

// runFor lets the world go on for d.
func (w *world) runFor(d time.Duration) {
	end := w.now.Add(d)
	for w.violation == "" {
		var next *replica
		for _, r := range w.replicas {
			if !r.busy && !r.next.After(end) && (next == nil || r.next.Before(next.next)) {
				next = r
			}
		}
		if next == nil {
			w.advance(max(0, end.Sub(w.now)))
			return
		}
		if next.next.After(w.now) {
			w.advance(next.next.Sub(w.now))
		}
		w.mischief()
		next.visit()
		w.forget()
	}
}

// turnClock makes a machine's clock wrong by so much. The daemon finds out at its next wake-up.
func (r *replica) turnClock(by time.Duration) {
	r.w.say("%s has its clock wrong by %s", r.name, by)
	r.jump = by
	if !r.busy {
		r.next = r.w.now
	}
}

// forget drops versions and outages that no receiver can be affected by.
func (w *world) forget() {
	for len(w.versions) > 1 && w.versions[1].from.Before(w.now.Add(-24*time.Hour)) {
		w.versions = w.versions[1:]
	}
	for len(w.outages) > 0 && !w.outages[0].to.IsZero() && w.outages[0].to.Before(w.now.Add(-24*time.Hour)) {
		w.outages = w.outages[1:]
	}
}

// mischief is what happens to the world by itself.
func (w *world) mischief() {
	if w.calm {
		return
	}
	switch {
	case w.down && w.chance(6):
		w.down = false
		w.outages[len(w.outages)-1].to = w.now
		w.say("the store is back")
	case !w.down && w.chance(120):
		w.down = true
		w.outages = append(w.outages, span{from: w.now})
		w.say("the store is away")
	case w.chance(300) && len(w.versions) > 0:
		w.inForce, w.foreign = NewKey("", fmt.Sprint("foreign", w.rnd.Uint32())), true
		w.say("somebody else sets a key")
	case w.chance(100):
		w.barred = !w.barred
		w.say("Tencent bars the application: %v", w.barred)
	case w.chance(200):
		r := w.replicas[w.rnd.IntN(len(w.replicas))]
		if r.jump != 0 {
			r.turnClock(0)
			break
		}
		// Either so little that clocks still agree well enough, or so much that Tencent refuses.
		by := time.Duration(w.rnd.IntN(61)-30) * time.Second
		if w.chance(2) {
			by = time.Duration(10+w.rnd.IntN(600_000)) * time.Minute * time.Duration(1-2*w.rnd.IntN(2))
		}
		r.turnClock(by)
	case w.chance(150):
		w.replicas[w.rnd.IntN(len(w.replicas))].engine.Ask(BySignal, w.target)
	}
}

// settle ends all faults and reports whether the target comes to rest.
func (w *world) settle() error {
	w.calm, w.barred = true, false
	for _, r := range w.replicas {
		r.turnClock(0)
	}
	if w.down {
		w.down = false
		w.outages[len(w.outages)-1].to = w.now
	}
	w.say("all faults end")
	w.runFor(26 * time.Hour)
	if w.violation != "" {
		return errors.New(w.violation)
	}
	k := w.versions[len(w.versions)-1].k
	switch {
	case k.Current() == nil || !k.Current().Key.Equal(w.inForce):
		return fmt.Errorf("I2: %s is in force, the keyring says %v", w.inForce, k.Accept())
	case w.now.Sub(k.RotatedAt) > 2*time.Hour+w.policy.Propagation+w.policy.Reconcile:
		return fmt.Errorf("I2: the last rotation was at %s, it is %s", k.RotatedAt, w.now)
	case len(k.Keys) > 3:
		return fmt.Errorf("I3: there are still %d keys", len(k.Keys))
	}
	return nil
}

func (w *world) timeline() string { return strings.Join(w.log[max(0, len(w.log)-120):], "\n") }
