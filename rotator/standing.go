package rotator

import (
	"time"

	"tiwkeyd/secrets"
)

// Standing is what a target looked like when the engine last dealt with it: for metrics and
// pages. Keys are ids in it.
type Standing struct {
	Target  secrets.Target
	At      time.Time // when the engine last dealt with it; zero: never yet
	Read    bool      // its keyring, or that there is none, was read at least once
	Adopted bool      // there is a keyring
	Phase   Phase     // at At; see PhaseAt

	KeyID      string    // of the current key; "" if there is none
	KeyCreated time.Time // the same key's age counts from then
	RotatedAt  time.Time // zero: never
	Due        time.Time // when the schedule wants the next key; long ago if the key was never replaced; zero: never

	Paused      bool          // no rotation begins by itself
	Propagation time.Duration // how late its receivers may be

	PendingID string    // of the pending key; "" if there is none
	ReadyAt   time.Time // when every receiver accepts the pending key
	PushAfter time.Time // the same as the keyring tells it, which does not move on when receivers begin anew

	// The rotation in hand, or the last one if it failed.
	Rotation   string
	Reason     Reason
	Ours       bool // this replica carries it out
	LeaseUntil time.Time
	RetryAt    time.Time
	LastError  *Failure // of that rotation; nil: none so far; not to be changed
	History    []Past   // the rotations that ended of late, the newest last; not to be changed
	Previous   int      // how many keys are accepted beside the current and the pending one

	Drift     bool // when Tencent last told, a key was in force that is neither current nor pending
	Contested bool // somebody else sets another key whenever the current one is put back
}

// PhaseAt is the phase at a time after At, if nothing else happens.
func (s *Standing) PhaseAt(now time.Time) Phase {
	switch {
	case !s.Read:
		return Unread
	case s.Phase == Waiting && !now.Before(s.ReadyAt):
		return Pushing
	}
	return s.Phase
}

// Standings tells of every target, in no order. It holds no lock that a visit waits for
// longer than it takes to list the targets.
func (e *Engine) Standings() []Standing {
	e.mu.Lock()
	known := make([]*Standing, 0, len(e.tracks))
	for _, tr := range e.tracks {
		s := tr.standing
		if s == nil {
			s = &Standing{Target: tr.target}
		}
		known = append(known, s)
	}
	e.mu.Unlock()
	all := make([]Standing, len(known))
	for i, s := range known {
		all[i] = *s // which is never changed
	}
	return all
}

// publish makes known how the target stands. Only its visit calls it.
func (e *Engine) publish(tr *track) {
	now := e.clock.Now()
	s := &Standing{Target: tr.target, At: now, Read: !tr.latest.IsZero(), Phase: Unadopted, Contested: tr.contest.on()}
	defer e.show(tr, s)
	if last := tr.standing; last != nil {
		s.Drift = last.Drift // until Tencent tells otherwise
	}
	k := tr.snap.Keyring
	if k == nil {
		s.Drift = false
		return
	}
	s.Adopted, s.RotatedAt, s.History, s.Propagation = true, k.RotatedAt, k.History, e.policy.Of(k).Propagation
	for i := range k.Keys {
		if k.Keys[i].State == Previous {
			s.Previous++
		}
	}
	s.Due, s.Paused = e.dueAt(tr.target, k, tr.snap.rotatedAt(now, &e.policy)), k.paused()
	if cur := k.Current(); cur != nil {
		s.KeyID, s.KeyCreated = cur.Key.ID(), cur.CreatedAt
	}
	pend := k.Pending()
	if r := k.Rotation; r != nil {
		s.Rotation, s.Reason, s.Ours, s.LeaseUntil, s.RetryAt = r.ID, r.Reason, r.Owner == e.policy.Owner, r.LeaseUntil, r.RetryAt
		s.LastError = r.LastError
	}
	if pend != nil {
		s.PendingID, s.PushAfter, s.ReadyAt = pend.Key.ID(), pend.PushAfter, readyAt(k, pend, tr.obs, now, e.policy.Of(k))
	}
	s.Phase = PhaseOf(k, s.ReadyAt, now)
	if tr.obs.Sight == Seen {
		s.Drift = !tr.obs.Key.Equal(k.CallbackKey()) && (pend == nil || !tr.obs.Key.Equal(pend.Key))
	}
}

func (e *Engine) show(tr *track, s *Standing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tr.standing = s
}
