package sim

import (
	"context"
	"errors"
	"time"

	"tiwkeyd/rotator"
)

// vault is the store, and what receivers may still see of it.
type vault struct {
	versions []version // all that ever became readable, of the last day
	outages  []span
	down     bool
}

type version struct {
	k      *rotator.Keyring
	number int64
	from   time.Time
}

// span is a spell in which nobody could read; to is zero while it lasts.
type span struct{ from, to time.Time }

// oldestView is the earliest moment from which a receiver may still have its view: while
// the store is away nobody can read it anew. A spell that is shorter than three looks of the
// engine is the receivers' own affair: Propagation has to have room for it.
func (v *vault) oldestView(now time.Time, p *rotator.Policy) time.Time {
	const slowAnswer = 5 * time.Second
	looks := 3*min(30*time.Second, p.Propagation/8) + 2*slowAnswer
	t := now.Add(-p.Propagation)
	for i := len(v.outages) - 1; i >= 0; i-- {
		o := v.outages[i]
		if o.to.IsZero() {
			o.to = now
		}
		if o.to.Sub(o.from) < looks {
			continue
		}
		if o.to.After(t) && o.from.Add(-p.Propagation).Before(t) {
			t = o.from.Add(-p.Propagation)
		}
	}
	return t
}

// forget drops versions and outages that no receiver can be affected by.
func (v *vault) forget(before time.Time) {
	for len(v.versions) > 1 && v.versions[1].from.Before(before) {
		v.versions = v.versions[1:]
	}
	for len(v.outages) > 0 && !v.outages[0].to.IsZero() && v.outages[0].to.Before(before) {
		v.outages = v.outages[1:]
	}
}

func (v *vault) snapshot(back int) rotator.Snapshot {
	n := len(v.versions) - 1 - back
	if n < 0 {
		return rotator.Snapshot{}
	}
	return rotator.Snapshot{Keyring: v.versions[n].k.Clone(), Version: v.versions[n].number, Written: v.versions[n].from}
}

// store is Vault as one replica reaches it.
type store struct{ r *replica }

var errAway = errors.New("the simulated Vault is away")

func (s store) String() string { return "simulated" }

func (s store) Read(context.Context, rotator.Target) (rotator.Snapshot, error) {
	s.r.interlude()
	w := s.r.w
	v := &w.vault
	if v.down || w.mishap(60) {
		return rotator.Snapshot{}, errAway
	}
	snap := v.snapshot(0)
	if d := s.r.deposed(); d != nil {
		snap = *d
		w.say("%s reads version %d", s.r.name, snap.Version)
	}
	s.r.interlude() // the answer takes its time
	return snap, nil
}

// deposed is what the replica's node of Vault tells if it was deposed and does not know: what was
// there then, for as long as it takes, while it can write nothing.
func (r *replica) deposed() *rotator.Snapshot {
	w := r.w
	switch {
	case r.node == nil && w.mishap(400):
		s := w.vault.snapshot(0)
		r.node = &s
		w.say("%s's node of Vault is deposed, and does not know it", r.name)
	case r.node != nil && (w.calm || w.draw(30) == 0):
		r.node = nil
		w.say("%s's node of Vault is well again", r.name)
	}
	return r.node
}

func (s store) Write(_ context.Context, _ rotator.Target, k *rotator.Keyring, cas int64) (int64, error) {
	w := s.r.w
	v := &w.vault
	if err := k.Validate(); err != nil { // which is all that a store refuses
		w.fail("a keyring that cannot be written: %v", err)
	}
	w.Mutant.beforeWrite(w, k)
	s.r.interlude() // held up on its way
	if w.Mutant.confirms(s.r.node, k) {
		return cas + 1, nil
	}
	if v.down || s.r.node != nil || w.mishap(40) {
		return 0, errAway
	}
	if current := v.snapshot(0).Version; current != cas {
		if took, number := w.Mutant.onConflict(w, k, current); took {
			return number, nil
		}
		return 0, rotator.ErrConflict
	}
	w.put(s.r, k, cas+1)
	s.r.interlude()
	if w.mishap(40) {
		w.say("the answer to %s is lost", s.r.name)
		return 0, errAway
	}
	return cas + 1, nil
}

// put makes a version readable, and checks I5: a key becomes the current one only if Tencent
// was found to sign with it.
func (w *World) put(r *replica, k *rotator.Keyring, number int64) {
	before := w.vault.snapshot(0).Keyring
	w.vault.versions = append(w.vault.versions, version{k.Clone(), number, w.now})
	w.know(k.Accept()...)
	w.say("%s writes version %d: accept %v", r.name, number, k.Accept())
	if before != nil && !k.CallbackKey().Equal(before.CallbackKey()) && !w.tencent.signedWith(k.CallbackKey()) {
		w.fail("I5: %s became the current key, and was never in force", k.CallbackKey())
	}
	w.check()
}

func (s store) Purge(context.Context, rotator.Target, int64) error {
	s.r.interlude()
	if s.r.w.vault.down || s.r.w.mishap(40) {
		return errAway
	}
	return nil
}
