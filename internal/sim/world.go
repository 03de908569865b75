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
	"tiwkeyd/secrets"
)

// Options choose a world.
type Options struct {
	Seed     uint64
	Replicas int    // 1 to 5
	Mutant   Mutant // a fault built into the protocol on purpose; "" is the protocol as it is
	Without  Powers // that the world does not have, whatever its seed says

	// Allow, if not nil, has only these of the mishaps happen that would happen, by the number
	// of the occasion. It is how a history is made small.
	Allow map[int]bool
}

// World is a simulated Vault, Tencent, set of receivers and set of replicas.
type World struct {
	Options
	now    time.Time
	target secrets.Target
	base   rotator.Policy // of the engines, where they do not differ
	truth  rotator.Policy // of the receivers and of Tencent
	calm   bool           // no more mishaps

	powers  Powers
	allKnow bool          // every process is told how late receivers are
	told    time.Duration // what those are told at least that know it
	slowest time.Duration // how late receivers may become
	adopts  bool          // some replica may adopt foreign keys
	storm   bool          // reloads do not end
	single  bool          // Vault keeps one version: what a write replaced nobody can see
	standby bool          // nodes that tell older versions pass writes on

	floor      time.Time    // no receiver's view is older
	unclaimed  time.Time    // nothing is claimed while a receiver's view is as old
	anew       time.Time    // when the target is served again
	epoch      int          // of what is sent: before and after a keyring was lost or restored
	lie        *secrets.Key // what Describe tells
	alternates bool
	nextStorm  time.Time
	undoing    bool             // what is written is put back at once
	sent       *rotator.Keyring // the write that the last request rests on

	occasions int   // of a mishap, so far
	mishaps   []int // the occasions that were taken

	vault    vault
	tencent  tencent
	replicas []*replica
	depth    int
	quiet    bool // no timeline, and no logs
	log      []string
	read     int           // lines of the replicas' logs
	known    []secrets.Key // that must not show in them

	violation string
	events    int
	commits   int
	rollbacks int
	stages    int
}

// simStart is when every world begins.
var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// signatureLife is how long Tencent honours a signed request.
const signatureLife = 5 * time.Minute

// never is when replicas come that do not come by themselves.
var never = simStart.Add(1000 * 24 * time.Hour)

// every is the schedule: a rotation is due so long after the last.
const every = 2 * time.Hour

// New gives a world at its beginning.
func New(o Options) *World { return newWorld(o, false) }

func newWorld(o Options, quiet bool) *World {
	w := &World{Options: o, quiet: quiet, now: simStart, target: secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}}
	w.truth = rotator.Policy{Propagation: 6 * time.Minute, Grace: 30 * time.Minute, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
		KeyLength: 32, OnDrift: rotator.Reassert, Timing: rotator.StandardTiming()}
	if w.draw(3) == 0 {
		w.truth.Grace = 10 * time.Minute
	}
	if w.draw(4) == 0 {
		w.tencent.inForce = secrets.NewKey("", "key-from-before")
	}
	w.know(w.tencent.inForce)
	w.tencent.forbidden = w.draw(8) == 0 && !w.tencent.inForce.IsZero()
	w.base = w.truth
	w.empower()
	for i := range o.Replicas {
		r := &replica{w: w, n: i, name: string(rune('A' + i)), next: w.now, skew: time.Duration(int(w.draw(181))-90) * time.Second}
		if i > 0 && !w.allKnow {
			r.next = never
		}
		w.replicas = append(w.replicas, r)
		r.restart()
	}
	w.say("the world has %s; receivers are up to %s late, and all are told: %t", w.powers, w.truth.Propagation, w.allKnow)
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
		if w.storm && w.calm && !w.nextStorm.After(end) && (next == nil || !w.nextStorm.After(next.next)) {
			w.advance(max(0, w.nextStorm.Sub(w.now)))
			for _, r := range w.replicas {
				r.reload()
			}
			w.nextStorm = w.now.Add(time.Minute)
			continue
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
			w.apply(f.key, f.epoch)
		}
	}
	w.now = end
	w.check()
}

// apply has Tencent sign with another key, which was sent in an epoch.
func (w *World) apply(k secrets.Key, epoch int) {
	if k.IsZero() {
		w.fail("I4: an empty key was set")
	}
	if !k.Equal(w.tencent.inForce) {
		w.tencent.foreign = false // setting a foreign key that was adopted again makes it no older
	}
	if epoch != w.epoch {
		w.tencent.foreign = true
	}
	w.tencent.sign(k)
	w.know(k)
	w.check()
}

