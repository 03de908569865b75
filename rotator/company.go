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
	changed := tr.snap.Keyring != nil && s.Version != tr.snap.Version
	foreign := s.Keyring != nil && s.Keyring.Pending() != nil && s.Keyring.Rotation.Owner != e.policy.Owner
	if changed && goneOn(tr.snap, s) && tr.snap.Keyring.Rotation.Owner != e.policy.Owner {
		p := e.peers[tr.snap.Keyring.Rotation.Owner]
		p.met, p.busy = now.steady, later(p.busy, sooner(s.Written, now.wall).Add(e.policy.Timing.Lease))
		e.peers[tr.snap.Keyring.Rotation.Owner] = p
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
	met   time.Duration // when it was last noticed, by the steady clock
	lease time.Time     // until when the longest is that was seen
	busy  time.Time     // a lease after it was last known to go on with a rotation
}

// behindLimit is how late a visit may be before this replica has enough to do, and spareCheck how soon it
// sees again whether it has.
const (
	behindLimit = 200 * time.Millisecond
	spareCheck  = 10 * time.Second
)

// spare leaves a rotation to its owner although its lease has passed, if the owner goes on with others and
// this replica has enough to do. In a wave that takes longer than a lease replicas would take over from each
// other all the time, and each time costs a look at Tencent. Who asks for one target need not wait for
// the wave, though.
func (e *Engine) spare(tr *track, a Action) Action {
	if a.Step != StepClaim || tr.behind < behindLimit {
		return a
	}
	if r := tr.snap.Keyring.Rotation.Reason; r == ByCommand || r == ByRevoke {
		return a
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.clock.Now(); now.Before(e.peers[tr.snap.Keyring.Rotation.Owner].busy) {
		return Action{Step: StepWait, Until: now.Add(spareCheck), Why: "its owner goes on with other rotations"}
	}
	return a
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

// meet notes who carries a rotation out, or that it has not ended one in time and does nothing else. A
// command that leaves its rotation to the daemons has no lease, nor has one that was given back.
func (e *Engine) meet(r *Rotation, begins time.Time, now moment) {
	p := e.peers[r.Owner]
	switch {
	case !now.wall.Before(p.lease) && !now.wall.Before(p.busy) && !now.wall.Before(r.LeaseUntil):
		delete(e.peers, r.Owner)
	case now.wall.Before(r.LeaseUntil) && r.LeaseUntil.After(begins):
		p.met, p.lease = now.steady, later(p.lease, r.LeaseUntil)
		e.peers[r.Owner] = p
	}
}
