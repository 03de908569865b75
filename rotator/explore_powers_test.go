package rotator

import (
	"slices"
	"strings"
	"time"

	"tiwkeyd/secrets"
)

// powers are what an adversary may do beside mishaps, each with a budget of its own.
type powers struct {
	others    []Policy      // settings that replicas may have beside policy, which is number 0
	begin     [2]int8       // the number of the settings that each replica has at first
	written   *Overrides    // what the keyring says at first
	version   int64         // and its version; 0: 1
	hands     []hand        // what somebody may do to the keyring
	every     time.Duration // how often every replica reloads, without end; 0: never
	moves     bool          // a reload leads both to another store, to which the keyring was copied a moment ago
	foreign   bool          // Tencent may tell of a foreign key that never was in force
	believed  byte          // Tencent tells of the first key until so many keys were drawn
	remembers bool          // the store has older versions, which it may tell of or which may be restored
	counts    bool          // numbers of versions matter beside the newest
	found     bool          // a target whose keyring is gone is served no longer until there is one again
	most      time.Duration // the longest propagation that somebody may write

	// Faults that are built in, to see that they would be found.
	deaf        bool // a replica does not see what the keyring says of propagation
	blind       bool // a change by hand goes unseen
	unconfirmed bool // the store does not confirm what was read before a key is set
	forgets     bool // a reload forgets what was seen
	keeps       bool // a reload keeps what was seen in another store
	hurried     bool // a keyring that was changed by hand is written as it is, without time for receivers
	twins       bool // a keyring that was made anew has the revision of the old one
}

// hand is something that somebody may do to the keyring, in each of the ways that it yields.
type hand func(x *explorer, w *world, yield func(*world, event))

func (s *scenario) settings(conf int8) *Policy {
	if conf == 0 {
		return &s.policy
	}
	return &s.others[conf-1]
}

// longest is the most of something among all settings.
func (s *scenario) longest(of func(*Policy) time.Duration) time.Duration {
	most := of(&s.policy)
	for i := range s.others {
		most = max(most, of(&s.others[i]))
	}
	return most
}

// late is the longest propagation that anybody may go by.
func (s *scenario) late() time.Duration {
	return max(s.most, s.longest(func(p *Policy) time.Duration { return p.Propagation }))
}

// drifts reports whether some replica deals with a foreign key in this way.
func (s *scenario) drifts(d Drift) bool {
	return s.policy.OnDrift == d || slices.ContainsFunc(s.others, func(p Policy) bool { return p.OnDrift == d })
}

// engine is the one of a replica, with its settings.
func (x *explorer) engine(i int, r *replica) *Engine {
	if e := x.engines[i]; x.conf[i] != r.conf {
		e.configure(x.options(i, r.conf), true)
		x.conf[i] = r.conf
	}
	return x.engines[i]
}

// enrolled names the life of a keyring that somebody enrolled.
const enrolled = "enrolled"

// keyOf is the key of a number.
func keyOf(n int) secrets.Key {
	if n == 0 {
		return secrets.Key{}
	}
	return secrets.NewKey("", strings.Repeat(string(rune('/'+n)), secrets.MinKeyLength))
}

// powers codes what only powers make matter.
func (c *coder) powers(p *part, w *world) {
	p.put(plain, ticks(w.lag))
	p.int(int(w.left.stale)<<9 | int(w.left.lie)<<6 | int(w.left.hand)<<3 | int(w.left.reload))
	p.flag(w.anew, !w.enroll.IsZero())
	if !w.enroll.IsZero() {
		p.put(plain, ticks(w.enroll.Sub(w.now)))
	}
	if c.counts {
		p.put(plain, int32(w.newest().version))
	}
	if c.believed > w.drawn {
		p.int(int(c.believed - w.drawn))
		p.key(keyFirst)
	}
	for n := range 63 {
		if c.was>>n&1 == 1 {
			p.key(keyOf(n))
		}
	}
	for _, v := range w.readable() {
		c.ring(p, v.ring, -1)
		c.written(p, v.snapshot())
	}
	p.key(w.newest().hidden)
	p.flag(w.newest().made.IsZero())
}

// readable are the versions before the newest that may be read or restored yet.
func (w *world) readable() []view {
	if w.left.stale > 0 || w.left.hand > 0 {
		return w.past
	}
	return nil
}

// shows makes a version the newest that receivers can read.
func (x *explorer) shows(w *world, v view) {
	views := slices.Clone(w.views)
	if n := len(views); n > 0 {
		for i := range views { // who sees this version sees none before it any more
			views[i].until = sooner(views[i].until, w.now.Add(w.lag))
		}
		if x.remembers && views[n-1].ring != nil {
			w.past = append(slices.Clip(w.past), views[n-1])
		}
	}
	w.views = append(views, v)
	w.views = w.at(w.now).views // a receiver may be late by nothing
	if v.ring != nil && v.ring.Overrides != nil && v.ring.Overrides.Propagation != nil {
		w.slower(*v.ring.Overrides.Propagation)
	}
}

