package sim

import (
	"errors"
	"fmt"
	"time"

	"tiwkeyd/rotator"
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
)

// Mutants lists them all.
func Mutants() []Mutant {
	return []Mutant{PushBeforeStage, DropRolledBack, NoPropagationWait, RetireBlind, TrustLostCAS, InternalIsRefused, NoPushDeadline,
		ShortGrace, SkipAdoption, LeaseForSafety, CommitBlind, BelieveReads, OneClock}
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

// beforeWrite is called when a write is on its way.
func (m Mutant) beforeWrite(w *World, k *rotator.Keyring) {
	if p := k.Pending(); m == PushBeforeStage && p != nil {
		w.say("the mutant sets %s before it is written", p.Key)
		w.apply(p.Key)
	}
	if m == RetireBlind { // nor is it written down what a look does not prove
		for i := range k.Keys {
			k.Keys[i].Doubts, k.Keys[i].Confirmed = 0, true
		}
	}
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
func (m Mutant) onConflict(w *World, k *rotator.Keyring, current int64) (took bool, number int64) {
	switch m {
	case TrustLostCAS:
		w.say("the mutant takes the lost check-and-set for its own write")
		return true, current
	case LeaseForSafety:
		w.say("the mutant overwrites version %d", current)
		w.vault.versions = append(w.vault.versions, version{k.Clone(), current + 1, w.now})
		w.check()
		return true, current + 1
	}
	return false, 0
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
func (m Mutant) sees(w *World) rotator.Key {
	k := w.vault.snapshot(0).Keyring
	switch {
	case m == SkipAdoption && k == nil:
		return rotator.Key{}
	case m == RetireBlind && k != nil && k.Pending() == nil && k.Current() != nil:
		return k.CallbackKey()
	case m == CommitBlind && k != nil && k.Pending() != nil && k.Rotation.Attempts > 0:
		return k.Pending().Key
	}
	return w.tencent.inForce
}
