package sim

import (
	"context"
	"errors"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// vault is the store, and what receivers may still see of it.
type vault struct {
	versions []version // all that ever became readable, of the last day
	outages  []span
	down     bool

	deleted bool // there is no keyring: its last version was deleted, or all of them with the metadata
	life    int  // where in versions those of the keyring's present life begin
	lives   int  // that it had before
}

type version struct {
	k      *rotator.Keyring
	number int64
	from   time.Time
	undone bool // another one is put back in its place at once, and it is nobody's fault who cannot use it
}

// span is a spell in which nobody could read; to is zero while it lasts.
type span struct {
	from, to time.Time
	emptied  bool // because nothing was left to read
}

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
		v.life = max(0, v.life-1)
	}
	for len(v.outages) > 0 && !v.outages[0].to.IsZero() && v.outages[0].to.Before(before) {
		v.outages = v.outages[1:]
	}
}

// snapshot is what there is.
func (v *vault) snapshot() rotator.Snapshot {
	n := len(v.versions) - 1
	switch {
	case n < v.life:
		return rotator.Snapshot{}
	case v.deleted:
		return rotator.Snapshot{Version: v.versions[n].number}
	}
	return v.at(n)
}

// latest is snapshot's keyring, not to be changed.
func (v *vault) latest() *rotator.Keyring {
	if n := len(v.versions) - 1; n >= v.life && !v.deleted {
		return v.versions[n].k
	}
	return nil
}

// at is what there was: nothing before the first version.
func (v *vault) at(n int) rotator.Snapshot {
	if n < 0 {
		return rotator.Snapshot{}
	}
	return rotator.Snapshot{Keyring: v.versions[n].k.Clone(), Version: v.versions[n].number, Written: v.versions[n].from}
}

// past reports whether a read of a keyring may not arrive any more: of one that was deleted with its
// metadata, once the one that was made anew has come to its version.
func (v *vault) past(s rotator.Snapshot) bool {
	if s.Keyring == nil || v.lives == 0 || s.Version > v.snapshot().Version {
		return false
	}
	for _, x := range v.versions[v.life:] {
		if x.number == s.Version && x.from.Equal(s.Written) {
			return false
		}
	}
	return true
}

// away reports whether nobody can read it just now.
func (v *vault) away() bool {
	for _, o := range v.outages {
		if o.to.IsZero() {
			return true
		}
	}
	return false
}

// mended is when what receivers read is made anew.
func (v *vault) mended(at time.Time) {
	for i := range v.outages {
		if o := &v.outages[i]; o.emptied && o.to.IsZero() {
			o.to = at
		}
	}
}

// store is Vault as one replica reaches it.
type store struct{ r *replica }

var errAway = errors.New("the simulated Vault is away")

func (s store) String() string { return "simulated" }

func (s store) Read(context.Context, secrets.Target) (rotator.Snapshot, error) {
	s.r.interlude()
	w := s.r.w
	v := &w.vault
	if snap, remembered := w.Mutant.remembers(s.r, v.down); remembered {
		return snap, nil
	}
	if v.down || w.mishap(60) {
		return rotator.Snapshot{}, errAway
	}
	snap := v.snapshot()
	if d := s.r.deposed(); d != nil {
		snap = *d
		w.say("%s reads version %d", s.r.name, snap.Version)
	}
	s.r.interlude() // the answer takes its time
	if v.past(snap) {
		return rotator.Snapshot{}, errAway
	}
	s.r.told, s.r.toldAt = snap, w.now
	return w.Mutant.reads(s.r, snap), nil
}

// deposed is what the replica's node of Vault tells if it was deposed and does not know: what was
// there then, for as long as it takes, while it can write nothing. One that is Stale tells another older
// version at each read, and may pass writes on.
func (r *replica) deposed() *rotator.Snapshot {
	w := r.w
	switch {
	case r.node == nil && w.mishap(400):
		s := w.vault.snapshot()
		r.node = &s
		w.say("%s's node of Vault is deposed, and does not know it", r.name)
	case r.node != nil && (w.calm || w.draw(30) == 0):
		r.node = nil
		w.say("%s's node of Vault is well again", r.name)
	}
	if r.node != nil && w.has(Stale) {
		s := w.vault.at(len(w.vault.versions) - 1 - int(w.draw(12)*w.draw(6)))
		r.node = &s
	}
	return r.node
}

func (s store) Write(_ context.Context, _ secrets.Target, k *rotator.Keyring, cas int64) (int64, error) {
	w := s.r.w
	v := &w.vault
	if err := k.Validate(); err != nil { // which is all that a store refuses
		w.fail("a keyring that cannot be written: %v", err)
	}
	k = w.Mutant.beforeWrite(s.r, k)
	decided, epoch := w.now, w.epoch
	s.r.interlude() // held up on its way
	if w.Mutant.confirms(s.r.node, k) {
		return cas + 1, nil
	}
	if v.down || (s.r.node != nil && !(w.has(Stale) && w.standby)) || w.mishap(40) {
		return 0, errAway
	}
	was := v.snapshot()
	if current := was.Version; current != cas {
		if took, number := w.Mutant.onConflict(s.r, k, current); took {
			return number, nil
		}
		return 0, rotator.ErrConflict
	}
	if !k.Continues(was.Keyring) {
		switch {
		case w.now.Sub(decided) > 10*time.Second && epoch != w.epoch:
			return 0, errAway // it is assumed that it does not arrive so late
		case !w.single:
			w.say("%s writes over a keyring that was made anew, and puts it back", s.r.name)
			// A key in force that one of the two does not have is a foreign one, or Tencent lied to who adopted it.
			w.undoing = k.Lookup(w.tencent.inForce) == nil || was.Keyring.Lookup(w.tencent.inForce) == nil
			w.named("the store of "+s.r.name, k)
			w.undoing = false
			w.named("the store of "+s.r.name, was.Keyring.Again())
			return 0, rotator.ErrAnotherLife
		}
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
	before := w.vault.latest()
	w.vault.mended(w.now)
	w.vault.versions = append(w.vault.versions, version{k: k.Clone(), number: number, from: w.now})
	last := w.vault.versions[len(w.vault.versions)-1]
	r.told, r.toldAt = rotator.Snapshot{Keyring: last.k, Version: number, Written: w.now}, w.now
	r.wrote = last.k
	if w.vault.deleted { // what was sent before may not be in what was adopted
		w.vault.deleted = false
		w.epoch++
		if w.tencent.foreign && !w.has(Strangers) {
			w.unclaimed = w.now
		}
		w.tencent.foreign = w.tencent.foreign || k.Lookup(w.tencent.inForce) == nil
	}
	r.epoch = w.epoch
	w.know(k.Accept()...)
	w.say("%s writes version %d: accept %v", r.name, number, k.Accept())
	if before != nil && !k.CallbackKey().Equal(before.CallbackKey()) && !w.tencent.signedWith(k.CallbackKey()) {
		w.fail("I5: %s became the current key, and was never in force", k.CallbackKey())
	}
	w.wake(k)
	w.check()
}

// wake has those begin that are not told how late receivers are, once the keyring says so.
func (w *World) wake(k *rotator.Keyring) {
	if o := k.Overrides; o == nil || o.Propagation == nil {
		return
	}
	for _, r := range w.replicas {
		if r.next.Equal(never) {
			r.next = w.now
		}
	}
}

func (s store) Purge(context.Context, secrets.Target, int64) error {
	s.r.interlude()
	if s.r.w.vault.down || s.r.w.mishap(40) {
		return errAway
	}
	return nil
}
