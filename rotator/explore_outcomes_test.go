package rotator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tiwkeyd/secrets"
)

var (
	errNoAnswer   = errors.New("the store did not answer")
	errNotSent    = &APIError{Class: RefusedForNow, Code: "ClientError.NotSent"}
	errForNow     = &APIError{Class: RefusedForNow, Code: "RequestLimitExceeded"}
	errRefused    = &APIError{Class: Refused, Code: "UnauthorizedOperation"}
	errDoubtful   = &APIError{Class: Doubtful, Code: "ClientError.NetworkError"}
	errForbidden  = &APIError{Class: Refused, Code: "UnauthorizedOperation", Forbidden: true}
	answersByCode = []error{nil, ErrConflict, errNoAnswer, errNotSent, errForNow, errRefused, errDoubtful, errForbidden}
	keyForeign    = secrets.NewKey("", strings.Repeat("_", secrets.MinKeyLength))
	keyFirst      = secrets.NewKey("0", strings.Repeat("0", secrets.MinKeyLength))
)

// staleRead is for how long a node of the store may not know the newest version.
const staleRead = 20 * time.Second

// outcomes yields what may become of the request that a replica has made.
func (x *explorer) outcomes(w *world, i int, r *replica, yield func(*world, event)) {
	then := func(n world, a answer, e event) {
		s := *r
		a.at, e.who = n.now, i
		if r.request.call == setCall && x.says != nil {
			a.err = x.says(a.err)
		}
		s.answers = append(slices.Clip(s.answers), a)
		x.goOn(&n, i, &s, e, yield)
		if n.left.pause <= 0 {
			return
		}
		n.left.pause--
		s.stage, s.request, s.paused = answered, request{}, n.now
		n.replicas[i] = &s
		e.what, e.calm = e.what+", and the answer is held up", false
		yield(&n, e)
	}
	tencent := w.left.all > 0 && w.left.tencent > 0
	store := w.left.all > 0 && w.left.store > 0
	badTencent, badStore := *w, *w
	badTencent.left.spend(&badTencent.left.tencent)
	badStore.left.spend(&badStore.left.store)
	switch q := &r.request; q.call {
	case readCall:
		then(*w, answer{snap: x.told(w.newest())}, event{what: "read", calm: true})
		if store {
			then(badStore, answer{err: errNoAnswer}, event{what: "read fails"})
			if w.older() != nil {
				then(badStore, answer{snap: w.views[len(w.views)-2].snapshot()}, event{what: "reads an old version"})
			}
		}
		x.stale(w, then)
	case writeCall:
		n := *w
		if p := q.ring.Pending(); x.hurried && r.action.Step == StepRestore && p != nil && w.newest().ring.Pending() != nil {
			q = &request{ring: q.ring.Clone(), version: q.version}
			*q.ring.Pending() = *w.newest().ring.Pending()
		}
		if x.unconfirmed && (r.action.Step == StepPush || r.action.Step == StepReassert) {
			then(n, answer{version: q.version + 1}, event{what: "does not write", calm: true})
			return
		}
		if w.newest().version != q.version && !x.lawless {
			a := answer{err: ErrConflict}
			if x.trust {
				a = answer{version: w.newest().version}
			}
			then(n, a, event{what: "write conflicts", calm: true})
		} else {
			bad := x.put(&n, q)
			then(n, answer{version: q.version + 1}, event{what: "write", calm: true, bad: bad})
			if store {
				n := badStore
				x.put(&n, q)
				then(n, answer{err: errNoAnswer}, event{what: "write is done, and its answer is lost", bad: bad})
				n = badStore
				n.late = q
				then(n, answer{err: errNoAnswer}, event{what: "write is under way still, and fails"})
			}
		}
		if store {
			then(badStore, answer{err: errNoAnswer}, event{what: "write fails"})
		}
	case lookCall:
		if x.forbidden && len(w.views) > 0 {
			then(*w, answer{err: errForbidden}, event{what: "look is forbidden", calm: true})
			return
		}
		seen := w.inForce
		if x.sees != nil {
			seen = x.sees(w)
		}
		if w.drawn < x.believed && len(w.views) > 0 {
			seen = keyFirst
		}
		then(*w, answer{key: seen}, event{what: "look", calm: true})
		x.lies(w, then)
		if tencent {
			then(badTencent, answer{err: errDoubtful}, event{what: "look fails"})
			then(badTencent, answer{err: errRefused}, event{what: "look is refused"})
		}
	case setCall:
		x.outcomesOfSet(w, badTencent, tencent, q, x.ahead[i], then)
	}
}

