package rotator

import "time"

// Step is one thing the engine can do to a target.
type Step string

const (
	StepWait     Step = "wait"     // nothing until Action.Until
	StepObserve  Step = "observe"  // ask Tencent which key is in force
	StepAdopt    Step = "adopt"    // take the key in force as the current one
	StepStage    Step = "stage"    // write a new pending key
	StepHasten   Step = "hasten"   // turn the rotation in hand into a revocation
	StepClaim    Step = "claim"    // take over the rotation of a replica that went away
	StepPush     Step = "push"     // set the pending key at Tencent
	StepReassert Step = "reassert" // set the current key at Tencent again
	StepCommit   Step = "commit"   // pending becomes current
	StepRollback Step = "rollback" // pending becomes previous
	StepRetire   Step = "retire"   // drop keys that nothing can be signed with any more
)

// Action is the next step of a target.
type Action struct {
	Step  Step
	Until time.Time // StepWait: when to decide again
	Why   string
}

// Sight is what is known of the key in force.
type Sight int

const (
	Unseen     Sight = iota // Tencent was not asked since it may have changed
	Seen                    // Key was in force at At
	Unanswered              // Tencent was asked at At and gave no usable answer
	Barred                  // Tencent refused to tell, for a reason that concerns the application
	Forbidden               // the credential may not ask: Set's own answers must do
)

// Observation is what a replica knows of Tencent's side. It lives in memory only.
type Observation struct {
	Sight    Sight
	Key      Key       // if Seen: the zero Key means that callbacks are unsigned
	At       time.Time // when the request that told was begun
	NextLook time.Time // Tencent is not asked again before
	NextPush time.Time // nothing is set before
	Refused  Key       // the key that Tencent refused for good, if any

	// Since is when this replica began to find the pending key in the store at every look.
	// Receivers are given Propagation from then: neither a write that took effect late nor
	// a spell in which the store could not be read counts for them.
	Since time.Time
	// Previous is since when this replica has seen each previous key as such, by id.
	Previous map[string]time.Time
}

// Decide gives the next single step for a target. It is pure, and it is all there is: a
// restart after a crash is just the next call. s is what the store holds, o what is known
// of Tencent, w whether a new key is wanted.
//
// What keeps invariant I1: a key is pushed only when it is current, or pending and ready
// (every receiver accepts it by then); and a key leaves the keyring only in
// StepRetire, when its AcceptUntil has passed and the current key was seen in force after
// that. A decision may be stale when it is carried out. Writes are check-and-set; a push
// is fenced by Timing.PushDeadline.
func Decide(s Snapshot, o Observation, now time.Time, w Wish, p *Policy) Action {
	if s.Keyring == nil {
		return decideAdoption(o, now)
	}
	k := s.Keyring
	cur, pend := k.Current(), k.Pending()
	if o.Sight == Seen {
		switch {
		case pend != nil && o.Key.Equal(pend.Key):
			return Action{Step: StepCommit, Why: "the pending key is in force"}
		case cur == nil && !o.Key.IsZero():
			return Action{Step: StepAdopt, Why: "a key is in force where there was none"}
		case cur != nil && !o.Key.Equal(cur.Key) && (pend == nil || now.Before(readyAt(k, pend, o, p))):
			if a, acts := decideDrift(k, cur, o, now, p); acts {
				return a
			}
		}
	}
	if pend != nil {
		return decidePending(s, pend, o, now, w, p)
	}
	return decideSettled(s, cur, o, now, w, p)
}

func decideAdoption(o Observation, now time.Time) Action {
	if o.Sight == Seen {
		return Action{Step: StepAdopt, Why: "there is no keyring yet"}
	}
	return look(o, now, "there is no keyring yet")
}

// look asks Tencent, or waits until it may be asked again.
func look(o Observation, now time.Time, why string) Action {
	if now.Before(o.NextLook) {
		return Action{Step: StepWait, Until: o.NextLook, Why: "Tencent did not tell which key is in force"}
	}
	return Action{Step: StepObserve, Why: why}
}

// decideDrift handles a key in force that is neither current nor pending. A previous key
// of ours is no foreign hand but a request that arrived late: it is always put right.
func decideDrift(k *Keyring, cur *Entry, o Observation, now time.Time, p *Policy) (Action, bool) {
	ours := k.Lookup(o.Key) != nil
	switch {
	case !ours && p.OnDrift == AlarmOnly:
		return Action{}, false
	case !ours && p.OnDrift == AdoptKey && !o.Key.IsZero():
		return Action{Step: StepAdopt, Why: "a foreign key is in force"}, true
	case now.Before(cur.PushAfter):
		return Action{Step: StepWait, Until: cur.PushAfter, Why: "receivers come to accept the key that was adopted"}, true
	case now.Before(o.NextPush):
		return Action{Step: StepWait, Until: o.NextPush, Why: "the current key could not be put back yet"}, true
	case ours:
		return Action{Step: StepReassert, Why: "a late request brought an older key back"}, true
	}
	return Action{Step: StepReassert, Why: "a foreign key, or none, is in force"}, true
}