// check is I1: every view that a receiver may have accepts the key in force.
func (w *World) check() {
	t, versions := &w.tencent, w.vault.versions
	if len(versions) == 0 {
		return
	}
	oldest := w.oldestView()
	if !w.vault.away() {
		w.slower(oldest)
	}
	if t.foreign && !w.vault.away() && w.everyView(oldest) {
		t.foreign = false // it was put right, or adopted
	}
	if t.foreign || oldest.Before(w.unclaimed) {
		return
	}
	for i := len(versions) - 1; i >= 0; i-- {
		v := versions[i]
		if v.k.Edited || v.undone {
			// what an editor made of it is not ours to answer for, nor is a foreign key that was adopted and undone at once
		} else if t.inForce.IsZero() {
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

// everyView reports whether the key in force is the current one of every view.
func (w *World) everyView(oldest time.Time) bool {
	for i := len(w.vault.versions) - 1; i >= 0; i-- {
		v := w.vault.versions[i]
		if !v.k.CallbackKey().Equal(w.tencent.inForce) || v.k.Edited || v.undone {
			return false
		}
		if !v.from.After(oldest) {
			break
		}
	}
	return !w.tencent.inForce.IsZero()
}

// mischief is what happens to the world by itself.
func (w *World) mischief() {
	v, t := &w.vault, &w.tencent
	w.operate()
	switch {
	case v.down && w.draw(6) == 0:
		w.mendVault()
	case !v.down && w.mishap(120):
		v.down = true
		v.outages = append(v.outages, span{from: w.now})
		w.say("Vault is sealed")
	case (w.mishap(300) || (w.has(Rival) && w.mishap(60))) && len(v.versions) > 0:
		t.sign(secrets.NewKey("", fmt.Sprint("foreign", w.draw(1<<32))))
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
		r.ask(rotator.BySignal)
	case w.has(Reload) && w.mishap(60):
		w.replicas[w.draw(uint64(len(w.replicas)))].reload()
	}
}

func (w *World) mendVault() {
	w.vault.down = false
	for i := range w.vault.outages {
		if o := &w.vault.outages[i]; o.to.IsZero() && !o.emptied {
			o.to = w.now
		}
	}
	w.say("Vault is unsealed")
}

// Settle ends all mishaps, gives the world twenty hours, and checks what must have come to rest: I2
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
	w.nextStorm = w.now
	w.resume()
	w.Run(4 * time.Hour)
	w.demand()
	w.Run(16 * time.Hour)
	if w.violation != "" {
		return
	}
	k := w.vault.snapshot().Keyring
	if k == nil {
		w.fail("I2: there is no keyring")
		return
	}
	longest, reconcile := every, w.truth.Reconcile
	if w.has(Differ | Override) {
		longest, reconcile = longestEvery, 20*time.Minute
	}
	if w.storm {
		longest += 15 * time.Minute
	}
	switch {
	case k.Current() == nil || !k.Current().Key.Equal(w.tencent.inForce):
		w.fail("I2: Tencent signs with %s, the keyring says %v", w.tencent.inForce, k.Accept())
	case w.now.Sub(k.RotatedAt) > longest+max(w.truth.Propagation, 15*time.Minute)+reconcile:
		w.fail("I2: the last rotation was at %s", k.RotatedAt.Format(time.DateTime))
	case len(k.Keys) > 4:
		w.fail("I3: there are still %d keys", len(k.Keys))
	}
	for _, e := range k.Keys {
		last := e.AcceptUntil.Add(reconcile + w.truth.Timing.RollbackKeep + w.truth.Timing.Skew)
		if e.State == rotator.Previous && w.now.After(last) {
			w.fail("I3: %s is still accepted, though only until %s", e.Key, e.AcceptUntil.Format("15:04:05"))
		}
	}
}

// resume has somebody end what holds rotations up.
func (w *World) resume() {
	k := w.vault.snapshot().Keyring
	if !w.calm || k == nil || k.Overrides == nil || !k.Overrides.Paused {
		return
	}
	o := *k.Overrides
	o.Paused = false
	w.named("tiwkeyd set paused=false", k.With(o))
}

// demand has somebody set a key, and somebody else ask for a new one: it is staged at once, whatever is
// in the way of the schedule.
func (w *World) demand() {
	if w.violation != "" {
		return
	}
	if k := w.vault.snapshot().Keyring; k == nil || k.Pending() != nil {
		return // it would be that one
	}
	w.tencent.sign(secrets.NewKey("", fmt.Sprint("foreign", w.draw(1<<32))))
	w.know(w.tencent.inForce)
	w.tencent.foreign = true
	w.say("somebody else sets a key")
	r, asked, staged := w.replicas[w.draw(uint64(len(w.replicas)))], w.now, w.stages
	w.say("%s is asked for a new key", r.name)
	r.ask(rotator.ByCommand)
	w.Run(time.Minute)
	if k := w.vault.snapshot().Keyring; w.violation == "" && (k == nil || (k.Pending() == nil && w.stages == staged)) {
		w.fail("I2: a new key was asked for at %s, and none is staged", asked.Format("15:04:05"))
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
