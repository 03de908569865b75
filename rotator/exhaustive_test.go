package rotator

import (
	"errors"
	"hash/maphash"
	"os"
	"runtime"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

// ordinary is a target that is served since long, and whose rotation is due. Times are chosen
// so that there are few instants: they are a quarter of a minute apart.
func ordinary(b budget, changes ...func(*scenario)) *scenario {
	t := StandardTiming()
	t.RetryMin = 15 * time.Second
	p := Policy{Propagation: 2 * time.Minute, Grace: 10 * time.Minute, AttemptLimit: 10 * time.Minute, Reconcile: 10 * time.Minute,
		KeyLength: secrets.MinKeyLength, OnDrift: Reassert, KeepVersions: true, Timing: t}
	s := &scenario{policy: p, lag: p.Propagation, jumps: []time.Duration{3 * time.Minute, 11 * time.Minute}, budget: b}
	for _, change := range changes {
		change(s)
	}
	return s
}

// What may be different.
func adopting(s *scenario)  { s.policy.OnDrift = AdoptKey }
func skewed(s *scenario)    { s.ahead = [2]time.Duration{0, 150 * time.Second} }
func empty(s *scenario)     { s.empty = true }
func unsigned(s *scenario)  { s.empty, s.unsigned = true, true }
func forbidden(s *scenario) { s.forbidden, s.budget.drift = true, 0 } // a drift would go unseen

// folded lets nothing begin to go wrong in the middle of a wait, but every minute.
func folded(s *scenario) { s.fold = time.Minute }

// lagging has Tencent tell of the current key whatever is in force, but while a key is pending.
func lagging(s *scenario) {
	s.sees = func(w *world) secrets.Key {
		if k := w.newest().ring; k.Pending() == nil {
			return k.CallbackKey()
		}
		return w.inForce
	}
}

// once is a budget for so many mishaps, no two of a kind, and pauses.
func once(mishaps, pauses int8) budget {
	return budget{all: mishaps, crash: 1, store: 1, tencent: 1, drift: 1, pause: pauses}
}

func (b budget) withJump() budget { b.jump = 1; return b }

// full asks for all there is, which takes minutes.
var full = os.Getenv("TIWKEYD_EXHAUSTIVE") == "full"

// mostStates is about what three gigabytes hold.
const mostStates = 30_000_000

// TestExhaustive visits every state that two replicas, a store and a Tencent can get into in
// the course of a rotation, within the bounds of each scenario. TIWKEYD_EXHAUSTIVE=full has wider ones.
func TestExhaustive(t *testing.T) {
	for _, c := range []struct {
		name string
		full bool
		s    *scenario
	}{
		{"any mishap", false, ordinary(once(1, 0).withJump())},
		{"any two mishaps", false, ordinary(once(2, 0), folded)},
		{"a pause", false, ordinary(once(0, 1))},
		{"a pause and a mishap of Tencent", false, ordinary(budget{all: 1, tencent: 1, pause: 1}, folded)},
		{"a foreign key is adopted", false, ordinary(once(1, 0), adopting)},
		{"no keyring yet", false, ordinary(once(1, 0), empty)},
		{"no keyring and no key yet", false, ordinary(once(1, 0), unsigned)},
		{"the key in force cannot be read", false, ordinary(once(1, 0), forbidden)},
		{"clocks disagree", false, ordinary(once(1, 0), skewed)},
		{"what Tencent tells is out of date", false, ordinary(budget{all: 2, tencent: 2}, lagging)},
		{"what Tencent tells is out of date, and a pause", false, ordinary(budget{all: 1, tencent: 1, pause: 1}, lagging)},

		{"all four mishaps", true, ordinary(once(4, 0))},
		{"any two mishaps or spells in which nobody runs", true, ordinary(once(2, 0).withJump())},
		{"any mishap and a pause", true, ordinary(once(1, 1).withJump())},
		{"any two mishaps and a pause", true, ordinary(once(2, 1), folded)},
		{"two pauses", true, ordinary(once(0, 2))},
		{"a foreign key is adopted, with a pause", true, ordinary(once(1, 1), adopting, folded)},
		{"no keyring yet, with two mishaps", true, ordinary(once(2, 0), empty, folded)},
		{"no keyring yet, with a pause", true, ordinary(once(1, 1), empty, folded)},
		{"no keyring and no key yet, with a pause", true, ordinary(once(1, 1), unsigned, folded)},
		{"the key in force cannot be read, with a pause", true, ordinary(once(1, 1), forbidden, folded)},
		{"what Tencent tells is out of date, with two mishaps and a pause", true, ordinary(budget{all: 2, tencent: 2, pause: 1}, lagging, folded)},
		{"clocks disagree, with a pause", true, ordinary(once(1, 1), skewed, folded)},
	} {
		if c.full && !full {
			continue
		}
		t.Run(c.name, func(t *testing.T) { exhaust(t, c.s) })
	}
}

// exhaust visits every state of a scenario, and leaves each alone.
func exhaust(t *testing.T, c *scenario) {
	began := time.Now()
	s := &search{scenario: c, limit: mostStates, workers: runtime.GOMAXPROCS(0)}
	s.run()
	var l liveness
	if s.bad.Load() == nil {
		l = s.liveness()
	}
	if f := s.bad.Load(); f != nil {
		t.Fatalf("after %d states: violation of %s\n%s", s.states.Load(), f.what, s.history(f.state, f.number))
	}
	if s.states.Load() >= mostStates {
		t.Fatal("there are more states than memory holds: this was no exhaustive search")
	}
	t.Logf("%d states, %d transitions, the furthest %d steps away, in %s; left alone, each settles within %d steps and %s",
		s.states.Load(), s.edges.Load(), s.depth, time.Since(began).Round(100*time.Millisecond), l.steps, l.takes)
}

// TestExhaustiveFinds: that nothing is found means something only if it would be.
func TestExhaustiveFinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		s    *scenario
	}{
		{"a new key is set as soon as it is written", ordinary(budget{}, func(s *scenario) { s.policy.Propagation = 0 })},
		{"a rolled-back key is dropped at once", ordinary(budget{all: 2, tencent: 2, pause: 1}, func(s *scenario) { s.policy.Timing.RollbackKeep = 0 })},
		{"who was paused goes on with what it had in mind", ordinary(budget{all: 1, tencent: 1, pause: 1}, func(s *scenario) { s.policy.Timing.PushDeadline = time.Hour })},
		{"a check-and-set always succeeds", ordinary(budget{pause: 1}, func(s *scenario) { s.lawless = true })},
		{"an old key is dropped before a late request for it must have arrived", ordinary(budget{all: 2, tencent: 1, drift: 1}, func(s *scenario) {
			s.policy.Grace, s.policy.Timing.RollbackKeep = time.Minute, time.Minute
		})},
		{"answers in doubt are taken for refusals", ordinary(budget{all: 1, tencent: 1}, func(s *scenario) {
			s.policy.Timing.RollbackKeep = 0
			s.says = func(err error) error {
				if errors.Is(err, errDoubtful) {
					return errRefused
				}
				return err
			}
		})},
		{"the current key is taken to be in force without looking", ordinary(budget{all: 2, tencent: 2}, lagging, func(s *scenario) { s.unsaid = true })},
		{"a set that was not refused is taken to be in force", ordinary(budget{all: 1, tencent: 1}, func(s *scenario) {
			s.sees = func(w *world) secrets.Key {
				if k := w.newest().ring; k.Pending() != nil && k.Rotation.Attempts > 0 {
					return k.Pending().Key
				}
				return w.inForce
			}
		})},
		{"a lost check-and-set is taken for one's own write", ordinary(budget{all: 2, tencent: 1, jump: 1, pause: 1}, func(s *scenario) { s.trust = true })},
		{"the key in force before the first start is not taken over", ordinary(budget{}, func(s *scenario) {
			s.empty = true
			s.sees = func(w *world) secrets.Key {
				if w.newest().ring == nil {
					return secrets.Key{}
				}
				return w.inForce
			}
		})},
	} {
		if c.s.trust && !full {
			continue // it takes 400,000 states
		}
		t.Run(c.name, func(t *testing.T) {
			c.s.fold = 10 * time.Minute
			finds(t, c.s)
		})
	}
}

