package sim

import (
	"errors"
	"fmt"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Mutant is a fault built into the protocol on purpose, to see that the simulator would find
// it. It is built into what stands around the engine: the product has no switch for it.
type Mutant string

// The mutants, each a guard of the protocol that is not there.
const (
	PushBeforeStage   Mutant = "push-before-stage"   // a key is set before receivers can read it
	DropRolledBack    Mutant = "drop-rolled-back"    // a rolled-back key is dropped at once
	NoPropagationWait Mutant = "no-propagation-wait" // a new key is set as soon as it is written
	RetireBlind       Mutant = "retire-blind"        // the current key is taken to be in force without looking
	TrustLostCAS      Mutant = "trust-lost-cas"      // a failed check-and-set is taken for one's own write
	InternalIsRefused Mutant = "internal-is-refused" // answers in doubt are taken for refusals, and the key is dropped
	NoPushDeadline    Mutant = "no-push-deadline"    // who was paused goes on with what it had in mind
	ShortGrace        Mutant = "short-grace"         // an old key is dropped before a late request for it must have arrived
	SkipAdoption      Mutant = "skip-adoption"       // the key in force before the first start is not taken over
	LeaseForSafety    Mutant = "lease-for-safety"    // writes are not check-and-set: the lease is to keep others away
	CommitBlind       Mutant = "commit-blind"        // a set that was not refused is taken to be in force
	BelieveReads      Mutant = "believe-reads"       // a key is set without the store's confirming what was read
	OneClock          Mutant = "one-clock"           // there is no clock but the one that can be set wrong

	RevisionByContent    Mutant = "revision-by-content"    // a write that was refused is taken for one's own if the content is the same
	DecideFromMemory     Mutant = "decide-from-memory"     // the engine decides on what it read long ago
	CountWithoutReading  Mutant = "count-without-reading"  // propagation is counted while the keyring cannot be read
	ShortestPropagation  Mutant = "shortest-propagation"   // the process's own propagation counts, though the keyring says more
	TrustDescribe        Mutant = "trust-describe"         // a look that shows the current key proves that doubtful ones are gone
	ReloadForgets        Mutant = "reload-forgets"         // each reload forgets since when keys could be read
	DemandWaitsForDrift  Mutant = "demand-waits-for-drift" // who asks for a key waits while another one is in the way
	MemorySurvivesRevoke Mutant = "memory-survives-revoke" // a receiver accepts a revoked key again when versions go back
	UnpacedStaging       Mutant = "unpaced-staging"        // all keys of a wave are staged at once
)

// Mutants lists them all.
func Mutants() []Mutant {
	return []Mutant{PushBeforeStage, DropRolledBack, NoPropagationWait, RetireBlind, TrustLostCAS, InternalIsRefused, NoPushDeadline,
		ShortGrace, SkipAdoption, LeaseForSafety, CommitBlind, BelieveReads, OneClock, RevisionByContent, DecideFromMemory, CountWithoutReading, ShortestPropagation, TrustDescribe,
		ReloadForgets, DemandWaitsForDrift, MemorySurvivesRevoke, UnpacedStaging}
}

// policy is what the engines are told; receivers and Tencent are as they are.
func (m Mutant) policy(p rotator.Policy) rotator.Policy {
	switch m {
	case NoPropagationWait:
		p.Propagation = 0
	case DropRolledBack, InternalIsRefused:
		p.Timing.RollbackKeep = 0
	case ShortGrace:
		p.Grace, p.Timing.RollbackKeep = time.Minute, time.Minute
	case NoPushDeadline:
		p.Timing.PushDeadline = 1000 * time.Hour
	}
	return p
}

func (m Mutant) ignoresDeadlines() bool { return m == NoPushDeadline }

// beforeWrite is called when a write is on its way, and gives what is written.
func (m Mutant) beforeWrite(r *replica, k *rotator.Keyring) *rotator.Keyring {
	w := r.w
	if p := k.Pending(); m == PushBeforeStage && p != nil {
		w.say("the mutant sets %s before it is written", p.Key)
		w.apply(p.Key, w.epoch)
	}
	if m == RetireBlind || m == TrustDescribe { // nor is it written down what a look does not prove
		for i := range k.Keys {
			k.Keys[i].Doubts, k.Keys[i].Confirmed = 0, true
		}
	}
	if told := r.told.Keyring; m == ShortestPropagation && told != nil {
		k = k.Clone()
		k.Overrides = told.Overrides
	}
	return k
}

// reads is what the engine is told of a keyring.
func (m Mutant) reads(r *replica, s rotator.Snapshot) rotator.Snapshot {
	own := r.config.policy.Propagation
	if m != ShortestPropagation || s.Keyring == nil || s.Keyring.Overrides == nil || s.Keyring.Overrides.Propagation == nil || *s.Keyring.Overrides.Propagation <= own {
		return s
	}
	k := s.Keyring.Clone()
	o := *k.Overrides
	o.Propagation = &own
	k.Overrides = &o
	if p := k.Pending(); p != nil && p.PushAfter.After(p.CreatedAt.Add(own)) {
		p.PushAfter = p.CreatedAt.Add(own)
	}
	s.Keyring = k
	return s
}

// remembers is what the engine is told without the store's being asked.
func (m Mutant) remembers(r *replica, down bool) (rotator.Snapshot, bool) {
	if (m != CountWithoutReading && m != DecideFromMemory) || r.told.Keyring == nil {
		return rotator.Snapshot{}, false
	}
	s := r.told
	s.Keyring = s.Keyring.Clone()
	return s, (m == CountWithoutReading && down) || (m == DecideFromMemory && r.w.now.Sub(r.toldAt) < time.Hour)
}

// holdsBack reports whether the engine is not told yet that a key is asked for.
func (m Mutant) holdsBack(w *World) bool {
	k := w.vault.latest()
	return m == DemandWaitsForDrift && k != nil && !k.CallbackKey().Equal(w.tencent.inForce)
}

// confirms reports whether a write is one that only notes that a key is sent, and is taken to be done
// without the store's having done it.
func (m Mutant) confirms(read *rotator.Snapshot, k *rotator.Keyring) bool {
	return m == BelieveReads && read != nil && read.Keyring != nil && unnoted(k) == unnoted(read.Keyring)
}

func unnoted(k *rotator.Keyring) string {
	k = k.Clone()
	for i := range k.Keys {
		k.Keys[i].Doubts = 0
	}
	return fmt.Sprint(k.Keys)
}

// onConflict is called when a write's check-and-set has failed.
func (m Mutant) onConflict(r *replica, k *rotator.Keyring, current int64) (took bool, number int64) {
	w := r.w
	switch m {
	case RevisionByContent:
		if latest := w.vault.latest(); latest != nil && content(latest) == content(k) {
			w.say("the mutant takes version %d for its own write", current)
			r.wrote = w.vault.latest()
			return true, current
		}
	case TrustLostCAS:
		w.say("the mutant takes the lost check-and-set for its own write")
		return true, current
	case LeaseForSafety:
		w.say("the mutant overwrites version %d", current)
		w.vault.versions = append(w.vault.versions, version{k: k.Clone(), number: current + 1, from: w.now})
		w.check()
		return true, current + 1
	}
	return false, 0
}

// content is a keyring without the name of the write.
func content(k *rotator.Keyring) string {
	k = k.Clone()
	k.Revision = ""
	b, err := k.Encode()
	if err != nil {
		panic(err)
	}
	return string(b)
}

// answer is what the engine is told of Tencent's answer to a set.
func (m Mutant) answer(err error) error {
	var a *rotator.APIError
	if m == InternalIsRefused && errors.As(err, &a) && a.Class == rotator.Doubtful {
		return refusal(rotator.Refused, a.Code)
	}
	return err
}

// sees is the key that the engine is told is in force.
func (m Mutant) sees(r *replica) secrets.Key {
	w := r.w
	k := w.vault.snapshot().Keyring
	switch {
	case m == SkipAdoption && k == nil:
		return secrets.Key{}
	case m == RetireBlind && k != nil && k.Pending() == nil && k.Current() != nil:
		return k.CallbackKey()
	case m == CommitBlind && k != nil && k.Pending() != nil && k.Rotation.Attempts > 0:
		return k.Pending().Key
	}
	return r.outdated()
}
