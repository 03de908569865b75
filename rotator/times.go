package rotator

import "time"

// The times in a keyring come from other machines' clocks, and from moments before the write
// that holds them took effect. This file says what they are worth.

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
func (s Snapshot) knownAt(cur *Entry, o Observation, p *Policy) time.Time {
	known := cur.PushAfter
	if !s.Written.IsZero() {
		known = earlier(known, s.Written.Add(p.propagation(cur)+p.Timing.Skew))
	}
	if cur.PushAfter.After(cur.ActivatedAt) {
		known = later(known, o.CurrentSince.Add(p.propagation(cur)))
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
func (s Snapshot) previousSince(e *Entry, o Observation) time.Time {
	seen, known := o.Previous[e.Key.ID()]
	switch {
	case known && s.Written.IsZero():
		return seen
	case known:
		return earlier(seen, s.Written)
	case s.Written.IsZero():
		return o.At // nothing proves anything
	}
	return s.Written
}

// provenAt is when a previous key will certainly have been one for RollbackKeep.
func (s Snapshot) provenAt(e *Entry, o Observation, p *Policy) time.Time {
	return s.previousSince(e, o).Add(p.Timing.RollbackKeep)
}

// acceptUntil is AcceptUntil, bounded for the case that a clock far ahead wrote it.
func (s Snapshot) acceptUntil(e *Entry, o Observation, p *Policy) time.Time {
	return earlier(e.AcceptUntil, s.previousSince(e, o).Add(max(p.Grace, p.Timing.RollbackKeep)+p.Timing.Skew))
}

// goneBy reports whether e's time was over at a moment, by all that could still hold it.
func (s Snapshot) goneBy(e *Entry, at time.Time, o Observation, p *Policy) bool {
	return !at.Before(s.acceptUntil(e, o, p)) && !at.Before(s.provenAt(e, o, p))
}

// unsure reports whether a look that shows the current key in force proves too little for the previous
// key e to go. What Tencent tells may be older than what it does: so a key that was sent in doubt may be in
// force, and a key of which Tencent never said that it was set may not be.
func (s Snapshot) unsure(e *Entry) bool {
	cur := s.Keyring.Current()
	return e.Doubts > 0 || (!e.ActivatedAt.IsZero() && (cur == nil || !cur.Confirmed))
}

// retirable reports whether e may be dropped, given that the current key was seen in force.
func (s Snapshot) retirable(e *Entry, o Observation, p *Policy) bool {
	return e.State == Previous && s.goneBy(e, o.At, o, p) && (!s.unsure(e) || s.goneBy(e, o.SetAt, o, p))
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