// finds has a scenario come to a violation.
func finds(t *testing.T, c *scenario) {
	s := &search{scenario: c, limit: 3_000_000, workers: 1}
	s.run()
	if s.bad.Load() == nil && int(s.states.Load()) < s.limit {
		s.liveness()
	}
	f := s.bad.Load()
	if f == nil {
		t.Fatalf("not found in %d states", s.states.Load())
	}
	t.Logf("found after %d states: %s\n%s", s.states.Load(), f.what, s.history(f.state, f.number))
}

// TestExhaustiveFingerprint: worlds that are taken to be the same go on in the same way. Some are looked
// at in each scenario, and more with TIWKEYD_EXHAUSTIVE=full.
func TestExhaustiveFingerprint(t *testing.T) {
	t.Parallel()
	enough := 3_000
	if full {
		enough = 300_000
	}
	for name, s := range map[string]*scenario{
		"a mishap":    ordinary(once(1, 0).withJump()),
		"a pause":     ordinary(once(1, 1)),
		"two mishaps": ordinary(once(2, 0).withJump(), folded),
		"adopting":    ordinary(once(1, 1), adopting),
		"forbidden":   ordinary(once(1, 1), forbidden),
		"no keyring":  ordinary(once(1, 1), empty),
		"no key":      ordinary(once(1, 1), unsigned),
		"skewed":      ordinary(once(1, 1), skewed),
	} {
		sameFuture(t, name, s, enough)
	}
}

// sameFuture looks at so many worlds of a scenario that are taken to be one that was met before.
func sameFuture(t *testing.T, name string, s *scenario, enough int) {
	x, c := newExplorer(s), newCoder(s)
	known, met := map[fingerprint]uint64{}, 0
	for level := []*world{s.start()}; len(level) > 0 && met < enough; {
		var all, next []*world
		for _, w := range level {
			x.events(w, func(n *world, _ event) { all = append(all, n) })
		}
		for _, w := range all {
			f, future := c.code(w), x.future(c, w)
			was, again := known[f]
			switch {
			case !again:
				known[f], next = future, append(next, w)
			case was != future:
				t.Fatalf("%s: what follows a state depends on something that its fingerprint does not tell, %s after the start", name, w.now.Sub(dawn))
			default:
				met++
			}
		}
		level = next
	}
	t.Logf("%s: %d states, met %d times more", name, len(known), met)
}

// future stands for what may follow a world, in whatever order.
func (x *explorer) future(c *coder, w *world) (sum uint64) {
	x.events(w, func(n *world, e event) {
		f := c.code(n)
		h := maphash.Comparable(seeds[0], struct {
			f               fingerprint
			calm, bad, rest bool
		}{f, e.calm, e.bad != "", n.settled()})
		sum += h
	})
	return sum
}
