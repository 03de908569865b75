package rotator

import (
	"cmp"
	"slices"
	"time"

	"tiwkeyd/secrets"
)

var steps = []Step{"", StepWait, StepObserve, StepAdopt, StepStage, StepHasten, StepClaim, StepPush, StepReassert, StepCommit, StepRollback, StepRetire, StepRestore, StepRaise}

// replica codes what a replica's future depends on. What its log and its Settle tell does not
// count, nor does what tells whether its clock was set: it never is.
func (c *coder) replica(p *part, w *world, i int, r *replica) {
	tr := &r.tr
	p.int(int(r.conf)<<8 | int(r.stage)<<4 | slices.Index(steps, r.action.Step))
	if c.every > 0 {
		p.put(plain, max(0, ticks(r.reload.Sub(w.now))))
	}
	p.flag(!r.paused.IsZero(), r.paused.Equal(w.now), tr.contest.put)
	opening := r.stage == idle || (r.stage != between && r.action.Step == "")
	if r.stage == idle {
		p.put(plain, max(0, ticks(r.next.Sub(w.now))))
	}
	p.int(min(tr.storeFails, 9)<<8 | min(tr.lookFails, 9)<<4 | min(tr.pushFails, 9))
	p.put(plain, ticks(min(tr.took, callLimit)))
	c.age(p, tr.answered.wall.Add(-c.ahead[i]).Sub(dawn), 3*probe(c.late())+2*callLimit)
	p.key(tr.set)
	p.key(tr.over)
	c.sure(p, w, tr)
	p.key(tr.pendingSeen.key)
	if !tr.pendingSeen.key.IsZero() {
		c.age(p, tr.pendingSeen.since, c.old)
		p.int(tr.pendingSeen.renewed)
	}
	if c.adopts() {
		p.key(tr.currentSeen.key)
		if !tr.currentSeen.key.IsZero() {
			c.age(p, tr.currentSeen.since, c.old)
		}
	}
	o := &tr.obs
	p.int(int(o.Sight))
	if o.Sight != Unseen {
		p.key(o.Key)
	}
	c.time(p, o.At)
	c.until(p, o.NextLook)
	c.until(p, o.NextPush)
	p.put(plain, max(0, ticks(tr.contest.rest-w.now.Sub(dawn)))) // which o.NextPutBack tells
	if p.int(tr.contest.times); tr.contest.times > 0 {
		c.age(p, tr.contest.last, contestSpan)
	}
	p.key(c.refused(w, r))
	now := w.newest()
	c.previous(p, now.ring, tr)
	c.previous(p, w.older(), tr)
	for _, v := range w.readable() {
		c.previous(p, v.ring, tr)
	}
	if opening {
		// The next read replaces the keyring: only which key was current then counts.
		p.flag(tr.snap.Keyring == nil)
		if tr.snap.Keyring != nil {
			p.key(tr.snap.Keyring.CallbackKey())
		}
	} else {
		c.snapshot(p, now, tr.snap, i)
		c.previous(p, tr.snap.Keyring, tr)
		k := tr.snap.Keyring
		if k != nil && k.Pending() != nil {
			c.age(p, o.Since.Add(-c.ahead[i]).Sub(dawn), c.old)
		}
		if c.adopts() && k != nil && k.Current() != nil {
			c.age(p, o.CurrentSince.Add(-c.ahead[i]).Sub(dawn), c.old)
		}
	}
	if r.stage != idle && r.stage != between {
		c.piece(p, now, i, r)
	}
}

// piece codes the part of a visit that is under way: with which answers, so far, to what.
func (c *coder) piece(p *part, now view, i int, r *replica) {
	began := r.began.Add(c.ahead[i])
	c.time(p, began)
	switch r.action.Step {
	case StepCommit, StepAdopt:
		c.time(p, began.Add(c.settings(r.conf).Grace)) // will be an AcceptUntil
	case StepRollback:
		c.time(p, began.Add(c.policy.Timing.RollbackKeep))
	}
	p.flag(r.wish.Due.IsZero(), r.wish.Paused)
	if s := r.action.Step; s == StepStage || s == StepAdopt {
		p.put(aKey, int32(number(secrets.NewKey("", base62[r.seed:r.seed+1]))))
	}
	p.int(len(r.answers))
	for n, a := range r.answers {
		p.int(slices.Index(answersByCode, a.err))
		p.key(a.key)
		p.flag(a.version == 0, a.version == now.version, a.version == c.before)
		if c.counts {
			p.put(plain, int32(now.version-a.version))
		}
		if a.snap.Version != 0 {
			p.flag(r.action.Step != "" && a.snap.sameVersion(r.tr.snap)) // or what was read before is not written over
			c.snapshot(p, now, a.snap, i)
			c.previous(p, a.snap.Keyring, &r.tr)
		}
		if r.stage != answered || n < len(r.answers)-1 {
			c.time(p, a.at.Add(c.ahead[i]))
		}
	}
}

