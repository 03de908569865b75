package rotator

import (
	"slices"
	"time"

	"tiwkeyd/secrets"
)

// The transitions give the keyring that a step writes, from the one it was decided on.
// They are pure and leave their receiver alone.

// adopted takes key, found in force at Tencent, as the current one; the zero Key means that
// callbacks are unsigned so far. id names a key that the keyring does not have yet.
func (k *Keyring) adopted(t secrets.Target, key secrets.Key, id string, now time.Time, p *Policy) *Keyring {
	if k == nil {
		n := &Keyring{Target: t, AcceptUnsigned: key.IsZero()}
		if !key.IsZero() {
			n.Keys = []Entry{foreign(key, id, now, p)}
		}
		if p.PropagationSet {
			return n.raised(p)
		}
		return n
	}
	n := k.Clone()
	n.AcceptUnsigned = false
	n.RotatedAt = now
	n.History = remembered(k.History, Past{StartedAt: now, Overlap: p.Grace})
	n.replaceCurrent(now.Add(p.Grace))
	if e := n.Lookup(key); e != nil {
		e.State, e.ActivatedAt, e.AcceptUntil, e.Confirmed = Current, now, time.Time{}, false
		return n
	}
	n.Keys = append(n.Keys, foreign(key, id, now, p))
	return n
}

// foreign is a key that was found in force: receivers come to know it only now, and other replicas' clocks may
// be ahead.
func foreign(key secrets.Key, id string, now time.Time, p *Policy) Entry {
	return Entry{Key: key.Named(id), State: Current, CreatedAt: now, PushAfter: now.Add(p.Propagation + p.Timing.Skew), ActivatedAt: now}
}

func (k *Keyring) replaceCurrent(acceptUntil time.Time) {
	if e := k.Current(); e != nil {
		e.State, e.AcceptUntil = Previous, acceptUntil
	}
}

// restored is k again: what receivers read is made from its keys anew.
func (k *Keyring) restored(now time.Time, p *Policy) *Keyring {
	n := k.Again()
	if e := n.Pending(); e != nil && n.Rotation.Reason != ByRevoke {
		wait := p.propagation(e)
		e.CreatedAt = later(e.CreatedAt, now)
		e.PushAfter = e.CreatedAt.Add(wait)
	}
	return n
}

// staged adds key as the pending one.
func (k *Keyring) staged(key secrets.Key, rotationID string, reason Reason, now time.Time, p *Policy) *Keyring {
	n := k.Clone()
	pushAfter := now.Add(p.Propagation)
	if reason == ByRevoke {
		pushAfter = now
	}
	attempts := 0
	if n.Rotation != nil {
		attempts = n.Rotation.Attempts
	}
	n.Keys = append(n.Keys, Entry{Key: key, State: Pending, CreatedAt: now, PushAfter: pushAfter})
	n.Rotation = &Rotation{
		ID: rotationID, Reason: reason, StartedAt: now, Attempts: attempts,
		Owner: p.Owner, LeaseUntil: pushAfter.Add(p.Timing.Lease),
	}
	return n
}

// hastened turns the rotation in hand into a revocation, which waits for nobody.
func (k *Keyring) hastened(now time.Time, p *Policy) *Keyring {
	n := k.claimed(now, p)
	n.Rotation.Reason = ByRevoke
	if e := n.Pending(); e.PushAfter.After(now) {
		e.PushAfter = now
	}
	return n
}

// claimed makes the rotation ours for a lease.
func (k *Keyring) claimed(now time.Time, p *Policy) *Keyring {
	n := k.Clone()
	n.Rotation.Owner = p.Owner
	n.Rotation.LeaseUntil = now.Add(p.Timing.Lease)
	return n
}

// tried is k before a request to set key is sent.
func (k *Keyring) tried(key secrets.Key) *Keyring { return k.doubted(key, 1) }

// answered is k after a request to set key is over, and can bring it into force no more.
func (k *Keyring) answered(key secrets.Key) *Keyring { return k.doubted(key, -1) }

func (k *Keyring) doubted(key secrets.Key, by int) *Keyring {
	n := k.Clone()
	if e := n.Lookup(key); e != nil {
		e.Doubts = max(0, e.Doubts+by)
	}
	return n
}

// failed records a failed request. A target with nothing in hand gets a rotation for it, so
// that RetryAt holds the schedule back.
func (k *Keyring) failed(f Failure, reason Reason, retryAt time.Time, p *Policy) *Keyring {
	n := k.Clone()
	if n.Rotation == nil {
		n.Rotation = &Rotation{Reason: reason, StartedAt: f.At}
	}
	r := n.Rotation
	r.Attempts++
	r.RetryAt = retryAt
	r.LastError = &f
	if e := n.Pending(); e != nil {
		e.PushAfter = earlier(e.PushAfter, f.At) // it was tried, so its time had come
		r.Owner, r.LeaseUntil = p.Owner, retryAt.Add(p.Timing.Lease)
	}
	return n
}

// committed makes the pending key current: it was seen in force. confirmed says that Tencent answered, too,
// that it was set.
func (k *Keyring) committed(confirmed bool, now time.Time, p *Policy) *Keyring {
	n := k.Clone()
	past := n.Rotation.ended(now, p.Grace)
	leaked := n.Current()
	n.replaceCurrent(now.Add(p.Grace))
	e := n.Pending()
	if e.State, e.ActivatedAt, e.Confirmed = Current, now, confirmed; confirmed {
		e.Doubts = max(0, e.Doubts-1)
	}
	if n.Rotation.Reason == ByRevoke {
		past.Overlap = 0
		for i := range n.Keys {
			if e := &n.Keys[i]; e.State == Previous && e != leaked {
				n.Revoked = remember(n.Revoked, Revoked{ID: e.Key.ID(), Fingerprint: e.Key.Fingerprint()})
			}
		}
		if leaked != nil { // the last, so that it is kept
			n.Revoked = remember(n.Revoked, Revoked{ID: leaked.Key.ID(), Fingerprint: leaked.Key.Fingerprint()})
		}
		n.Keys = slices.DeleteFunc(n.Keys, func(e Entry) bool { return e.State == Previous })
	}
	n.RotatedAt = now
	n.Rotation = nil
	n.AcceptUnsigned = false
	n.History = remembered(k.History, past)
	return n
}

// rolledBack takes the pending key back. It stays accepted for a while even after a
// definite refusal: another replica's request for it may still be under way.
func (k *Keyring) rolledBack(f Failure, retryAt, now time.Time, p *Policy) *Keyring {
	n := k.Clone()
	e := n.Pending()
	e.State, e.AcceptUntil = Previous, now.Add(p.Timing.RollbackKeep)
	r := n.Rotation
	r.Attempts++
	r.LastError = &f
	r.RetryAt = retryAt
	r.Owner, r.LeaseUntil = "", time.Time{}
	past := r.ended(now, p.Timing.RollbackKeep)
	past.Code = f.Code
	n.History = remembered(k.History, past)
	return n
}

// retired drops the previous keys whose time was over when the current one was seen.
func (f *facts) retired() (*Keyring, []secrets.Key) {
	n := f.Keyring.Clone()
	var gone []secrets.Key
	n.Keys = slices.DeleteFunc(n.Keys, func(e Entry) bool {
		if !f.retirable(&e) {
			return false
		}
		gone = append(gone, e.Key)
		n.Retired = remember(n.Retired, e.Key.Fingerprint())
		return true
	})
	return n, gone
}
