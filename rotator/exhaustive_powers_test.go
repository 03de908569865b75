package rotator

import (
	"slices"
	"testing"
	"time"
)

// What may be different where an adversary has powers. written is what the keyring says at first.
func told(s *scenario) {
	s.policy.PropagationSet, s.written = true, &Overrides{Propagation: new(s.policy.Propagation)}
}

// another are settings that a reload may bring, and besides has the second replica begin with them.
func another(change func(*Policy)) func(*scenario) {
	return func(s *scenario) {
		p := s.policy
		change(&p)
		s.others = append(s.others, p)
	}
}

func besides(change func(*Policy)) func(*scenario) {
	return func(s *scenario) { another(change)(s); s.begin[1] = int8(len(s.others)) }
}

func hasty(p *Policy) {
	p.Propagation, p.Grace, p.AttemptLimit = time.Minute, 15*time.Minute, 5*time.Minute
}
func thrifty(p *Policy)  { p.Grace, p.AttemptLimit = 15*time.Minute, 5*time.Minute }
func untold(p *Policy)   { p.Propagation, p.PropagationSet, p.AttemptLimit = 0, false, 20*time.Minute }
func welcomes(p *Policy) { p.OnDrift = AdoptKey }
func alarms(p *Policy)   { p.OnDrift = AlarmOnly }
func patient(p *Policy) {
	p.Propagation, p.PropagationSet, p.Grace, p.AttemptLimit = 4*time.Minute, true, 15*time.Minute, 5*time.Minute
}

func by(hands ...hand) func(*scenario) {
	return func(s *scenario) { s.hands, s.remembers, s.most = hands, true, 4*time.Minute }
}

func remembering(s *scenario) { s.remembers, s.counts = true, true }
func numbered(s *scenario)    { s.version = 20 }
func discovered(s *scenario)  { s.found = true }
func moved(s *scenario)       { s.moves = true }
func restless(s *scenario)    { s.every = 30 * time.Second }
func believing(s *scenario)   { s.believed = 3 }

var sets = by(setting(4*time.Minute), setting(0), pausing)

func (b budget) withHand(n int8) budget   { b.hand = n; return b }
func (b budget) withStale(n int8) budget  { b.stale = n; return b }
func (b budget) withLie(n int8) budget    { b.lie = n; return b }
func (b budget) withReload(n int8) budget { b.reload = n; return b }

// power is a world of one of the adversary's powers, or of two that share code.
type power struct {
	name string
	full bool
	s    *scenario
}

