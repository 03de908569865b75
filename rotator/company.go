package rotator

import "time"

// Replicas need no list of each other. What one reads in the store tells it who else is there, which
// makes no difference to what it may do: it saves requests.

// companyLimit is for how long another replica that was noticed is reckoned with.
const companyLimit = time.Hour

// notice takes account of what a read, or a write that found another version, shows of others.
func (e *Engine) notice(tr *track, s Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	replicas, place := e.noticed(tr, s)
	if replicas != e.replicas || place != e.place {
		e.replicas, e.place = replicas, place
		e.share(replicas, place) // under the lock: or what was true before could be told last
	}
}

// noticed gives how many replicas there are, and which of them this one is. The caller holds e.mu.
func (e *Engine) noticed(tr *track, s Snapshot) (replicas, place int) {
	if s.Version < tr.snap.Version {
		e.era++
	}
	now := e.moment()
	e.readAt = now
	changed := tr.snap.Keyring != nil && s.Version != tr.snap.Version
	foreign := s.Keyring != nil && s.Keyring.Pending() != nil && s.Keyring.Rotation.Owner != e.policy.Owner
	if changed || foreign {
		e.company = now.steady
	}
	if changed && goneOn(tr.snap, s) && tr.snap.Keyring.Rotation.Owner != e.policy.Owner {
		e.peers[tr.snap.Keyring.Rotation.Owner] = peer{now.steady, now.wall.Add(e.policy.Timing.Lease)}
	}
	if foreign {
		e.meet(s.Keyring.Rotation, s.Keyring.Pending().PushAfter, now)
	}
	replicas = 1
	for owner, p := range e.peers {
		switch {
		case now.steady-p.met >= companyLimit:
			delete(e.peers, owner)
			continue
		case owner < e.policy.Owner:
			place++
		}
		replicas++
	}
	return replicas, place
}

// peer is another replica that carries rotations out.
type peer struct {
	met   time.Duration // when its lease was last seen, by the steady clock
	lease time.Time     // until when the longest is that was seen
}

// goneOn reports whether who had the rotation of was in hand has gone on with it: it needs two writes to
// confirm and to commit it. Who takes it over needs one more.
func goneOn(was, is Snapshot) bool {
	switch {
	case was.Keyring.Pending() == nil || is.Keyring == nil:
		return false
	case is.Keyring.Pending() != nil:
		return is.Keyring.Rotation.Owner == was.Keyring.Rotation.Owner
	}
	return is.Version <= was.Version+2
}

// meet notes who carries a rotation out, or that it has not ended one in time and has no other in hand. (In
// a wave all wait for longer than their lease.) A command that leaves its rotation to the daemons has no
// lease, nor has one that was given back.
func (e *Engine) meet(r *Rotation, begins time.Time, now moment) {
	p := e.peers[r.Owner]
	switch {
	case !now.wall.Before(p.lease) && !now.wall.Before(r.LeaseUntil):
		delete(e.peers, r.Owner)
	case now.wall.Before(r.LeaseUntil) && r.LeaseUntil.After(begins):
		e.peers[r.Owner] = peer{now.steady, later(p.lease, r.LeaseUntil)}
	}
}
