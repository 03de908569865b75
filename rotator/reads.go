package rotator

import (
	"slices"
	"sync"
	"time"
)

// Receivers are given their time only while they could read the store. How long that was is
// counted by the reads of the very keyring: each that finds the key goes on with the count.

// slowAnswer is how much of a call's time is not taken for a pause of this process. Where the store
// needed longer for the call before, too, it is slow, and as much is not.
const slowAnswer = 5 * time.Second

// watch is since when a key was found in the store at every read, by the steady clock.
type watch struct {
	key   Key
	since time.Duration
}

// see takes account of a read at now that found key, after a gap of which some time does not
// count.
func (w *watch) see(key Key, lost, now time.Duration) {
	if !key.Equal(w.key) {
		w.key, w.since = key, now
	}
	w.since = min(w.since+lost, now)
}

// took remembers a snapshot that a call begun at began showed to be in the store, and for how
// long its keys have been seen there.
func (e *Engine) took(tr *track, s Snapshot, began moment) {
	p := e.policy.of(s.Keyring)
	tr.wait = p.waitFor(s.Keyring)
	lost := e.lost(tr, began, 3*probe(tr.wait))
	now := e.moment()
	var pend, cur Key
	if s.Keyring != nil {
		cur = s.Keyring.CallbackKey()
		if p := s.Keyring.Pending(); p != nil {
			pend = p.Key
		}
	}
	tr.pendingSeen.see(pend, lost, now.steady)
	tr.currentSeen.see(cur, lost, now.steady)
	tr.snap, tr.storeFails = s, 0
	load := 0.0
	if !pend.IsZero() {
		load = need(p.Propagation)
	}
	e.loads(tr, load)
	tr.previousSeen = previousSeen(s.Keyring, tr.previousSeen, now.steady)
	tr.date(now)
}

// counts is since when a key that is about to be set counts as found, where receivers may not
// know it yet.
func (tr *track) counts(key Key) time.Duration {
	k := tr.snap.Keyring
	if k == nil || tr.wait <= 0 {
		return 0
	}
	switch pend, cur := k.Pending(), k.Current(); {
	case pend != nil && pend.Key.Equal(key) && k.Rotation.Reason != ByRevoke:
		return tr.pendingSeen.since
	case cur != nil && cur.Key.Equal(key) && cur.PushAfter.After(cur.ActivatedAt):
		return tr.currentSeen.since
	}
	return 0
}

// lost is how much of the time since the keyring was last read does not count for receivers, after
// an answer to a call that was begun at began. A gap of up to limit counts. Of a longer one limit
// counts if this process was only busy: it read other keyrings all the time.
// Otherwise nothing counts that came before: the store may have been away, and receivers begin
// anew when it is back.
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

// answered is when the store answered a call from began until now, of which slow is the most that
// it may have needed: some time in between, and the earliest is what a break is counted from.
func (now moment) answered(began moment, slow time.Duration) moment {
	return moment{began.wall.Add(min(now.wall.Sub(began.wall), slow)), began.steady + min(now.steady-began.steady, slow)}
}

// silence is how long it may have been, from an answer at m until that of a call from began until
// now, that nobody could read the store. The steady clock does not tell of a suspended machine,
// the wall clock may have been set: either is believed.
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
