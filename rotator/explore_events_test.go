package rotator

import (
	"slices"
	"time"

	"tiwkeyd/secrets"
)

// event leads from one world to another.
type event struct {
	who  int // the replica, -1: none
	what string
	span time.Duration
	calm bool // nothing goes wrong and nobody is paused: what a world does when it is left alone
	bad  string
}

func (s *scenario) start() *world {
	w := &world{now: dawn, inForce: keyFirst, was: 1 << number(keyFirst), left: s.budget, lag: s.lag}
	if !s.empty {
		w.views = []view{{version: max(1, s.version), from: dawn.Add(-time.Hour), ring: &Keyring{Target: codecTarget, RotatedAt: dawn.Add(-time.Hour), Overrides: s.written,
			Keys: []Entry{{Key: keyFirst, State: Current, CreatedAt: dawn.Add(-2 * time.Hour), ActivatedAt: dawn.Add(-time.Hour)}}}}}
	}
	if s.unsigned {
		w.inForce, w.was = secrets.Key{}, 1<<number(secrets.Key{})
	}
	for i := range w.replicas {
		w.replicas[i] = &replica{next: dawn, tr: track{target: codecTarget}, conf: s.begin[i], reload: dawn.Add(s.every)}
	}
	return w
}

func (w *world) newest() view {
	if len(w.views) == 0 {
		return view{}
	}
	return w.views[len(w.views)-1]
}

func (v view) snapshot() Snapshot {
	s := Snapshot{Keyring: v.ring, Version: v.version, Written: sooner(v.made, v.from)}
	if v.ring == nil {
		s.Written = time.Time{}
	}
	return s
}

// events yields all that may happen next in w, always in the same order.
func (x *explorer) events(w *world, yield func(*world, event)) {
	busy := false
	for i, r := range w.replicas {
		busy = x.eventsOf(w, i, r, yield) || busy
	}
	if w.late != nil {
		n := *w
		bad := x.put(&n, n.late)
		n.late = nil
		yield(&n, event{who: -1, what: "a late write arrives", bad: bad})
	}
	if w.flight != nil {
		n := *w
		n.flight = nil
		yield(&n, event{who: -1, what: "a late set arrives", bad: n.apply(w.flight.key)})
	}
	if w.left.all > 0 && w.left.drift > 0 && len(w.views) > 0 {
		for _, k := range []secrets.Key{keyForeign, {}} {
			n := *w
			n.left.spend(&n.left.drift)
			n.inForce, n.foreign = k, true
			n.was |= 1 << number(k)
			yield(&n, event{who: -1, what: "somebody else sets the key " + letter(k)})
		}
	}
	busy = x.byHand(w, busy, yield) || busy
	x.pass(w, busy, yield)
}

// pass yields how time may go on: until somebody has to do something, or for so long that nobody did.
func (x *explorer) pass(w *world, busy bool, yield func(*world, event)) {
	var next time.Time
	n := *w
	for i, r := range w.replicas {
		switch {
		case r.stage == idle && r.next.After(w.now):
			next = sooner(next, r.next)
			if x.every > 0 {
				next = sooner(next, r.reload)
			}
		case r.paused.IsZero():
			p := *r
			p.paused = w.now
			n.replicas[i] = &p
			n.left.pause--
		}
	}
	next = sooner(next, w.enroll)
	if next.After(w.now) && n.left.pause >= 0 {
		m := n.at(next)
		if n.left.pause == w.left.pause {
			m = x.spell(m, w.now.Add(x.fold))
		}
		yield(m, event{who: -1, what: "time goes on", span: m.now.Sub(w.now), calm: !busy})
	}
	stuck := next.IsZero() && !busy
	if stuck || (w.left.all > 0 && w.left.jump > 0) {
		for i, d := range x.jumps {
			n := w.at(w.now.Add(d))
			if !stuck {
				n.left.spend(&n.left.jump)
			}
			yield(n, event{who: -1, what: "nobody runs", span: d, calm: stuck && i == 0})
		}
	}
}

// spell has time go on further, but not beyond a limit, while all that happens is that
// replicas read the keyring and find nothing to do.
func (x *explorer) spell(w *world, limit time.Time) *world {
	for w.late == nil && w.enroll.IsZero() && x.every == 0 {
		n := *w
		var next time.Time
		for i, r := range w.replicas {
			if r.stage != idle || !r.paused.IsZero() {
				return w
			}
			s := *r
			if !r.next.After(w.now) {
				s.stage, s.began, s.request = calling, w.now, request{}
				s.answers = []answer{{at: w.now, snap: w.newest().snapshot()}}
				x.proceed(&n, i, &s, false)
				if s.stage != idle {
					return w
				}
			}
			n.replicas[i] = &s
			next = sooner(next, s.next)
		}
		if next.After(limit) {
			return w
		}
		w = n.at(next)
	}
	return w
}

// eventsOf yields what one replica may do next, and reports whether there is anything.
func (x *explorer) eventsOf(w *world, i int, r *replica, yield func(*world, event)) bool {
	if w.left.all > 0 && w.left.crash > 0 && (r.stage != idle || !r.tr.latest.IsZero()) {
		n := *w
		n.left.spend(&n.left.crash)
		n.replicas[i] = &replica{next: w.now, tr: track{target: codecTarget}, conf: r.conf, reload: r.reload}
		yield(&n, event{who: i, what: "is killed, and starts anew"})
	}
	if x.reloads(w, i, r, yield) {
		return true
	}
	switch {
	case r.stage == idle && r.next.After(w.now), r.paused.Equal(w.now):
		return false
	case r.stage == idle:
		s := *r
		s.stage, s.began, s.request, s.paused = calling, w.now, request{call: readCall}, time.Time{}
		if w.left.pause > 0 {
			p, n := s, *w
			p.paused = w.now
			n.left.pause--
			n.replicas[i] = &p
			yield(&n, event{who: i, what: "sends a read, which is held up"})
		}
		x.outcomes(w, i, &s, yield)
	case r.stage == calling:
		x.outcomes(w, i, r, yield)
	case r.stage == answered:
		s := *r
		s.answers = slices.Clone(s.answers)
		s.answers[len(s.answers)-1].at = w.now
		x.goOn(w, i, &s, event{who: i, what: "learns the answer", calm: true}, yield)
	default:
		x.goOn(w, i, r, event{who: i, what: "decides at last", calm: true}, yield)
	}
	return true
}

// goOn yields how a replica that knows all its answers goes on: at once, or with a pause
// before its next decision.
func (x *explorer) goOn(w *world, i int, r *replica, e event, yield func(*world, event)) {
	n, s := *w, *r
	decides := x.proceed(&n, i, &s, false)
	n.replicas[i] = &s
	yield(&n, e)
	if decides && r.stage != between && w.left.reload > 0 {
		n, s, e := *w, *r, e
		x.proceed(&n, i, &s, true)
		n.left.pause = w.left.pause
		e.what, e.calm = e.what+", and reloads before it decides", false
		x.reload(&n, i, &s, e, yield)
	}
	if decides && r.stage != between && w.left.pause > 0 {
		n, s := *w, *r
		x.proceed(&n, i, &s, true)
		n.replicas[i] = &s
		e.what, e.calm = e.what+", and is paused before it decides", false
		yield(&n, e)
	}
}
