package rotator

import (
	"hash/fnv"
	"io"
	"slices"

	"tiwkeyd/secrets"
)

// Serve has Run look after more targets, from now on or once it runs. One that has no keyring is
// adopted.
func (e *Engine) Serve(targets ...secrets.Target) { e.serve(false, targets) }

// ServeFound is Serve for targets whose keyrings were found in the store. One whose keyring is gone
// was removed by somebody: it is left alone, and no longer served.
func (e *Engine) ServeFound(targets ...secrets.Target) { e.serve(true, targets) }

func (e *Engine) serve(found bool, targets []secrets.Target) {
	e.mu.Lock()
	for _, t := range targets {
		tr := e.trackLocked(t)
		tr.found = found && (tr.found || !tr.served)
		if tr.served {
			continue
		}
		tr.served = true
		e.served++
		if !tr.held {
			tr.held = true
			e.arrived = append(e.arrived, tr)
		}
	}
	e.mu.Unlock()
	e.rouse()
}

// Drop has Run no longer look after the targets. The step in hand is finished.
func (e *Engine) Drop(targets ...secrets.Target) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range targets {
		if tr := e.tracks[t]; tr != nil {
			e.dropLocked(tr)
		}
	}
}

// dropLocked forgets a target, if Run does not hold it: else Run does so itself. The caller holds
// e.mu.
func (e *Engine) dropLocked(tr *track) {
	if tr.served {
		tr.served = false
		e.served--
	}
	if !tr.held && e.tracks[tr.target] == tr {
		delete(e.tracks, tr.target)
	}
}

// removed hears that a target has no keyring, and reports whether it was found in the store by one. To adopt
// it again would give a key back to an application that somebody took out.
func (e *Engine) removed(tr *track) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := tr.standing
	switch was := s != nil && s.Adopted; {
	case !tr.found:
		if was || tr.snap.Version > 0 && (s == nil || !s.Read) { // of a version that was deleted the store knows
			e.log.Warn("the keyring that was there is gone: the key in force is adopted anew; if nobody meant that, see who deleted the secret",
				"target", tr.target.String(), "store", e.store.String())
		}
		return false
	case tr.served && was: // else only its name was left
		e.log.Warn("the keyring is gone: the target is served no longer; if that was a mistake, bring the keyring back or enroll the target again",
			"target", tr.target.String(), "store", e.store.String())
	}
	e.dropLocked(tr)
	if e.gone != nil {
		e.gone(tr.target)
	}
	return true
}

// arrivals gives what is served since the last call.
func (e *Engine) arrivals() []*track {
	e.mu.Lock()
	defer e.mu.Unlock()
	arrived := e.arrived
	e.arrived = nil
	return arrived
}

// retreat ends the service of all targets; what is known of them stays, for Reconfigure and Targets.
func (e *Engine) retreat() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, tr := range e.tracks {
		tr.served, tr.found, tr.held = false, false, false
	}
	e.served, e.arrived = 0, nil
}

// keeps reports whether Run is still to look after a target that it holds; one that it is not
// to is forgotten.
func (e *Engine) keeps(tr *track) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tr.served {
		return true
	}
	tr.held = false
	e.dropLocked(tr)
	return false
}

// rouse has Run take account of what is new.
func (e *Engine) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Targets lists what the engine has dealt with, in order.
func (e *Engine) Targets() []secrets.Target { return e.list(func(*track) bool { return true }) }

// Served lists what Run looks after, or will, in order.
func (e *Engine) Served() []secrets.Target { return e.list(func(tr *track) bool { return tr.served }) }

func (e *Engine) list(wanted func(*track) bool) []secrets.Target {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ts []secrets.Target
	for t, tr := range e.tracks {
		if wanted(tr) {
			ts = append(ts, t)
		}
	}
	slices.SortFunc(ts, secrets.Target.Compare)
	return ts
}

// rank is this replica's own place for a target among those that are due at one moment
// (rendezvous hashing): a hint of who goes first, which needs no list of replicas.
func (e *Engine) rank(t secrets.Target) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, e.policy.Owner+" "+t.String())
	return h.Sum32()
}
