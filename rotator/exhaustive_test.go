package rotator

import (
	"errors"
	"hash/maphash"
	"os"
	"testing"
	"time"
)

// ordinary is a target that is served since long, and whose rotation is due. Times are chosen so that there
// are few instants: all but a skewed clock's are a quarter of a minute apart.
func ordinary(b budget) *scenario {
	t := StandardTiming()
	t.RetryMin = 15 * time.Second
	p := Policy{Propagation: 2 * time.Minute, Grace: 10 * time.Minute, AttemptLimit: 10 * time.Minute, Reconcile: 10 * time.Minute,
		KeyLength: MinKeyLength, OnDrift: Reassert, KeepVersions: true, Timing: t}
	return &scenario{policy: p, lag: p.Propagation, jumps: []time.Duration{3 * time.Minute, 11 * time.Minute}, budget: b}
}

func (s *scenario) with(change func(*scenario)) *scenario { change(s); return s }

// any is a budget for so many mishaps, each of another kind, and pauses.
func anyOf(mishaps, pauses int8) budget {
	return budget{all: mishaps, crash: 1, store: 1, tencent: 1, drift: 1, jump: 1, pause: pauses}
}

// mostStates is about what four gigabytes hold.
const mostStates = 40_000_000

// TestExhaustive visits every state that two replicas, a store and a Tencent can get into in
// the course of a rotation, within the bounds of each scenario. TIWKEYD_EXHAUSTIVE=full has wider ones.
func TestExhaustive(t *testing.T) {
	adopting := func(s *scenario) { s.policy.OnDrift = AdoptKey }
	skewed := func(s *scenario) { s.ahead = [2]time.Duration{0, 150 * time.Second} }
	empty := func(s *scenario) { s.empty = true }
	forbidden := func(s *scenario) { s.forbidden, s.budget.drift = true, 0 } // which would go unseen
	folded := func(s *scenario) { s.fold = time.Minute }
	for _, c := range []struct {
		name string
		full bool
		s    *scenario
	}{
		{"one mishap and one pause", false, ordinary(anyOf(1, 1)).with(folded)},
		{"two mishaps", false, ordinary(anyOf(2, 0)).with(folded)},
		{"a foreign key is adopted", false, ordinary(anyOf(2, 0)).with(adopting).with(folded)},
		{"no keyring yet", false, ordinary(anyOf(1, 0)).with(empty).with(folded)},
		{"the key in force cannot be read", false, ordinary(anyOf(1, 0)).with(forbidden).with(folded)},
		{"clocks disagree", false, ordinary(anyOf(1, 0)).with(skewed).with(folded)},

		{"one mishap and one pause, at any time", true, ordinary(anyOf(1, 1))},
		{"four mishaps", true, ordinary(budget{all: 4, crash: 1, store: 1, tencent: 1, drift: 1})},
		{"two pauses", true, ordinary(anyOf(0, 2))},
		{"two mishaps and one pause", true, ordinary(budget{all: 2, crash: 1, store: 1, tencent: 1, drift: 1, pause: 1}).with(folded)},
		{"a foreign key is adopted, more", true, ordinary(anyOf(1, 1)).with(adopting).with(folded)},
		{"no keyring yet, more", true, ordinary(anyOf(2, 0)).with(empty).with(folded)},
		{"the key in force cannot be read, more", true, ordinary(anyOf(1, 1)).with(forbidden).with(folded)},
		{"clocks disagree, more", true, ordinary(anyOf(1, 1)).with(skewed).with(folded)},
	} {
		if c.full && os.Getenv("TIWKEYD_EXHAUSTIVE") != "full" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			s := &search{scenario: c.s, limit: mostStates, workers: 1}
			s.run()
			var l liveness
			if s.bad.Load() == nil {
				l = s.liveness()
			}
			t.Logf("%d states, %d transitions, the furthest %d steps away, in %s; left alone, each settles within %d steps and %s",
				s.states.Load(), s.edges.Load(), s.depth, time.Since(began).Round(100*time.Millisecond), l.steps, l.takes)
			if f := s.bad.Load(); f != nil {
				t.Fatalf("violation of %s\n%s", f.what, s.history(f.state, f.number))
			}
			if s.states.Load() >= mostStates {
				t.Fatal("there are more states than memory holds: this was no exhaustive search")
			}
		})
	}
}

