// Package sim runs the daemon's own engine in simulated worlds: a Vault, a Tencent, receivers
// that see the secret late, and replicas that crash, pause and have wrong clocks, under one
// virtual clock. Everything in a world follows from its seed, so that whatever goes wrong can
// be had again, and be made small.
//
// A replica in the middle of a call can be left there while others run and time passes: the
// call simply runs them before it goes on. So every pause is a nested call, and no goroutine
// is needed.
package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tiwkeyd/rotator"
)

// Options choose a world.
type Options struct {
	Seed     uint64
	Replicas int    // 1 to 5
	Mutant   Mutant // a fault built into the protocol on purpose; "" is the protocol as it is

	// Allow, if not nil, has only these of the mishaps happen that would happen, by the number
	// of the occasion. It is how a history is made small.
	Allow map[int]bool
}

// World is a simulated Vault, Tencent, set of receivers and set of replicas.
type World struct {
	Options
	now    time.Time
	target rotator.Target
	policy rotator.Policy // of the engines
	truth  rotator.Policy // of the receivers and of Tencent
	calm   bool           // no more mishaps

	occasions int   // of a mishap, so far
	mishaps   []int // the occasions that were taken

	vault    vault
	tencent  tencent
	replicas []*replica
	depth    int
	quiet    bool // no timeline, and no logs
	log      []string
	read     int           // lines of the replicas' logs
	known    []rotator.Key // that must not show in them

	violation string
	events    int
	commits   int
	rollbacks int
}

// simStart is when every world begins.
var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// signatureLife is how long Tencent honours a signed request.
const signatureLife = 5 * time.Minute

// every is the schedule: a rotation is due so long after the last.
const every = 2 * time.Hour

// New gives a world at its beginning.
func New(o Options) *World { return newWorld(o, false) }

func newWorld(o Options, quiet bool) *World {
	w := &World{Options: o, quiet: quiet, now: simStart, target: rotator.Target{SdkAppID: 1, Service: rotator.WhiteboardPush}}
	w.truth = rotator.Policy{Propagation: 6 * time.Minute, Grace: 30 * time.Minute, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
		KeyLength: 32, OnDrift: rotator.Reassert, Timing: rotator.StandardTiming()}
	if w.draw(3) == 0 {
		w.truth.Grace = 10 * time.Minute
	}
	if w.draw(4) == 0 {
		w.tencent.inForce = rotator.NewKey("", "key-from-before")
	}
	w.know(w.tencent.inForce)
	w.tencent.forbidden = w.draw(8) == 0 && !w.tencent.inForce.IsZero()
	w.policy = w.Mutant.policy(w.truth)
	for i := range o.Replicas {
		r := &replica{w: w, name: string(rune('A' + i)), next: w.now, skew: time.Duration(int(w.draw(181))-90) * time.Second}
		w.replicas = append(w.replicas, r)
		r.restart()
	}
	return w
}

// draw gives a number below n. It depends on the seed and on how many were drawn before.
func (w *World) draw(n uint64) uint64 {
	w.occasions++
	return mix(w.Seed, uint64(w.occasions)) % n
}

// mix is SplitMix64: well spread, and so cheap that a world costs little more than its engine.
func mix(seed, n uint64) uint64 {
	x := seed*0x9e3779b97f4a7c15 + n*0xbf58476d1ce4e5b9
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// mishap reports whether something goes wrong at this occasion, once in so many.
func (w *World) mishap(oneIn uint64) bool {
	if w.draw(oneIn) != 0 || w.calm {
		return false
	}
	if w.Allow != nil && !w.Allow[w.occasions] {
		return false
	}
	w.mishaps = append(w.mishaps, w.occasions)
	return true
}

// say adds a line to the timeline.
func (w *World) say(format string, args ...any) {
	w.events++
	if !w.quiet {
		w.log = append(w.log, w.now.Format("2 15:04:05  ")+fmt.Sprintf(format, args...))
	}
}

func (w *World) fail(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
		w.say("VIOLATION of %s", w.violation)
	}
}

// Run lets the world go on for d, or until an invariant is violated.
func (w *World) Run(d time.Duration) {
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
		w.vault.forget(w.now.Add(-24 * time.Hour))
	}
}

// advance moves the clock, lets requests arrive, and checks.
func (w *World) advance(d time.Duration) {
	end := w.now.Add(d)
	for f := w.tencent.arrival(end); f != nil; f = w.tencent.arrival(end) {
		if f.arrive.After(w.now) {
			w.now = f.arrive
		}
		if age := w.now.Sub(f.signed); age.Abs() <= signatureLife {
			w.say("a late request of %s sets %s", f.from, f.key)
			w.apply(f.key)
		}
	}
	w.now = end
	w.check()
}