// slower has receivers be late by as much as the keyring says by now.
func (w *world) slower(lag time.Duration) {
	if lag <= w.lag {
		return
	}
	w.lag = lag
	for i := range w.views[:len(w.views)-1] {
		w.views[i].until = later(w.views[i].until, w.views[i+1].from.Add(lag))
	}
}

// stale yields each older version that a read may give.
func (x *explorer) stale(w *world, then func(world, answer, event)) {
	if w.left.stale == 0 {
		return
	}
	for i := range w.past {
		n := *w
		n.left.stale--
		then(n, answer{snap: w.past[i].snapshot()}, event{what: "reads version " + string(rune('0'+w.past[i].version%10)) + ", which is old"})
	}
}

// lies yields each older key that a look may tell of, in whatever order.
func (x *explorer) lies(w *world, then func(world, answer, event)) {
	if w.left.lie == 0 {
		return
	}
	for i := range 63 {
		if k := keyOf(i); (w.was>>i&1 == 1 || (x.foreign && k.Equal(keyForeign))) && !k.Equal(w.inForce) {
			n := *w
			n.left.lie--
			then(n, answer{key: k}, event{what: "look tells of " + letter(k)})
		}
	}
}

// removed has a replica leave a target alone whose keyring is gone, if it was found.
func (x *explorer) removed(w *world, r *replica, tr *track) bool {
	if x.found && tr.snap.Keyring == nil {
		*r = replica{next: w.now.Add(x.policy.Reconcile), tr: track{target: codecTarget}, conf: r.conf, reload: r.reload, seed: r.seed}
		return true
	}
	return false
}

// reloads yields the reloads of a replica at rest, and reports whether it has to do one now.
func (x *explorer) reloads(w *world, i int, r *replica, yield func(*world, event)) bool {
	if r.stage != idle {
		return false
	}
	if x.every > 0 && !r.reload.After(w.now) {
		n, s := *w, *r
		s.reload = w.now.Add(x.every)
		n.left.reload++ // which counts for nothing
		x.reload(&n, i, &s, event{who: i, what: "reloads", calm: true}, yield)
		return true
	}
	if w.left.reload > 0 && !x.moves {
		n, s := *w, *r
		x.reload(&n, i, &s, event{who: i, what: "reloads"}, yield)
	}
	return false
}

// reload gives a replica the settings that come next, and has it visit the target at once.
func (x *explorer) reload(w *world, i int, r *replica, e event, yield func(*world, event)) {
	w.left.reload--
	x.reconfigure(w, i, r, !x.forgets)
	yield(w, e)
}

func (x *explorer) reconfigure(w *world, i int, r *replica, same bool) {
	e, tr := x.engine(i, r), x.tracks[i]
	x.wires[i].now = w.now
	r.recall(e, tr)
	r.conf = (r.conf + 1) % int8(1+len(x.others))
	e.Reconfigure(x.options(i, r.conf), same)
	x.conf[i], x.tracks[i] = r.conf, e.track(codecTarget)
	r.rest(e, x.tracks[i], w.now)
	r.paused = time.Time{}
	w.replicas[i] = r
}

// byHand yields what somebody may do to the keyring, and reports whether something has to be done now.
func (x *explorer) byHand(w *world, busy bool, yield func(*world, event)) bool {
	if w.left.hand > 0 {
		for _, h := range x.hands {
			h(x, w, func(n *world, e event) {
				n.left.hand--
				e.who = -1
				yield(n, e)
			})
		}
	}
	if x.moves && w.left.reload > 0 {
		x.move(w, yield)
	}
	if w.enroll.IsZero() || w.enroll.After(w.now) || w.old() {
		return false
	}
	n := *w
	n.enroll = time.Time{}
	k := (*Keyring)(nil).adopted(codecTarget, w.inForce, enrolled, w.now, &x.policy)
	if k.Revision, k.Life = enrolled, enrolled; x.twins {
		k.Revision = ""
	}
	yield(&n, event{who: -1, what: "somebody enrolls the target", calm: !busy, bad: x.put(&n, &request{ring: k})})
	return true
}

// old reports whether a read or write of a keyring that was deleted is under way still.
func (w *world) old() bool {
	for _, r := range w.replicas {
		if (r.stage == calling && r.request.call == writeCall) || (r.stage == answered && r.answers[len(r.answers)-1].snap.Keyring != nil) {
			return true
		}
	}
	return w.late != nil
}

// still reports whether no request to Tencent is under way, and none follows from a write that was made.
func (w *world) still() bool {
	for _, r := range w.replicas {
		if s := r.action.Step; r.stage != idle && (s == StepPush || s == StepReassert) && len(r.answers) > 0 {
			return false
		}
	}
	return w.flight == nil
}

// writes changes the keyring by hand, as a shell does: by check-and-set.
func (x *explorer) writes(w *world, what string, change func(*Keyring), yield func(*world, event)) {
	v := w.newest()
	if v.ring == nil {
		return
	}
	n, k := *w, v.ring.Clone()
	change(k)
	k.Revision = "by hand"
	yield(&n, event{what: what, bad: x.put(&n, &request{ring: k, version: v.version})})
}

