package rotator

import "time"

// Phase is where a target stands.
type Phase string

// The phases of a target.
const (
	Unread     Phase = "unread"      // the store was not read yet
	Unadopted  Phase = "unadopted"   // there is no keyring yet
	Unsigned   Phase = "unsigned"    // no key was ever set
	Settled    Phase = "settled"     // one current key, nothing in hand
	Waiting    Phase = "waiting"     // receivers come to accept the pending key
	Pushing    Phase = "pushing"     // the pending key is being set, and looked for
	RolledBack Phase = "rolled_back" // the last rotation failed; it is tried again later
)

// Phases lists every Phase.
func Phases() []Phase {
	return []Phase{Unread, Unadopted, Unsigned, Settled, Waiting, Pushing, RolledBack}
}

// PhaseOf is the phase of the target whose keyring was read, or found not to be there; ready is when every
// receiver accepts its pending key; zero: it has none.
func PhaseOf(k *Keyring, ready, now time.Time) Phase {
	switch {
	case k == nil:
		return Unadopted
	case now.Before(ready):
		return Waiting
	case k.Pending() != nil:
		return Pushing
	case k.Rotation != nil:
		return RolledBack
	case k.Current() == nil:
		return Unsigned
	}
	return Settled
}

// facts are all that Decide goes by, worked out once. The times in a keyring come from other machines'
// clocks, and from moments before the write that holds them took effect: facts say what they are worth.
type facts struct {
	Snapshot
	Observation
	Wish
	now time.Time
	p   *Policy

	cur, pend *Entry    // of the keyring; nil: it has none
	ready     time.Time // when every receiver accepts the pending key
	known     time.Time // when every receiver knows the current key
	phase     Phase
}

func derive(s Snapshot, o Observation, now time.Time, w Wish, p *Policy) facts {
	f := facts{Snapshot: s, Observation: o, Wish: w, now: now, p: p}
	if s.Keyring != nil {
		f.cur, f.pend = s.Keyring.Current(), s.Keyring.Pending()
	}
	if f.pend != nil {
		f.ready = readyAt(s.Keyring, f.pend, o, now, p)
	}
	if f.cur != nil {
		f.known = f.knownAt()
	}
	f.phase = PhaseOf(s.Keyring, f.ready, now)
	return f
}

// younger reports whether the last look was begun within d.
func (f *facts) younger(d time.Duration) bool { return !f.At.Before(f.now.Add(-d)) }

// inForce reports whether a key was seen in force.
func (f *facts) inForce(e *Entry) bool { return f.Sight == Seen && f.Key.Equal(e.Key) }

// drifted reports whether a key is in force that is not the current one. A pending key that is ready puts that
// right by itself.
func (f *facts) drifted() bool {
	return f.Sight == Seen && f.cur != nil && !f.Key.Equal(f.cur.Key) && f.phase != Pushing
}

// retryAt is when a rotation is to be tried again, at most so far ahead.
func (p *Policy) retryAt(r *Rotation, now time.Time, ahead time.Duration) time.Time {
	return p.plausible(r.RetryAt, now, jittered(ahead))
}

// begins is when the next rotation of a target at rest begins by itself; zero: never. If the last one failed it
// goes by that.
func (p *Policy) begins(k *Keyring, w Wish, now time.Time) time.Time {
	if k.Rotation == nil || w.Paused {
		return w.Due
	}
	return p.retryAt(k.Rotation, now, p.Timing.RefusedMax)
}

// readyAt is when every receiver accepts the pending key.
func readyAt(k *Keyring, pend *Entry, o Observation, now time.Time, p *Policy) time.Time {
	ready := p.plausible(pend.PushAfter, now, p.propagation(pend))
	if k.Rotation.Reason == ByRevoke {
		return ready
	}
	return later(ready, o.Since.Add(p.propagation(pend)))
}

// plausible is a time from the keyring if a clock that was right can have written it: at most
// ahead from now. Else a clock far ahead wrote it, and it holds nothing up: it is now.
func (p *Policy) plausible(t, now time.Time, ahead time.Duration) time.Time {
	if t.After(now.Add(ahead + p.Timing.Skew)) {
		return now
	}
	return t
}

