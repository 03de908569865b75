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
	StepRestore  Step = "restore"  // write anew what receivers read, which somebody changed by hand
	StepRaise    Step = "raise"    // write down how late receivers may be, which this process was told of
)

// Action is the next step of a target.
type Action struct {
	Step  Step
	Until time.Time // StepWait: when to decide again; an idle look: when to do so if it was put off
	Why   string
	Idle  bool // StepObserve: of a settled target, so that it can wait
	Watch bool // StepWait: the store has to be read meanwhile, for receivers to be known to do
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
	At       time.Time // when the request that told was begun; never after now
	NextLook time.Time // Tencent is not asked again before
	NextPush time.Time // nothing is set before
	Refused  Key       // the key that Tencent refused for good, if any

	// NextPutBack is until when the current key is not put back, because somebody undoes that. It holds
	// no other key up.
	NextPutBack time.Time

	// Since is when this replica began to find the pending key in the store at every look.
	// Receivers are given Propagation from then: neither a write that took effect late nor
	// a spell in which the store could not be read counts for them.
	Since time.Time
	// CurrentSince is the same of the current key.
	CurrentSince time.Time
	// SetAt is when the request was begun of which Tencent last said that it set the current key; zero: it
	// never said so to this replica.
	SetAt time.Time
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
		return adopt(o, now, p, "there is no keyring yet")
	}
	k := s.Keyring
	if k.Edited {
		return Action{Step: StepRestore, Why: "callback_key or accept was changed by hand: receivers may refuse genuine callbacks"}
	}
	if p.raises(k) {
		return Action{Step: StepRaise, Why: "the keyring does not say that receivers may be as late as TIWKEYD_PROPAGATION"}
	}
	cur, pend := k.Current(), k.Pending()
	if o.Sight == Seen {
		switch {
		case pend != nil && o.Key.Equal(pend.Key):
			return Action{Step: StepCommit, Why: "the pending key is in force"}
		case cur == nil && !o.Key.IsZero():
			return adopt(o, now, p, "a key is in force where there was none")
		case cur != nil && !o.Key.Equal(cur.Key) && (pend == nil || now.Before(readyAt(k, pend, o, now, p))):
			if a, acts := decideDrift(s, cur, o, now, p); acts && w.Asked == "" {
				return a // what is asked for, above all a revocation, does not wait for that
			}
		}
	}
	if pend != nil {
		return decidePending(s, pend, o, now, w, p)
	}
	return decideSettled(s, cur, o, now, w, p)
}

// adopt takes over the key that was seen a moment ago: nobody holds Tencent still meanwhile.
func adopt(o Observation, now time.Time, p *Policy, why string) Action {
	if o.Sight == Seen && o.younger(p.Timing.PushDeadline, now) {
		return Action{Step: StepAdopt, Why: why}
	}
	return look(o, now, why)
}