// TestExhaustiveFinds: that nothing is found means something only if it would be.
func TestExhaustiveFinds(t *testing.T) {
	for _, c := range []struct {
		name string
		s    *scenario
	}{
		{"a new key is set as soon as it is written", ordinary(budget{}).with(func(s *scenario) { s.policy.Propagation = 0 })},
		{"a rolled-back key is dropped at once", ordinary(budget{all: 2, tencent: 2, pause: 1}).with(func(s *scenario) { s.policy.Timing.RollbackKeep = 0 })},
		{"who was paused goes on with what it had in mind", ordinary(budget{pause: 1}).with(func(s *scenario) { s.policy.Timing.PushDeadline = time.Hour })},
		{"a check-and-set always succeeds", ordinary(budget{pause: 1}).with(func(s *scenario) { s.lawless = true })},
		{"a lost check-and-set is taken for one's own write", ordinary(budget{all: 2, tencent: 1, jump: 1, pause: 1}).with(func(s *scenario) { s.trust = true })},
		{"an old key is dropped before a late request for it must have arrived", ordinary(budget{all: 2, tencent: 1, drift: 1}).with(func(s *scenario) {
			s.policy.Grace, s.policy.Timing.RollbackKeep = time.Minute, time.Minute
		})},
		{"answers in doubt are taken for refusals", ordinary(budget{all: 1, tencent: 1}).with(func(s *scenario) {
			s.policy.Timing.RollbackKeep = 0
			s.says = func(err error) error {
				if errors.Is(err, errDoubtful) {
					return errRefused
				}
				return err
			}
		})},
		{"the current key is taken to be in force without looking", ordinary(budget{all: 2, tencent: 2}).with(func(s *scenario) {
			s.sees = func(w *world) Key {
				if k := w.newest().ring; k.Pending() == nil {
					return k.CallbackKey()
				}
				return w.inForce
			}
		})},
		{"a set that was not refused is taken to be in force", ordinary(budget{all: 1, tencent: 1}).with(func(s *scenario) {
			s.sees = func(w *world) Key {
				if k := w.newest().ring; k.Pending() != nil && k.Rotation.Attempts > 0 {
					return k.Pending().Key
				}
				return w.inForce
			}
		})},
		{"the key in force before the first start is not taken over", ordinary(budget{}).with(func(s *scenario) {
			s.empty = true
			s.sees = func(w *world) Key {
				if w.newest().ring == nil {
					return Key{}
				}
				return w.inForce
			}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.fold = 10 * time.Minute
			s := &search{scenario: c.s, limit: 3_000_000, workers: 1}
			s.run()
			f := s.bad.Load()
			if f == nil {
				t.Fatalf("not found in %d states", s.states.Load())
			}
			t.Logf("found after %d states:\n%s", s.states.Load(), s.history(f.state, f.number))
		})
	}
}

// TestFingerprint: worlds that are taken to be the same go on in the same way.
func TestFingerprint(t *testing.T) {
	for name, s := range map[string]*scenario{
		"a mishap":           ordinary(anyOf(1, 0)),
		"a pause":            ordinary(anyOf(0, 1)),
		"mishaps and pauses": ordinary(anyOf(3, 2)).with(func(s *scenario) { s.fold = 10 * time.Minute }),
		"adopting":           ordinary(anyOf(1, 0)).with(func(s *scenario) { s.policy.OnDrift = AdoptKey }),
		"forbidden":          ordinary(anyOf(1, 1)).with(func(s *scenario) { s.forbidden = true }),
		"no keyring":         ordinary(anyOf(1, 1)).with(func(s *scenario) { s.empty = true }),
		"skewed":             ordinary(anyOf(1, 1)).with(func(s *scenario) { s.ahead[1] = 150 * time.Second }),
	} {
		x, c := newExplorer(s), newCoder(s)
		known, met := map[fingerprint]uint64{}, 0
		for level := []*world{s.start()}; len(level) > 0 && met < 10_000; {
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