// setting writes another propagation. Receivers may be that late from then on; a lower one holds for
// versions that are replaced later.
func setting(d time.Duration) hand {
	return func(x *explorer, w *world, yield func(*world, event)) {
		x.writes(w, "somebody sets propagation="+d.String(), func(k *Keyring) { *k = *k.With(Overrides{Propagation: &d}) }, func(n *world, e event) {
			n.lag = d
			yield(n, e)
		})
	}
}

func pausing(x *explorer, w *world, yield func(*world, event)) {
	if k := w.newest().ring; !k.paused() {
		x.writes(w, "somebody sets paused=true", func(k *Keyring) {
			var o Overrides
			if k.Overrides != nil {
				o = *k.Overrides
			}
			o.Paused = true
			*k = *k.With(o)
		}, yield)
	}
}

// editing takes a key out of accept that is not in force, while no request for one is under way.
func editing(x *explorer, w *world, yield func(*world, event)) {
	if k := w.newest().ring; k == nil || k.Edited || !w.still() {
		return
	}
	for _, e := range w.newest().ring.Keys {
		if e.Key.Equal(w.inForce) || (w.foreign && e.State == Current) {
			continue // a current key that was edited out is put back at once: nothing else would be accepted sooner
		}
		x.writes(w, "somebody takes "+letter(e.Key)+" out of accept", func(k *Keyring) { k.Edited = !x.blind }, func(n *world, e2 event) {
			n.views[len(n.views)-1].hidden = e.Key
			yield(n, e2)
		})
	}
}

// deleting deletes the keyring softly, when no rotation is in hand and no request under way; and brings it back.
func deleting(x *explorer, w *world, yield func(*world, event)) {
	n, v := *w, w.newest()
	switch {
	case v.ring != nil && v.ring.Pending() == nil && w.still():
		x.shows(&n, view{version: v.version, from: w.now})
		yield(&n, event{what: "somebody deletes the keyring"})
	case v.ring == nil && v.version > 0 && len(w.past) > 0:
		if last := w.past[len(w.past)-1]; last.version == v.version {
			n.past = w.past[:len(w.past)-1]
			x.shows(&n, view{ring: last.ring, version: last.version, from: w.now, made: sooner(last.made, last.from)})
			yield(&n, event{what: "somebody undeletes the keyring", bad: n.check()})
		}
	}
}

// beginning deletes the keyring with its metadata, when no rotation is in hand and no request under way.
// Found targets are enrolled anew ten minutes later; others the replicas adopt at once.
func beginning(x *explorer, w *world, yield func(*world, event)) {
	n, v := *w, w.newest()
	if v.ring == nil || v.ring.Pending() != nil || !w.still() {
		return
	}
	x.shows(&n, view{from: w.now})
	n.past, n.late, n.anew = nil, nil, true
	if x.found {
		n.enroll = w.now.Add(10 * time.Minute)
	}
	yield(&n, event{what: "somebody deletes the keyring with its metadata"})
}

// restoring writes an older version anew, while no request for a key is under way. If the key in force is not in
// it, or is a foreign one, it is not the replicas' fault what receivers refuse that have not read it yet.
func restoring(x *explorer, w *world, yield func(*world, event)) {
	if !w.still() {
		return
	}
	for _, old := range w.past {
		x.writes(w, "somebody restores version "+string(rune('0'+old.version%10)), func(k *Keyring) { *k = *old.ring.Clone() }, func(n *world, e event) {
			if n.foreign || n.check() != "" {
				n.foreign, e.bad = true, ""
				for i := range n.views[:len(n.views)-1] {
					n.views[i].void = true
				}
			}
			yield(n, e)
		})
	}
}

// move leads both replicas to another store, to which the keyring was copied a moment ago: a receiver may
// have what was there before, without the pending key.
func (x *explorer) move(w *world, yield func(*world, event)) {
	v := w.newest()
	if w.replicas[0].stage != idle || w.replicas[1].stage != idle || v.ring == nil || v.ring.Pending() == nil || w.flight != nil || w.late != nil ||
		v.ring.Pending().Key.Equal(w.inForce) {
		return
	}
	n, before := *w, v.ring.Clone()
	before.Keys = slices.DeleteFunc(before.Keys, func(e Entry) bool { return e.State == Pending })
	before.Rotation = nil
	n.views = []view{{ring: before, version: v.version - 1, from: v.from, until: w.now.Add(w.lag)}, {ring: v.ring, version: v.version, from: w.now}}
	n.left.reload--
	for i := range n.replicas {
		r := *n.replicas[i]
		x.reconfigure(&n, i, &r, x.keeps)
	}
	yield(&n, event{who: -1, what: "both are led to another store, to which the keyring was copied", bad: n.check()})
}

// told is what a read gives.
func (x *explorer) told(v view) Snapshot {
	s := v.snapshot()
	if x.deaf && s.Keyring != nil {
		s.Keyring = s.Keyring.Clone()
		s.Keyring.Overrides = nil
	}
	return s
}
