package rotator

import (
	"time"

	"tiwkeyd/secrets"
)

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
	Until time.Time // StepWait: when to decide again; an idle look: when to do so if it was put off; zero: never
	Why   string
	Idle  bool // StepObserve: of a settled target, so that it can wait
	Watch bool // StepWait: the store has to be read meanwhile, for receivers to be known to do
	Hold  Hold // StepWait: of what kind
}

// Hold is what a target waits for.
type Hold int

const (
	Moment Hold = iota // the next step's time
	Rest               // nothing: all is done
	Room               // room for a rotation that nobody asked for
	Turn               // its turn to be looked at
)

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
	Key      secrets.Key // if Seen: the zero Key means that callbacks are unsigned
	At       time.Time   // when the request that told was begun; never after now
	NextLook time.Time   // Tencent is not asked again before
	NextPush time.Time   // nothing is set before
	Refused  secrets.Key // the key that Tencent refused for good, if any

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
// restart after a crash is just the next call, and none of its decisions is overruled. s is what the
// store holds, o what is known of Tencent, w whether a new key is wanted.
//
// What keeps invariant I1: a key is pushed only when it is current, or pending and ready
// (every receiver accepts it by then); and a key leaves the keyring only in
// StepRetire, when its AcceptUntil has passed and the current key was seen in force after
// that. A decision may be stale when it is carried out. Writes are check-and-set; a push
// is fenced by Timing.PushDeadline.
func Decide(s Snapshot, o Observation, now time.Time, w Wish, p *Policy) Action {
	f := derive(s, o, now, w, p)
	switch {
	case f.phase == Unadopted:
		return f.adopt("there is no keyring")
	case f.Keyring.Edited:
		return Action{Step: StepRestore, Why: "callback_key or accept was changed by hand: receivers may refuse genuine callbacks"}
	case p.raises(f.Keyring):
		return Action{Step: StepRaise, Why: "the keyring does not say that receivers may be as late as TIWKEYD_PROPAGATION"}
	case f.pend != nil && f.inForce(f.pend):
		return Action{Step: StepCommit, Why: "the pending key is in force"}
	case f.cur == nil && f.Sight == Seen && !f.Key.IsZero():
		return f.adopt("a key is in force where there was none")
	case w.Asked == "" && f.drifted(): // what is asked for, above all a revocation, does not wait for that
		if a, acts := f.decideDrift(); acts {
			return a
		}
	}
	switch f.phase {
	case Waiting, Pushing:
		return f.decidePending()
	default:
		return f.decideSettled()
	}
}

// adopt takes over the key that was seen a moment ago: nobody holds Tencent still meanwhile.
func (f *facts) adopt(why string) Action {
	if f.Sight == Seen && f.younger(f.p.Timing.PushDeadline) {
		return Action{Step: StepAdopt, Why: why}
	}
	return f.look(why)
}

// look asks Tencent, or waits until it may be asked again.
func (f *facts) look(why string) Action {
	if f.now.Before(f.NextLook) {
		return wait(f.NextLook, "Tencent did not tell which key is in force")
	}
	return Action{Step: StepObserve, Why: why}
}

func wait(until time.Time, why string) Action { return Action{Step: StepWait, Until: until, Why: why} }

// decideDrift handles a key in force that is neither current nor pending. A previous key
// of ours is no foreign hand but a request that arrived late: it is always put right.
func (f *facts) decideDrift() (Action, bool) {
	ours := f.Keyring.Lookup(f.Key) != nil
	switch {
	case !ours && f.p.OnDrift == AlarmOnly:
		return Action{}, false
	case !ours && f.p.OnDrift == AdoptKey && !f.Key.IsZero() && !f.Keyring.went(f.Key):
		return f.adopt("a foreign key is in force"), true
	case len(f.cur.Key.Reveal()) > secrets.MaxKeyLength:
		return Action{}, false // Tencent does not take it back: the next key puts it right
	case f.now.Before(f.known):
		a := wait(f.known, "receivers come to accept the key that was adopted")
		a.Watch = true
		return a, true
	case f.now.Before(f.NextPush):
		return wait(f.NextPush, "the current key could not be put back yet"), true
	case f.now.Before(f.NextPutBack): // a pending key goes on
		return wait(f.NextPutBack, "somebody else sets another key whenever the current one is put back"), f.pend == nil
	case ours:
		return Action{Step: StepReassert, Why: "a late request brought an older key back"}, true
	}
	return Action{Step: StepReassert, Why: "a foreign key, or none, is in force"}, true
}