// younger reports whether the last look was begun within d.
func (o Observation) younger(d time.Duration, now time.Time) bool {
	return !o.At.Before(now.Add(-d))
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
func decideDrift(s Snapshot, cur *Entry, o Observation, now time.Time, p *Policy) (Action, bool) {
	ours := s.Keyring.Lookup(o.Key) != nil
	known := s.knownAt(cur, o, p)
	switch {
	case !ours && p.OnDrift == AlarmOnly:
		return Action{}, false
	case !ours && p.OnDrift == AdoptKey && !o.Key.IsZero() && !s.Keyring.went(o.Key):
		return adopt(o, now, p, "a foreign key is in force"), true
	case len(cur.Key.Reveal()) > MaxKeyLength:
		return Action{}, false // Tencent does not take it back: the next key puts it right
	case now.Before(known):
		return Action{Step: StepWait, Until: known, Why: "receivers come to accept the key that was adopted", Watch: true}, true
	case now.Before(o.NextPush):
		return Action{Step: StepWait, Until: o.NextPush, Why: "the current key could not be put back yet"}, true
	case now.Before(o.NextPutBack): // a pending key goes on
		return Action{Step: StepWait, Until: o.NextPutBack, Why: "somebody else sets another key whenever the current one is put back"}, s.Keyring.Pending() == nil
	case ours:
		return Action{Step: StepReassert, Why: "a late request brought an older key back"}, true
	}
	return Action{Step: StepReassert, Why: "a foreign key, or none, is in force"}, true
}

func decidePending(s Snapshot, pend *Entry, o Observation, now time.Time, w Wish, p *Policy) Action {
	r, ready := s.Keyring.Rotation, readyAt(s.Keyring, pend, o, now, p)
	lease, retryAt := p.plausible(r.LeaseUntil, now, p.longestLease(pend)), p.plausible(r.RetryAt, now, jittered(p.Timing.RetryMax))
	switch {
	case w.Asked == ByRevoke && r.Reason != ByRevoke:
		return Action{Step: StepHasten, Why: "a key is to be revoked at once"}
	case o.Sight == Unseen:
		return look(o, now, "a rotation is in hand")
	case now.Before(ready):
		if a, acts := decideRetire(s, o, now, p); acts && (a.Step == StepRetire || a.Step == StepObserve) {
			return a
		}
		return Action{Step: StepWait, Until: ready, Why: "receivers come to accept the pending key"}
	case o.Refused.Equal(pend.Key):
		return Action{Step: StepRollback, Why: "Tencent refused the pending key"}
	case r.LastError != nil && !now.Before(pend.PushAfter.Add(p.AttemptLimit)):
		return Action{Step: StepRollback, Why: "the pending key was tried for as long as it may be"}
	case r.Owner != p.Owner && now.Before(lease):
		return Action{Step: StepWait, Until: lease, Why: "another replica carries the rotation out"}
	case r.Owner != p.Owner:
		return Action{Step: StepClaim, Why: "the replica that began the rotation went away"}
	case o.Sight == Unanswered:
		return look(o, now, "a rotation is in hand")
	}
	if hold := later(retryAt, o.NextPush); now.Before(hold) {
		return Action{Step: StepWait, Until: hold, Why: "Tencent is tried again after a pause"}
	}
	return Action{Step: StepPush, Why: "receivers accept the pending key"}
}

// readyAt is when every receiver accepts the pending key.
func readyAt(k *Keyring, pend *Entry, o Observation, now time.Time, p *Policy) time.Time {
	ready := p.plausible(pend.PushAfter, now, p.propagation(pend))
	if k.Rotation.Reason == ByRevoke {
		return ready
	}
	return later(ready, o.Since.Add(p.propagation(pend)))
}

func decideSettled(s Snapshot, cur *Entry, o Observation, now time.Time, w Wish, p *Policy) Action {
	due := w.Due
	if r := s.Keyring.Rotation; r != nil && !w.Paused {
		due = p.plausible(r.RetryAt, now, jittered(p.Timing.RefusedMax)) // the last rotation failed
	}
	seen := (o.Sight == Seen || o.Sight == Forbidden) && o.younger(2*p.Reconcile, now) // in a wave looks are put off
	wanted := w.Asked != "" || (!due.IsZero() && !now.Before(due))
	retire, retires := decideRetire(s, o, now, p)
	switch {
	case retire.Step == StepRetire:
		return retire
	case wanted && seen:
		return Action{Step: StepStage, Why: "a new key is wanted"}
	case wanted:
		return look(o, now, "a new key is wanted")
	case o.Sight == Unseen:
		return canWait(look(o, now, "not looked yet"), due)
	case retires && retire.Step != StepWait:
		return canWait(retire, due)
	}
	next := later(o.At.Add(p.Reconcile), o.NextLook)
	if o.Sight == Unanswered || o.Sight == Barred {
		next = o.NextLook
	}
	if !now.Before(next) {
		return canWait(look(o, now, "time to look again"), due)
	}
	next = sooner(next, due)
	if retires { // then it is a wait
		next = sooner(next, retire.Until)
	}
	for i := range s.Keyring.Keys {
		if until := s.acceptUntil(&s.Keyring.Keys[i], o, p); until.After(now) { // a previous key's
			next = sooner(next, until)
		}
	}
	return Action{Step: StepWait, Until: next, Why: "settled", Watch: retire.Watch}
}

// canWait marks a look that can wait, though not for longer than until a new key is due.
func canWait(a Action, due time.Time) Action {
	if a.Step == StepObserve {
		a.Idle, a.Until = true, due
	}
	return a
}

// decideRetire says what to do about previous keys whose time is over; nothing if there
// are none. The look that proves the current key in force must be younger than every
// request that could still bring the old key back, so it must have begun after AcceptUntil.
// Where a look proves nothing, or too little, the current key is set once more.
func decideRetire(s Snapshot, o Observation, now time.Time, p *Policy) (Action, bool) {
	cur := s.Keyring.Current()
	var over *Entry
	var until time.Time
	for i := range s.Keyring.Keys {
		e := &s.Keyring.Keys[i]
		switch proven := s.provenAt(e, o, p); {
		case e.State != Previous || now.Before(s.acceptUntil(e, o, p)):
		case now.Before(proven):
			until = sooner(until, proven)
		case over == nil || !s.retirable(over, o, p): // one that can go does not wait for one that cannot
			over = e
		}
	}
	if over == nil {
		return Action{Step: StepWait, Until: until, Why: "a key was replaced a moment ago"}, !until.IsZero()
	}
	seen := o.Sight == Seen && o.Key.Equal(s.Keyring.CallbackKey())
	switch fresh := s.goneBy(over, o.At, o, p); {
	case seen && s.retirable(over, o, p):
		return Action{Step: StepRetire, Why: "its successor is in force"}, true
	case fresh && cur != nil && (seen || o.Sight == Forbidden):
		known := s.knownAt(cur, o, p)
		if hold := later(o.NextPush, known); now.Before(hold) {
			return Action{Step: StepWait, Until: hold, Why: "the current key is to be set again before an old one goes", Watch: now.Before(known)}, true
		}
		return Action{Step: StepReassert, Why: "no look proves that an old key cannot come back: the current one is set before it goes"}, true
	case o.Sight == Seen && fresh: // a foreign key that is to be left alone
		return Action{}, false
	}
	return look(o, now, "a key is to be retired"), true
}
