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
	now := e.moment()
	if s.Keyring != nil && s.Keyring.Pending() != nil && s.Keyring.Rotation.Owner != e.policy.Owner {
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
	met   time.Duration // when it was last noticed, by the steady clock
	lease time.Time     // until when the longest is that was seen
}

// meet notes who carries a rotation out, or that it has not ended one in time. A command that leaves its
// rotation to the daemons has no lease, nor has one that was given back.
func (e *Engine) meet(r *Rotation, begins time.Time, now moment) {
	p := e.peers[r.Owner]
	switch {
	case !now.wall.Before(p.lease) && !now.wall.Before(r.LeaseUntil):
		delete(e.peers, r.Owner)
	case now.wall.Before(r.LeaseUntil) && r.LeaseUntil.After(begins):
		p.met, p.lease = now.steady, later(p.lease, r.LeaseUntil)
		e.peers[r.Owner] = p
	}
}
