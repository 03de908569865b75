package rotator

import "time"

// In a fleet most visits find the keyring as this replica left it. To read it each time would
// double what Vault is asked. A visit may begin with what is remembered instead, for nothing is
// done on its strength: a write names the version that is remembered, and a key is set only after
// such a write. What a version number cannot tell is that the store was put back to an older state
// and has gone on from there; so somebody's keyring is read all the time, and when one is found
// older than it was, all that is remembered is void.

// recallLimit is how long ago the store last told a keyring for others to be remembered.
const recallLimit = 30 * time.Second

// recall begins a visit without a read, if it may.
func (e *Engine) recall(tr *track) bool {
	k, now := tr.snap.Keyring, e.moment()
	if k == nil || !tr.kept { // or the store has failed, or the clock was set back
		return false
	}
	e.mu.Lock()
	unbroken := e.unbroken
	read, answer := e.readAt.since(now), e.lastRead.since(now)
	ok := tr.held && tr.era == e.era && read <= recallLimit && !now.wall.Before(e.lastRead.wall)
	company := now.steady-e.company < companyLimit
	spared := k.Pending() != nil && now.wall.Before(e.peers[k.Rotation.Owner].busy.Add(-e.policy.Timing.Lease/2))
	e.mu.Unlock()
	p := &e.policy
	switch pend := k.Pending(); {
	case !ok || now.wall.Before(tr.latest):
		return false
	case pend == nil && company:
		return false // who may well have been here since
	case pend != nil && (answer >= p.probe() || (k.Rotation.Owner != p.Owner && !spared && !now.wall.Before(k.Rotation.LeaseUntil))):
		return false
	case pend != nil:
		tr.pendingSeen.see(pend.Key, unbroken, now.steady)
	}
	tr.currentSeen.see(k.CallbackKey(), unbroken, now.steady)
	tr.recalled = true
	return true
}

// mustRead reports whether a step has to rest on more than memory: one that writes does so by
// itself, and so does the look after a key was set.
func (e *Engine) mustRead(tr *track, a Action) bool {
	switch a.Step {
	case StepWait, StepStage, StepPush, StepCommit, StepRetire:
		return false
	case StepObserve: // before an old key goes, it is the writing that proves
		return !a.Idle || tr.obs.Sight != Seen || !e.clock.Now().Before(tr.obs.At.Add(e.Interval()))
	}
	return true
}

func (e *Engine) eraNow() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.era
}
