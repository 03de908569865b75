package rotator

import "time"

// Drift is what is done when Tencent is found to sign with a key that is not ours.
type Drift string

const (
	Reassert  Drift = "reassert" // put our current key back
	AdoptKey  Drift = "adopt"    // take theirs as the current one
	AlarmOnly Drift = "alarm"    // log it and leave it
)

// Policy is what the operator decided, the same for every target.
type Policy struct {
	Propagation  time.Duration // how late a receiver may see a change of a keyring that does not say it
	Grace        time.Duration // how long a replaced key stays accepted
	AttemptLimit time.Duration // how long one pending key is tried
	Reconcile    time.Duration // how often a settled target is looked at
	KeyLength    int           // characters of a generated key
	OnDrift      Drift
	KeepVersions bool   // do not destroy the store's older versions at retirement
	Owner        string // this replica's name in leases, unlike any other's
	Timing       Timing

	// PropagationSet says that Propagation is no default: it is written into each keyring that says less.
	PropagationSet bool
}

// Timing holds the durations that safety rests on. Only tests and the demo, whose Tencent
// is their own, use others than StandardTiming.
type Timing struct {
	// PushDeadline is how long after the read of the keyring a key read there may still be
	// sent. With the five minutes that Tencent honours a signed request for, it bounds when
	// a request of a replica that was paused can take effect.
	PushDeadline time.Duration
	// Skew is how far the clocks of two replicas may disagree.
	Skew time.Duration
	// RollbackKeep is how long a rolled-back key stays accepted: PushDeadline, the signed
	// request's five minutes, and Skew.
	RollbackKeep time.Duration
	// Lease is how long the others leave a rotation to the replica that began it, counted
	// from the moment its next request may go out. It saves requests; nothing depends on it.
	Lease time.Duration
	// RetryMin and RetryMax bound the back-off after an answer that may change by itself,
	// RefusedMin and RefusedMax after one that needs somebody to act.
	RetryMin, RetryMax, RefusedMin, RefusedMax time.Duration
}

// StandardTiming is the Timing for Tencent's real API: a signed request is honoured for five
// minutes (API 3.0, AuthFailure.SignatureExpire).
func StandardTiming() Timing {
	return Timing{
		PushDeadline: 2 * time.Minute,
		Skew:         3 * time.Minute,
		RollbackKeep: 10 * time.Minute,
		Lease:        2 * time.Minute,
		RetryMin:     2 * time.Second,
		RetryMax:     5 * time.Minute,
		RefusedMin:   15 * time.Minute,
		RefusedMax:   6 * time.Hour,
	}
}

// probe is how often a keyring is read while receivers are given some time to read a key in it: a
// spell in which nobody could read it does not count for them.
func probe(wait time.Duration) time.Duration { return min(30*time.Second, wait/8) }

// Wish is when, and whether, a new key is wanted for a target, and what has to wait for its turn.
type Wish struct {
	Due   time.Time // by schedule; zero: never
	Asked Reason    // on demand; "" if nobody asked

	// Paused has nothing begin but what is asked for. Due is zero then.
	Paused bool

	Full   bool // there is no room for a rotation that nobody asked for
	InLine bool // a look that can wait is to wait for its turn
}