func (x *explorer) outcomesOfSet(w *world, bad world, tencent bool, q *request, ahead time.Duration, then func(world, answer, event)) {
	fault := ""
	if q.key.IsZero() {
		fault = "I4: an empty key is sent"
	}
	if !w.now.Add(ahead).Before(q.deadline) {
		then(*w, answer{err: errNotSent}, event{what: "set is not sent: it is too late", calm: true, bad: fault})
		return
	}
	n := *w
	if f := n.apply(q.key); fault == "" {
		fault = f
	}
	then(n, answer{}, event{what: "set " + letter(q.key), calm: true, bad: fault})
	if !tencent {
		return
	}
	then(bad, answer{err: errRefused}, event{what: "set is refused"})
	then(bad, answer{err: errForNow}, event{what: "set is refused for now"})
	then(bad, answer{err: errDoubtful}, event{what: "set fails"})
	n = bad
	n.apply(q.key)
	then(n, answer{err: errDoubtful}, event{what: "set is done, and its answer is lost", bad: fault})
	n = bad
	n.flight = &flight{q.key, w.now.Add(ahead + signatureLife)}
	then(n, answer{err: errDoubtful}, event{what: "set is under way still, and fails"})
}

// put makes a version readable, and checks I5 and I1.
func (x *explorer) put(w *world, q *request) string {
	before := w.newest()
	if x.unsaid {
		q.ring = q.ring.Clone()
		for i := range q.ring.Keys {
			q.ring.Keys[i].Doubts, q.ring.Keys[i].Confirmed = 0, true
		}
	}
	if q.version != before.version && !x.lawless {
		return "" // a late write that lost its check-and-set
	}
	x.shows(w, view{ring: q.ring, version: before.version + 1, from: w.now})
	if !x.lawless {
		w.late = nil // it has lost its check-and-set
	}
	cur := q.ring.CallbackKey()
	if before.ring != nil && !cur.Equal(before.ring.CallbackKey()) && w.was>>number(cur)&1 == 0 {
		return fmt.Sprintf("I5: %s became the current key, and was never in force", letter(cur))
	}
	return w.check()
}

// apply has Tencent sign with another key.
func (w *world) apply(k secrets.Key) string {
	if !k.Equal(w.inForce) {
		w.foreign = false
	}
	w.inForce = k
	w.was |= 1 << number(k)
	return w.check()
}

// at is the world at a later time.
func (w *world) at(t time.Time) *world {
	n := *w
	n.now = t
	if n.flight != nil && n.flight.until.Before(t) {
		n.flight = nil
	}
	if gone := func(v view) bool { return !v.until.IsZero() && !v.until.After(t) }; slices.ContainsFunc(n.views, gone) {
		n.views = slices.DeleteFunc(slices.Clone(n.views), gone)
	}
	return &n
}

// check is I1: every view that a receiver may have accepts the key in force.
func (w *world) check() string {
	if w.foreign {
		return ""
	}
	for _, v := range w.views {
		switch {
		case v.ring == nil, v.void: // who had keys keeps them, or knows none
		case w.inForce.IsZero() && v.ring.AcceptUnsigned, !w.inForce.IsZero() && v.ring.Lookup(w.inForce) != nil && !v.hidden.Equal(w.inForce):
		default:
			return fmt.Sprintf("I1: Tencent signs with %s, and a receiver may see %s", letter(w.inForce), accepts(v.ring))
		}
	}
	return ""
}

// settled is what I2 wants a world to come to.
func (w *world) settled() bool {
	k := w.newest().ring
	return k != nil && !k.Edited && len(k.Keys) == 1 && (k.Rotation == nil || k.paused()) && k.Current() != nil && k.CallbackKey().Equal(w.inForce)
}

func letter(k secrets.Key) string {
	switch {
	case k.IsZero():
		return "none"
	case k.Equal(keyForeign):
		return "foreign"
	}
	return k.Reveal()[:1]
}

func accepts(k *Keyring) (s string) {
	if k == nil {
		return "no keyring"
	}
	for _, e := range k.Keys {
		s += fmt.Sprintf("%s %s, ", e.State, letter(e.Key))
	}
	return strings.TrimSuffix(s, ", ")
}

// base62 are the characters that keys are drawn from.
const idLength = 10

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// number is a key's, 0 that of none: its value is the same letter throughout.
func number(k secrets.Key) int {
	if k.IsZero() {
		return 0
	}
	return int(k.Reveal()[0]) - '/'
}