// apply has Tencent sign with another key.
func (w *World) apply(k rotator.Key) {
	if k.IsZero() {
		w.fail("I4: an empty key was set")
	}
	if !k.Equal(w.tencent.inForce) {
		w.tencent.foreign = false // setting a foreign key that was adopted again makes it no older
	}
	w.tencent.sign(k)
	w.know(k)
	w.check()
}

// check is I1: every view that a receiver may have accepts the key in force.
func (w *World) check() {
	t, versions := &w.tencent, w.vault.versions
	if t.foreign || len(versions) == 0 {
		return
	}
	oldest := w.vault.oldestView(w.now, &w.truth)
	for i := len(versions) - 1; i >= 0; i-- {
		v := versions[i]
		if t.inForce.IsZero() {
			if !v.k.AcceptUnsigned {
				return // deleted by hand
			}
		} else if v.k.Lookup(t.inForce) == nil {
			w.fail("I1: Tencent signs with %s, and a receiver may see %v (readable since %s)", t.inForce, v.k.Accept(), v.from.Format("15:04:05"))
			return
		}
		if !v.from.After(oldest) {
			return
		}
	}
}

// mischief is what happens to the world by itself.
func (w *World) mischief() {
	v, t := &w.vault, &w.tencent
	switch {
	case v.down && w.draw(6) == 0:
		w.mendVault()
	case !v.down && w.mishap(120):
		v.down = true
		v.outages = append(v.outages, span{from: w.now})
		w.say("Vault is sealed")
	case w.mishap(300) && len(v.versions) > 0:
		t.sign(rotator.NewKey("", fmt.Sprint("foreign", w.draw(1<<32))))
		w.know(t.inForce)
		t.foreign = true
		w.say("somebody else sets a key")
	case t.barred && w.draw(50) == 0:
		t.barred = false
		w.say("Tencent serves the application again")
	case !t.barred && w.mishap(200):
		t.barred = true
		w.say("Tencent says that the service has expired")
	case w.mishap(200):
		w.replicas[w.draw(uint64(len(w.replicas)))].turnClock()
	case w.draw(150) == 0 && !w.calm:
		r := w.replicas[w.draw(uint64(len(w.replicas)))]
		w.say("%s is told to rotate", r.name)
		r.engine.Ask(rotator.BySignal, w.target)
	}
}

func (w *World) mendVault() {
	w.vault.down = false
	w.vault.outages[len(w.vault.outages)-1].to = w.now
	w.say("Vault is unsealed")
}

// Settle ends all mishaps, gives the world a day, and checks what must have come to rest: I2
// and I3.
func (w *World) Settle() {
	w.calm, w.tencent.barred = true, false
	for _, r := range w.replicas {
		r.rightClock()
	}
	if w.vault.down {
		w.mendVault()
	}
	w.say("all mishaps end")
	w.Run(26 * time.Hour)
	if w.violation != "" {
		return
	}
	k := w.vault.versions[len(w.vault.versions)-1].k
	switch {
	case k.Current() == nil || !k.Current().Key.Equal(w.tencent.inForce):
		w.fail("I2: Tencent signs with %s, the keyring says %v", w.tencent.inForce, k.Accept())
	case w.now.Sub(k.RotatedAt) > every+w.truth.Propagation+w.truth.Reconcile:
		w.fail("I2: the last rotation was at %s", k.RotatedAt.Format(time.DateTime))
	case len(k.Keys) > 3:
		w.fail("I3: there are still %d keys", len(k.Keys))
	}
	for _, e := range k.Keys {
		last := e.AcceptUntil.Add(w.truth.Reconcile + w.truth.Timing.RollbackKeep + w.truth.Timing.Skew)
		if e.State == rotator.Previous && w.now.After(last) {
			w.fail("I3: %s is still accepted, though only until %s", e.Key, e.AcceptUntil.Format("15:04:05"))
		}
	}
}

// Result is what became of a world.
type Result struct {
	Violation string // "" if there is none
	Events    int
	Rotations int
	RolledBack,
	Mishaps int
}

// Result tells what became of the world so far.
func (w *World) Result() Result {
	return Result{w.violation, w.events, w.commits, w.rollbacks, len(w.mishaps)}
}

// Timeline tells what happened, the last lines of it.
func (w *World) Timeline(lines int) string {
	return strings.Join(w.log[max(0, len(w.log)-lines):], "\n")
}

var background = context.Background()