func (f *facts) decidePending() Action {
	r := f.Keyring.Rotation
	lease, hold := f.p.plausible(r.LeaseUntil, f.now, f.p.longestLease(f.pend)), later(f.p.retryAt(r, f.now, f.p.Timing.RetryMax), f.NextPush)
	switch {
	case f.Asked == ByRevoke && r.Reason != ByRevoke:
		return Action{Step: StepHasten, Why: "a key is to be revoked at once"}
	case f.Sight == Unseen:
		return f.look("a rotation is in hand")
	case f.phase == Waiting:
		if a, _ := f.decideRetire(); a.Step == StepRetire || a.Step == StepObserve {
			return a
		}
		return wait(f.ready, "receivers come to accept the pending key")
	case f.Refused.Equal(f.pend.Key):
		return Action{Step: StepRollback, Why: "Tencent refused the pending key"}
	case r.LastError != nil && !f.now.Before(f.pend.PushAfter.Add(f.p.AttemptLimit)):
		return Action{Step: StepRollback, Why: "the pending key was tried for as long as it may be"}
	case r.Owner != f.p.Owner && f.now.Before(lease):
		return wait(lease, "another replica carries the rotation out")
	case r.Owner != f.p.Owner:
		return Action{Step: StepClaim, Why: "the replica that began the rotation went away"}
	case f.Sight == Unanswered:
		return f.look("a rotation is in hand")
	case f.now.Before(hold):
		return wait(hold, "Tencent is tried again after a pause")
	}
	return Action{Step: StepPush, Why: "receivers accept the pending key"}
}

func (f *facts) decideSettled() Action {
	due := f.p.begins(f.Keyring, f.Wish, f.now)
	seen := (f.Sight == Seen || f.Sight == Forbidden) && f.younger(2*f.p.Reconcile) // in a wave looks are put off
	wanted := f.Asked != "" || (!due.IsZero() && !f.now.Before(due))
	retire, retires := f.decideRetire()
	switch {
	case retire.Step == StepRetire:
		return retire
	case wanted && seen && f.Asked == "" && f.Full:
		return Action{Step: StepWait, Until: f.now.Add(f.p.Reconcile), Hold: Room, Why: "enough rotations are under way"}
	case wanted && seen:
		return Action{Step: StepStage, Why: "a new key is wanted"}
	case wanted:
		return f.look("a new key is wanted")
	case f.Sight == Unseen:
		return f.canWait(f.look("not looked yet"), due)
	case retires && retire.Step != StepWait:
		return f.canWait(retire, due)
	}
	next := later(f.At.Add(f.p.Reconcile), f.NextLook)
	if f.Sight == Unanswered || f.Sight == Barred {
		next = f.NextLook
	}
	if !f.now.Before(next) {
		return f.canWait(f.look("time to look again"), due)
	}
	next = sooner(next, due)
	if retires { // then it is a wait
		next = sooner(next, retire.Until)
	}
	for i := range f.Keyring.Keys {
		if until := f.acceptUntil(&f.Keyring.Keys[i]); until.After(f.now) { // a previous key's
			next = sooner(next, until)
		}
	}
	return Action{Step: StepWait, Until: next, Hold: Rest, Why: "settled", Watch: retire.Watch}
}

// canWait marks a look that can wait, though not for longer than until a new key is due.
func (f *facts) canWait(a Action, due time.Time) Action {
	switch {
	case a.Step != StepObserve:
		return a
	case f.InLine:
		return Action{Step: StepWait, Until: due, Hold: Turn, Why: "its turn to be looked at comes"}
	}
	a.Idle, a.Until = true, due
	return a
}

// decideRetire says what to do about previous keys whose time is over; nothing if there
// are none. The look that proves the current key in force must be younger than every
// request that could still bring the old key back, so it must have begun after AcceptUntil.
// Where a look proves nothing, or too little, the current key is set once more.
func (f *facts) decideRetire() (Action, bool) {
	var over *Entry
	var until time.Time
	for i := range f.Keyring.Keys {
		e := &f.Keyring.Keys[i]
		switch proven := f.provenAt(e); {
		case e.State != Previous || f.now.Before(f.acceptUntil(e)):
		case f.now.Before(proven):
			until = sooner(until, proven)
		case over == nil || !f.retirable(over): // one that can go does not wait for one that cannot
			over = e
		}
	}
	if over == nil {
		return wait(until, "a key was replaced a moment ago"), !until.IsZero()
	}
	seen := f.Sight == Seen && f.Key.Equal(f.Keyring.CallbackKey())
	switch fresh := f.goneBy(over, f.At); {
	case seen && f.retirable(over):
		return Action{Step: StepRetire, Why: "its successor is in force"}, true
	case fresh && f.cur != nil && (seen || f.Sight == Forbidden):
		if hold := later(f.NextPush, f.known); f.now.Before(hold) {
			return Action{Step: StepWait, Until: hold, Why: "the current key is to be set again before an old one goes", Watch: f.now.Before(f.known)}, true
		}
		return Action{Step: StepReassert, Why: "no look proves that an old key cannot come back: the current one is set before it goes"}, true
	case f.Sight == Seen && fresh: // a foreign key that is to be left alone
		return Action{}, false
	}
	return f.look("a key is to be retired"), true
}