func decidePending(s Snapshot, pend *Entry, o Observation, now time.Time, w Wish, p *Policy) Action {
	r, ready := s.Keyring.Rotation, readyAt(s.Keyring, pend, o, p)
	switch {
	case w.Asked == ByRevoke && r.Reason != ByRevoke:
		return Action{Step: StepHasten, Why: "a key is to be revoked at once"}
	case o.Sight == Unseen:
		return look(o, now, "a rotation is in hand")
	case now.Before(ready):
		if a, acts := decideRetire(s, o, now, p); acts && a.Step != StepWait {
			return a
		}
		return Action{Step: StepWait, Until: ready, Why: "receivers come to accept the pending key"}
	case o.Refused.Equal(pend.Key):
		return Action{Step: StepRollback, Why: "Tencent refused the pending key"}
	case !now.Before(pend.PushAfter.Add(p.AttemptLimit)):
		return Action{Step: StepRollback, Why: "the pending key was tried for as long as it may be"}
	case r.Owner != p.Owner && now.Before(r.LeaseUntil):
		return Action{Step: StepWait, Until: r.LeaseUntil, Why: "another replica carries the rotation out"}
	case r.Owner != p.Owner:
		return Action{Step: StepClaim, Why: "the replica that began the rotation went away"}
	case o.Sight == Unanswered:
		return look(o, now, "a rotation is in hand")
	}
	if hold := later(r.RetryAt, o.NextPush); now.Before(hold) {
		return Action{Step: StepWait, Until: hold, Why: "Tencent is tried again after a pause"}
	}
	return Action{Step: StepPush, Why: "receivers accept the pending key"}
}

// readyAt is when every receiver accepts the pending key.
func readyAt(k *Keyring, pend *Entry, o Observation, p *Policy) time.Time {
	if k.Rotation.Reason == ByRevoke {
		return pend.PushAfter
	}
	return later(pend.PushAfter, o.Since.Add(p.Propagation))
}

func decideSettled(s Snapshot, cur *Entry, o Observation, now time.Time, w Wish, p *Policy) Action {
	due := w.Due
	if r := s.Keyring.Rotation; r != nil {
		due = r.RetryAt // the last rotation failed
	}
	wanted := w.Asked != "" || (!due.IsZero() && !now.Before(due))
	retire, retires := decideRetire(s, o, now, p)
	switch {
	case retires && retire.Step == StepRetire:
		return retire
	case wanted && (o.Sight == Seen || o.Sight == Forbidden):
		return Action{Step: StepStage, Why: "a new key is wanted"}
	case wanted:
		return look(o, now, "a new key is wanted")
	case o.Sight == Unseen:
		return look(o, now, "not looked yet")
	case retires && retire.Step != StepWait:
		return retire
	}
	next := later(o.At.Add(p.Reconcile), o.NextLook)
	if o.Sight == Unanswered || o.Sight == Barred {
		next = o.NextLook
	}
	if !now.Before(next) {
		return look(o, now, "time to look again")
	}
	next = sooner(next, due)
	if retires {
		next = sooner(next, retire.Until)
	}
	for i := range s.Keyring.Keys {
		if e := &s.Keyring.Keys[i]; e.State == Previous && e.AcceptUntil.After(now) {
			next = sooner(next, e.AcceptUntil)
		}
	}
	return Action{Step: StepWait, Until: next, Why: "settled"}
}

// decideRetire says what to do about previous keys whose time is over; nothing if there
// are none. The look that proves the current key in force must be younger than every
// request that could still bring the old key back, so it must have begun after AcceptUntil.
func decideRetire(s Snapshot, o Observation, now time.Time, p *Policy) (Action, bool) {
	cur := s.Keyring.CallbackKey()
	var over *Entry
	var until time.Time
	for i := range s.Keyring.Keys {
		e := &s.Keyring.Keys[i]
		switch proven := provenAt(e, s, o, p); {
		case e.State != Previous || now.Before(e.AcceptUntil):
		case now.Before(proven):
			until = sooner(until, proven)
		case over == nil || e.AcceptUntil.Before(over.AcceptUntil):
			over = e
		}
	}
	if over == nil {
		return Action{Step: StepWait, Until: until, Why: "a key was replaced a moment ago"}, !until.IsZero()
	}
	fresh := over.retirable(s, o, p)
	switch {
	case o.Sight == Seen && fresh && o.Key.Equal(cur):
		return Action{Step: StepRetire, Why: "its successor is in force"}, true
	case o.Sight == Forbidden && fresh && !cur.IsZero():
		if now.Before(o.NextPush) {
			return Action{Step: StepWait, Until: o.NextPush, Why: "Tencent is tried again after a pause"}, true
		}
		return Action{Step: StepReassert, Why: "Tencent does not tell which key is in force: set it before the old one goes"}, true
	case o.Sight == Seen && fresh: // a foreign key that is to be left alone
		return Action{}, false
	}
	return look(o, now, "a key is to be retired"), true
}

// provenAt is when a previous key will certainly have been one for RollbackKeep. Its own
// times do not prove that: the write that made it previous may have been held up on its way
// and have taken effect later than it says.
func provenAt(e *Entry, s Snapshot, o Observation, p *Policy) time.Time {
	since := s.Written
	if seen, ok := o.Previous[e.Key.ID()]; ok && seen.Before(since) {
		since = seen
	}
	return since.Add(p.Timing.RollbackKeep)
}

// retirable reports whether e may be dropped, given that the current key was seen in force.
func (e *Entry) retirable(s Snapshot, o Observation, p *Policy) bool {
	return e.State == Previous && !o.At.Before(e.AcceptUntil) && !o.At.Before(provenAt(e, s, o, p))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sooner ignores the zero time, which stands for never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