func powersOf() []power {
	calm := budget{}
	return []power{
		{"settings differ", false, ordinary(once(1, 0), folded, told, besides(hasty))},
		{"one is told no propagation", false, ordinary(once(1, 0), folded, told, besides(untold))},
		{"a reload brings longer times", false, ordinary(calm.withReload(1), another(patient))},
		{"a reload every half minute", false, ordinary(calm, restless)},
		{"a reload leads to another store", false, ordinary(calm.withReload(1), folded, moved)},
		{"somebody sets a propagation, or a pause", false, ordinary(calm.withHand(1), sets)},
		{"the store tells old versions", false, ordinary(calm.withStale(2), folded, remembering)},
		{"deleted and undeleted", false, ordinary(calm.withHand(2), folded, by(deleting), remembering)},
		{"deleted with metadata", false, ordinary(once(1, 0).withHand(1), folded, by(beginning), remembering, numbered)},
		{"deleted with metadata, and enrolled", false, ordinary(once(1, 0).withHand(1), folded, by(beginning), remembering, discovered)},
		{"an older version is restored", false, ordinary(calm.withHand(1), folded, by(restoring), remembering)},
		{"accept is edited", false, ordinary(calm.withHand(1), folded, by(editing))},
		{"Tencent tells of older keys", false, ordinary(calm.withLie(2), folded)},
		{"Tencent tells of the first key", false, ordinary(calm, folded, empty, believing)},

		{"settings differ, with a pause", true, ordinary(once(0, 1), folded, told, besides(hasty))},
		{"one is told no propagation, with a pause", true, ordinary(once(0, 1), folded, told, besides(untold))},
		{"one adopts a foreign key, with a mishap", true, ordinary(once(1, 0), folded, besides(welcomes))},
		{"one only alarms, with a mishap", true, ordinary(once(1, 0), folded, besides(alarms))},
		{"two reloads bring longer times, with a mishap", true, ordinary(once(1, 0).withReload(2), folded, another(patient))},
		{"a reload brings longer times, with a pause", true, ordinary(once(0, 1).withReload(1), folded, another(patient))},
		{"a reload every half minute, with a mishap", true, ordinary(once(1, 0), restless)},
		{"a reload leads to another store, with a pause", true, ordinary(once(0, 1).withReload(1), folded, moved)},
		{"somebody sets a propagation, or a pause, with a pause", true, ordinary(once(0, 1).withHand(1), folded, sets)},
		{"the store tells old versions, with a pause", true, ordinary(once(0, 1).withStale(2), folded, remembering)},
		{"the store tells old versions, three times", true, ordinary(calm.withStale(3), folded, remembering)},
		{"the store tells old versions, with a mishap", true, ordinary(once(1, 0).withStale(1), folded, remembering)},
		{"deleted and undeleted, with a pause", true, ordinary(once(0, 1).withHand(2), folded, by(deleting), remembering)},
		{"deleted with metadata, with a pause", true, ordinary(once(0, 1).withHand(1), folded, by(beginning), remembering, numbered)},
		{"deleted with metadata, and enrolled, with a pause", true, ordinary(once(0, 1).withHand(1), folded, by(beginning), remembering, discovered)},
		// A foreign key that is set while receivers do not know the restored keyring yet is put right at once: it would be refused, too.
		{"an older version is restored, with a mishap, but no foreign key", true, ordinary(budget{all: 1, crash: 1, store: 1, tencent: 1}.withHand(1), folded, by(restoring), remembering)},
		{"an older version is restored, with a pause", true, ordinary(once(0, 1).withHand(1), folded, by(restoring), remembering)},
		{"accept is edited, with a mishap, but no foreign key", true, ordinary(budget{all: 1, crash: 1, store: 1, tencent: 1}.withHand(1), folded, by(editing))},
		{"accept is edited, with a pause", true, ordinary(once(0, 1).withHand(1), folded, by(editing))},
		{"Tencent tells of older keys, with a mishap", true, ordinary(once(1, 0).withLie(2), folded)},
		{"Tencent tells of older keys, with a pause", true, ordinary(once(0, 1).withLie(2), folded)},
		{"Tencent tells of the first key, with a pause", true, ordinary(once(0, 1), folded, empty, believing)},

		// Both lead to the propagation that holds: Policy.of, readyAt.
		{"settings differ, and somebody sets a propagation", true, ordinary(calm.withHand(1), folded, told, besides(hasty), sets)},
		// Both raise it in the middle of a rotation: Policy.raises, Keyring.raised.
		{"a reload brings longer times, and somebody sets a propagation", true, ordinary(calm.withReload(1).withHand(1), folded, another(patient), sets)},
		// Both move the moment from which on a pending key may be set: Keyring.restored, Keyring.raised.
		{"accept is edited, and somebody sets a propagation", true, ordinary(calm.withHand(2), folded, told, by(editing, setting(4*time.Minute), setting(0)))},
		{"accept is edited, and a reload brings longer times", true, ordinary(calm.withHand(1).withReload(1), folded, by(editing), another(patient))},
		// Both are about what is remembered of the store's answers: took, lost, Reconfigure.
		{"the store tells old versions, and a reload", true, ordinary(calm.withStale(1).withReload(1), folded, remembering, another(patient))},
		// Both make readAgain and sameVersion tell one version from another.
		{"the store tells old versions, and the keyring is deleted and undeleted", true, ordinary(calm.withStale(1).withHand(2), folded, remembering, by(deleting))},
		{"the store tells old versions, and accept is edited", true, ordinary(calm.withStale(1).withHand(1), folded, remembering, by(editing))},
		// Both make what was seen of Tencent void, or not: sameCurrent, forget, decideRetire.
		{"the store tells old versions, and Tencent of older keys", true, ordinary(calm.withStale(1).withLie(2), folded, remembering)},
		// Both change what a look proves: doubts, confirmed, unsure.
		{"an older version is restored, and Tencent tells of older keys", true, ordinary(calm.withHand(1).withLie(1), folded, remembering, by(restoring))},
		// Both bring a key that is not ours into a look: decideDrift, went, adopt.
		{"a foreign key is adopted, and Tencent tells of older keys", true, ordinary(once(1, 0).withLie(2), folded, adopting)},
		// Both have what was seen before count no more: forget, Reconfigure. (What the keyring says of propagation goes
		// with it, so the settings differ in other things.)
		{"deleted with metadata, and a reload", true, ordinary(calm.withHand(1).withReload(1), folded, by(beginning), remembering, numbered, another(thrifty))},
	}
}

