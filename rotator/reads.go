package rotator

import (
	"slices"
	"sync"
	"time"

	"tiwkeyd/secrets"
)

// A receiver needs time to read a new key, and that time passes only while the store can be read.
// This file counts it. Only reads of the keyring itself count, and only while they find the key.

// slowAnswer is how much of a call's time does not count as a pause of this process. If the call
// before took longer, too, the store is slow, and that much does not count either.
const slowAnswer = 5 * time.Second

// watch is since when a key was found in the store at every read, by the steady clock.
type watch struct {
	key     secrets.Key
	renewed int // Entry.Renewed
	since   time.Duration
}

// see notes a read at now that found key. lost is how much of the time since the last read does not
// count.
func (w *watch) see(key secrets.Key, renewed int, lost, now time.Duration) {
	if !key.Equal(w.key) || renewed != w.renewed {
		w.key, w.renewed, w.since = key, renewed, now
	}
	w.since = min(w.since+lost, now)
}

// took remembers a snapshot that a call begun at began has read or written, and since when its keys
// have been found in the store.
func (e *Engine) took(tr *track, s Snapshot, began moment) {
	p := e.policy.Of(s.Keyring)
	tr.wait = p.waitFor(s.Keyring)
	lost := e.lost(tr, began, 3*probe(tr.wait))
	now := e.moment()
	var pend, cur secrets.Key
	renewed := 0
	if tr.snap = s; s.Keyring != nil {
		cur = s.Keyring.CallbackKey()
		if p := s.Keyring.Pending(); p != nil {
			pend, renewed, tr.pending = p.Key, p.Renewed, p.Key
		}
		if s.Keyring.Edited {
			pend, cur = secrets.Key{}, secrets.Key{} // receivers may not find them
		}
	}
	tr.pendingSeen.see(pend, renewed, lost, now.steady)
	tr.currentSeen.see(cur, 0, lost, now.steady)
	tr.storeFails = 0
	tr.previousSeen = previousSeen(s.Keyring, tr.previousSeen, now.steady)
	tr.date(now)
}

// counts is since when a key that is about to be set has been found; 0 if it does not matter, because
// receivers know the key or need no time.
func (tr *track) counts(key secrets.Key) time.Duration {
	k := tr.snap.Keyring
	switch pend, cur := k.Pending(), k.Current(); {
	case tr.wait <= 0:
	case pend != nil && pend.Key.Equal(key) && k.Rotation.Reason != ByRevoke:
		return tr.pendingSeen.since
	case cur != nil && cur.Key.Equal(key) && cur.PushAfter.After(cur.ActivatedAt):
		return tr.currentSeen.since
	}
	return 0
}

// lost is how much of the time since the keyring was last read does not count for receivers. began is
// when the call was begun that was answered now. A gap of up to limit counts in full. Of a longer gap,
// limit counts if this process was only busy, which shows in its reads of other keyrings. Otherwise
// the store may have been away, receivers begin anew when it is back, and so does the count.
func (e *Engine) lost(tr *track, began moment, limit time.Duration) time.Duration {
	now := e.moment()
	last, took := tr.answered, began.since(now)
	slow := max(slowAnswer, min(took, tr.took, callLimit))
	tr.answered, tr.took = now.answered(began, slow), took
	busy := e.silences.longest(e.moment, began, slow, last.steady)
	gap := last.silence(now, began, slow)
	switch {
	case last == (moment{}) || tr.storeFails > 0 || now.wall.Before(last.wall):
	case gap <= limit:
		return 0
	case busy <= limit:
		return gap - limit
	}
	return now.steady // all of it
}

// answered is the earliest moment at which the store may have answered a call from began until now,
// if it needed no longer than slow. A gap is counted from then.
func (now moment) answered(began moment, slow time.Duration) moment {
	return moment{began.wall.Add(min(now.wall.Sub(began.wall), slow)), began.steady + min(now.steady-began.steady, slow)}
}

// silence is for how long nobody may have been able to read the store, from an answer at m until the
// answer to a call from began until now. It goes by the clock that says longer: the steady clock may
// stand still while a machine is suspended, and the wall clock may be set.
func (m moment) silence(now, began moment, slow time.Duration) time.Duration {
	wall, steady := min(now.wall.Sub(began.wall), slow), min(now.steady-began.steady, slow)
	return max(now.wall.Sub(m.wall)-wall, now.steady-m.steady-steady)
}

// silences remembers for how long the store did not answer, about whichever target.
type silences struct {
	mu   sync.Mutex
	last moment // when it last answered
	long []silence
}

type silence struct {
	until, took time.Duration // by the steady clock
}

const (
	// shortSilence is one that no propagation is too short for.
	shortSilence = 50 * time.Millisecond
	// silencesKept is for how long silences are remembered, and silencesApart how exactly.
	silencesKept, silencesApart = 24 * time.Hour, 10 * time.Second
	// allOfIt is a silence after which nothing counts.
	allOfIt = 1<<63 - 1
)

// longest is the longest silence since some time, up to the answer to a call from began until now.
func (s *silences) longest(clock func() moment, began moment, slow, since time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock() // under the lock: or of two answers the later one would make time go back
	took := s.last.silence(now, began, slow)
	if now.wall.Before(s.last.wall) {
		took = allOfIt
	}
	if n := len(s.long); took > shortSilence && n > 0 && s.long[n-1].until/silencesApart == now.steady/silencesApart {
		s.long[n-1] = silence{now.steady, max(took, s.long[n-1].took)}
	} else if took > shortSilence {
		s.long = append(s.long, silence{now.steady, took})
	}
	if answered := now.answered(began, slow); answered.steady >= s.last.steady || took == allOfIt {
		s.last = answered // calls overlap
	}
	old := slices.IndexFunc(s.long, func(x silence) bool { return x.until > now.steady-silencesKept })
	if old < 0 {
		old = len(s.long)
	}
	s.long = slices.Delete(s.long, 0, old)
	if now.steady-since > silencesKept {
		return allOfIt
	}
	longest := took
	for _, x := range s.long {
		if x.until > since {
			longest = max(longest, x.took)
		}
	}
	return longest
}