// snapshot codes what a replica holds to be in the store.
func (c *coder) snapshot(p *part, now view, s Snapshot, me int) {
	same := s.sameVersion(now.snapshot()) && !c.lawless
	p.flag(s.Version == now.version, same, s.Version == c.before, s.Keyring == nil)
	if c.counts {
		p.put(plain, int32(now.version-s.Version))
	}
	if !same {
		c.ring(p, s.Keyring, me)
	}
	c.written(p, s)
}

// sure codes what Tencent said that it had set, and when, if that may count: at a commit, and before a
// key goes whose time was over by then. One that goes later wants it said later.
func (c *coder) sure(p *part, w *world, tr *track) {
	rings := []*Keyring{w.newest().ring, w.older(), tr.snap.Keyring}
	if w.late != nil {
		rings = append(rings, w.late.ring)
	}
	for _, v := range w.readable() {
		rings = append(rings, v.ring)
	}
	over := tr.surely.wall.Add(c.policy.Timing.Skew + c.ahead[0].Abs() + c.ahead[1].Abs())
	key, at := secrets.Key{}, time.Time{}
	for _, k := range rings {
		for i := 0; k != nil && i < len(k.Keys); i++ {
			switch e := &k.Keys[i]; {
			case tr.sure.IsZero():
			case e.State == Pending && e.Key.Equal(tr.sure):
				key = tr.sure
			case e.State == Previous && !e.AcceptUntil.After(over):
				key, at = tr.sure, tr.surely.wall
			}
		}
	}
	p.key(key)
	c.time(p, at)
}

// previous codes since when the previous keys of a keyring have been seen.
func (c *coder) previous(p *part, k *Keyring, tr *track) {
	if k == nil {
		return
	}
	for i := range k.Keys {
		since, seen := tr.obs.Previous[k.Keys[i].Key.ID()]
		p.flag(seen, tr.previousSeen[k.Keys[i].Key.ID()].until.Equal(k.Keys[i].AcceptUntil))
		if seen {
			c.time(p, since)
		}
	}
}

// refused is the key that was refused, while it can still be pending.
func (c *coder) refused(w *world, r *replica) secrets.Key {
	late := w.newest().ring
	if w.late != nil {
		late = w.late.ring
	}
	rings := []*Keyring{w.newest().ring, w.older(), r.tr.snap.Keyring, late}
	for _, v := range w.readable() {
		rings = append(rings, v.ring)
	}
	for _, k := range rings {
		if k != nil && k.Pending() != nil && k.Pending().Key.Equal(r.tr.obs.Refused) {
			return r.tr.obs.Refused
		}
	}
	return secrets.Key{}
}

// adopts reports whether a key may become current that receivers do not know yet, by somebody's clock.
func (s *scenario) adopts() bool {
	return s.empty || len(s.hands) > 0 || s.drifts(AdoptKey) || s.ahead[0] != s.ahead[1]
}

// order compares the replicas, and reports whether they are the same. The numbers of keys
// that only they know tell nothing.
func (c *coder) order() (order int, same bool) {
	var public [64]int32
	met := int32(0)
	for i, k := range c.parts[0].kind {
		if n := c.parts[0].n[i]; k == aKey && public[n] == 0 {
			met++
			public[n] = met
		}
	}
	a, b := &c.parts[1], &c.parts[2]
	same = len(a.n) == len(b.n)
	for i := range min(len(a.n), len(b.n)) {
		m, n := a.n[i], b.n[i]
		same = same && m == n && a.kind[i] == b.kind[i]
		if a.kind[i] == aKey && b.kind[i] == aKey {
			m, n = public[m], public[n]
		}
		if o := cmp.Or(cmp.Compare(m, n), cmp.Compare(a.kind[i], b.kind[i])); o != 0 {
			return o, false
		}
	}
	return cmp.Compare(len(a.n), len(b.n)), same
}