// longestLease is the furthest ahead that a lease can end.
func (p *Policy) longestLease(pend *Entry) time.Duration {
	return max(p.propagation(pend), jittered(p.Timing.RetryMax)) + p.Timing.Lease
}

// MaxPropagation is the longest Policy.Propagation that may be configured.
const MaxPropagation = 24 * time.Hour

// propagation is how late a receiver may see the key: what this replica is told, or what the
// one was told that wrote it, if that is longer.
func (p *Policy) propagation(e *Entry) time.Duration {
	if span := e.PushAfter.Sub(e.CreatedAt); span <= MaxPropagation+p.Timing.Skew {
		return max(p.Propagation, span)
	}
	return p.Propagation
}

// waitFor is how long receivers are given to read the key of k that they may not know yet: the pending
// one, else the current one.
func (p *Policy) waitFor(k *Keyring) time.Duration {
	switch {
	case k != nil && k.Pending() != nil:
		return p.propagation(k.Pending())
	case k != nil && k.Current() != nil:
		return p.propagation(k.Current())
	}
	return p.Propagation
}

// knownAt is when every receiver knows the current key, bounded by when the store took it for
// the case that a clock far ahead wrote it. A key that came into force before receivers could
// know it (a foreign one that was adopted) has to be found in the store like a pending one:
// the store may have been away since.
func (f *facts) knownAt() time.Time {
	known, wait := f.cur.PushAfter, f.p.propagation(f.cur)
	if !f.Written.IsZero() {
		known = earlier(known, f.Written.Add(wait+f.p.Timing.Skew))
	}
	if f.cur.PushAfter.After(f.cur.ActivatedAt) {
		known = later(known, f.CurrentSince.Add(wait))
	}
	return known
}

// jittered is the longest that Engine.delay makes of a pause.
func jittered(d time.Duration) time.Duration { return d + d/4 }

// rotatedAt is when the current key came into force, for the schedule. If a clock far ahead
// wrote that, it is when the store took it; if that is no help either, the key is due.
func (s Snapshot) rotatedAt(now time.Time, p *Policy) time.Time {
	at := s.Keyring.RotatedAt
	if !s.Written.IsZero() && at.After(s.Written.Add(p.Timing.Skew)) {
		at = s.Written
	}
	if at.After(now.Add(p.Timing.Skew)) {
		return time.Time{}
	}
	return at
}

// previousSince is since when a key has certainly been a previous one. Its own times do not
// prove that: the write that made it previous may have been held up on its way and have
// taken effect later than it says.
func (f *facts) previousSince(e *Entry) time.Time {
	seen, known := f.Previous[e.Key.ID()]
	switch {
	case known && f.Written.IsZero():
		return seen
	case known:
		return earlier(seen, f.Written)
	case f.Written.IsZero():
		return f.At // nothing proves anything
	}
	return f.Written
}

// provenAt is when a previous key will certainly have been one for RollbackKeep.
func (f *facts) provenAt(e *Entry) time.Time { return f.previousSince(e).Add(f.p.Timing.RollbackKeep) }

// acceptUntil is AcceptUntil, bounded for the case that a clock far ahead wrote it.
func (f *facts) acceptUntil(e *Entry) time.Time {
	return earlier(e.AcceptUntil, f.previousSince(e).Add(max(f.p.Grace, f.p.Timing.RollbackKeep)+f.p.Timing.Skew))
}

// goneBy reports whether e's time was over at a moment, by all that could still hold it.
func (f *facts) goneBy(e *Entry, at time.Time) bool {
	return !at.Before(f.acceptUntil(e)) && !at.Before(f.provenAt(e))
}

// unsure reports whether a look that shows the current key in force proves too little for the previous
// key e to go. What Tencent tells may be older than what it does: so a key that was sent in doubt may be in
// force, and a key of which Tencent never said that it was set may not be.
func (f *facts) unsure(e *Entry) bool {
	return e.Doubts > 0 || (!e.ActivatedAt.IsZero() && (f.cur == nil || !f.cur.Confirmed))
}

// retirable reports whether e may be dropped, given that the current key was seen in force.
func (f *facts) retirable(e *Entry) bool {
	return e.State == Previous && f.goneBy(e, f.At) && (!f.unsure(e) || f.goneBy(e, f.SetAt))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
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