// TestExhaustivePowers searches the worlds of an adversary's powers, like TestExhaustive.
func TestExhaustivePowers(t *testing.T) {
	for _, c := range powersOf() {
		if c.full && !full {
			continue
		}
		t.Run(c.name, func(t *testing.T) { exhaust(t, c.s) })
	}
}

// TestExhaustivePowersFind: each guard against a power is taken away, and is missed.
func TestExhaustivePowersFind(t *testing.T) {
	t.Parallel()
	calm := budget{}
	for _, c := range []struct {
		name string
		s    *scenario
	}{
		{"a receiver is later than it may be", ordinary(calm, func(s *scenario) { s.lag += 15 * time.Second })},
		{"the longer propagation of a keyring is not taken over", ordinary(calm, told, func(s *scenario) { untold(&s.policy); s.deaf = true })},
		{"a reload to another store keeps what was seen", ordinary(calm.withReload(1), moved, func(s *scenario) { s.keeps = true })},
		{"a reload forgets what was seen", ordinary(calm, restless, func(s *scenario) { s.forgets = true })},
		{"a change by hand goes unseen", ordinary(calm.withHand(1), by(editing), func(s *scenario) { s.blind = true })},
		{"receivers get no time after a change by hand", ordinary(calm.withHand(1), by(editing), func(s *scenario) { s.hurried = true })},
		{"a key is set without the store's confirming what was read", ordinary(budget{all: 1, tencent: 1}.withStale(2), remembering, func(s *scenario) { s.unconfirmed = true })},
		{"a keyring that was made anew is taken for the old one", ordinary(budget{all: 1, drift: 1, pause: 1}.withHand(1), by(beginning), remembering, discovered, func(s *scenario) { s.twins = true })},
		{"a look is believed, whatever was sent in doubt", ordinary(budget{all: 2, tencent: 2}.withLie(2), func(s *scenario) { s.unsaid = true })},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.s.every == 0 {
				folded(c.s)
			}
			finds(t, c.s)
		})
	}
}

// TestExhaustivePowersFingerprint: as TestExhaustiveFingerprint, where an adversary has powers.
func TestExhaustivePowersFingerprint(t *testing.T) {
	t.Parallel()
	enough := 500
	if full {
		enough = 30_000
	}
	for _, c := range powersOf() {
		if c.full {
			sameFuture(t, c.name, c.s, enough)
		}
	}
}

// TestReceiversLag: a world has just the versions that receivers see of which each is late by something up
// to the most, and each by as much as it likes.
func TestReceiversLag(t *testing.T) {
	t.Parallel()
	const step = 15 * time.Second
	s := ordinary(budget{})
	x := newExplorer(s)
	for gaps := range 1 << 8 { // after which steps a version is written
		w := s.start()
		written := []time.Time{w.views[0].from}
		for i := range 24 {
			if i < 8 && gaps>>i&1 == 1 {
				n := *w
				v := w.newest()
				x.shows(&n, view{ring: v.ring, version: v.version + 1, from: w.now})
				w, written = &n, append(written, w.now)
			}
			w = w.at(w.now.Add(step))
			seen := map[int64]bool{}
			for lag := time.Duration(0); lag <= s.lag; lag += step {
				newest := slices.IndexFunc(written, func(from time.Time) bool { return from.After(w.now.Add(-lag)) })
				if newest < 0 {
					newest = len(written)
				}
				seen[int64(newest)] = true
			}
			for _, v := range w.views {
				if !seen[v.version] {
					t.Fatalf("%08b: after %s nobody sees version %d", gaps, w.now.Sub(dawn), v.version)
				}
				delete(seen, v.version)
			}
			if len(seen) > 0 {
				t.Fatalf("%08b: after %s somebody sees %v, which the world does not have", gaps, w.now.Sub(dawn), seen)
			}
		}
	}
}
