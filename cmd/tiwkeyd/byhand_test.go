//go:build torture

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// What people do to keyrings by hand, and how it is judged.
//
// The application whose callbacks are sent suffers all that must cost no callback, and no refusal is
// excused, whatever was done: callback_key is changed (these receivers go by accept), accept is emptied, or
// both are taken away (a keyring without keys is as one that cannot be read, so that receivers keep what
// they have), one more key is accepted, the keyring is deleted softly and undeleted (receivers keep what
// they have; nobody may adopt a key meanwhile, because Tencent does not tell), and an older version is
// written back that accepts the same keys and counts no fewer requests in doubt.
//
// What would have genuine callbacks refused, whatever daemons do, happens to another application, to which none
// are sent: accept names other keys only, any older version is written back, the keyring is deleted and stays
// so, or is deleted with its metadata, as docs/operations.md says, and made anew. There a daemon has to put
// it right, each time; and each has to finish one more rotation of it in the end.

// foreignKey is what people write into keyrings.
const foreignKey = "CANARY-a-key-by-hand"

// errUnrepaired says that no daemon has put a keyring right yet.
var errUnrepaired = errors.New("no daemon has put it right yet")

// at is where a kind's keyring is in the engine.
func at(k *kind) string { return "tiw/" + k.target.String() }

// byHand has a person at some node that is well; nil: none is.
func (w *torture) byHand() *api.KVv2 {
	well := w.wellNodes()
	if len(well) == 0 {
		return nil
	}
	return w.client(well[w.random.IntN(len(well))]).KVv2("secret")
}

// spare says that a mishap could not happen after all.
func (w *torture) spare() func() error {
	w.spared = true
	return nil
}

// replaced writes what change makes of a keyring, over what it was; it is to be put right by a daemon.
func (w *torture) replaced(k *kind, change func(ctx context.Context, kv *api.KVv2, now *api.KVSecret) map[string]any) func(int) func() error {
	return func(int) func() error {
		kv := w.byHand()
		if kv == nil {
			return w.spare()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		now, err := kv.Get(ctx, at(k))
		if err != nil || now.Data == nil {
			return w.spare()
		}
		next := change(ctx, kv, now)
		if next == nil {
			return w.spare()
		}
		put, err := kv.Put(ctx, at(k), next, api.WithCheckAndSet(now.VersionMetadata.Version))
		if err != nil {
			return w.spare() // somebody else wrote, or nobody can; or it is done and nobody knows: it is put right all the same
		}
		return func() error {
			if err := w.right(k); err != nil {
				return err
			}
			w.firstOfAll(k, put.VersionMetadata.Version)
			return nil
		}
	}
}

// firstOfAll checks that a version that was edited was written anew before anything else was done: with the same
// keys. If Vault has destroyed one of the two versions by then, nothing is checked.
func (w *torture) firstOfAll(k *kind, edited int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	was, err := w.decoded(ctx, k, edited)
	if err != nil || !was.Edited {
		return
	}
	next, err := w.decoded(ctx, k, edited+1)
	if err != nil {
		return
	}
	w.restored++
	states := func(k *rotator.Keyring) (all []string) {
		for _, e := range k.Keys {
			all = append(all, e.Key.ID()+" "+string(e.State))
		}
		return all
	}
	if next.Edited || !slices.Equal(states(was), states(next)) {
		w.t.Errorf("%s was changed by hand in version %d, and what came next was not its repair: %v became %v", at(k), edited, states(was), states(next))
	}
}

// edited changes what receivers read.
func (w *torture) edited(k *kind, change func(map[string]any)) func(int) func() error {
	return w.replaced(k, func(_ context.Context, _ *api.KVv2, now *api.KVSecret) map[string]any {
		next := maps.Clone(now.Data)
		change(next)
		return next
	})
}

// writtenBack puts an older version over the newest one, one of those that may.
func (w *torture) writtenBack(k *kind, may func(older, newest *rotator.Keyring) bool) func(int) func() error {
	return w.replaced(k, func(ctx context.Context, kv *api.KVv2, now *api.KVSecret) map[string]any {
		newest, err := w.decoded(ctx, k, now.VersionMetadata.Version)
		if err != nil {
			return nil
		}
		var all []map[string]any
		for version := now.VersionMetadata.Version - 1; version > max(0, now.VersionMetadata.Version-8); version-- {
			then, err := kv.GetVersion(ctx, at(k), version)
			if err != nil || then.Data == nil {
				continue // it was destroyed
			}
			if older, err := w.decoded(ctx, k, version); err == nil && may(older, newest) {
				all = append(all, then.Data)
			}
		}
		if len(all) == 0 {
			return nil
		}
		return all[w.random.IntN(len(all))]
	})
}

// decoded is a version of a keyring.
func (w *torture) decoded(ctx context.Context, k *kind, version int) (*rotator.Keyring, error) {
	errs := []error{errors.New("no node tells")}
	for i, node := range w.nodes {
		if w.busy[fmt.Sprintf("node %c", 'A'+i)] {
			continue
		}
		v, err := node.Secret(ctx, k.target, int64(version))
		if err == nil && v.Content != nil {
			return rotator.DecodeKeyring(k.target, v.Content)
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// anyOlder may be written back where nobody is harmed.
func anyOlder(*rotator.Keyring, *rotator.Keyring) bool { return true }

// sameKeys reports whether an older version harms nobody: it accepts the same keys, and what
// it says of requests for them is no less careful.
func sameKeys(older, newest *rotator.Keyring) bool {
	if older.Edited || newest.Edited || len(older.Keys) != len(newest.Keys) {
		return false
	}
	for _, e := range newest.Keys {
		o := older.Lookup(e.Key)
		if o == nil || o.Doubts < e.Doubts || (o.Confirmed && !e.Confirmed) {
			return false
		}
	}
	return true
}

// read reads a kind's keyring from whichever node answers.
func (w *torture) read(k *kind) (rotator.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store := w.store
	if k == w.other {
		store = w.others
	}
	return store.Read(ctx, k.target)
}

// right reports whether what receivers read is as it should be, and has the key in force.
func (w *torture) right(k *kind) error {
	s, err := w.read(k)
	if err != nil {
		return err
	}
	inForce := w.server.KeyInForce(k.target.SdkAppID, string(k.target.Service))
	if s.Keyring.Edited || s.Keyring.Lookup(secrets.NewKey("", inForce)) == nil {
		return errUnrepaired
	}
	return nil
}

// undeleted deletes the keyring that callbacks are checked by, and undeletes it; Tencent does not tell which key is in
// force meanwhile.
func (w *torture) undeleted(int) func() error {
	kv := w.byHand()
	if kv == nil {
		return w.spare()
	}
	tells := func(code string) { w.server.RefuseAlways(w.app.target.SdkAppID, "Describe", code) }
	tells("InternalError")
	hold := time.Now()
	if kv.Delete(context.Background(), at(w.app)) != nil {
		hold = hold.Add(20 * time.Second) // a node that was stopped may do it later
	}
	return func() error {
		if err := w.undelete(w.app); err != nil || time.Now().Before(hold) {
			return errors.Join(err, errors.New("it may still be deleted"))
		}
		tells("")
		return nil
	}
}

// undelete undeletes a keyring: whichever of its newest versions was deleted.
func (w *torture) undelete(k *kind) error {
	kv := w.byHand()
	if kv == nil {
		return errors.New("no node is well")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	now, err := kv.GetMetadata(ctx, at(k))
	if err != nil {
		return err
	}
	var versions []int // which one is the newest a node may not know yet
	for version := max(1, now.CurrentVersion-20); version < now.CurrentVersion+20; version++ {
		versions = append(versions, version)
	}
	return kv.Undelete(ctx, at(k), versions)
}

// deleted deletes the other keyring. It is undeleted after a while, if a daemon has not adopted the key
// in force before.
func (w *torture) deleted(back bool) func(int) func() error {
	return func(int) func() error {
		kv := w.byHand()
		if kv == nil || kv.Delete(context.Background(), at(w.other)) != nil {
			return w.spare()
		}
		return func() error {
			if back && w.undelete(w.other) != nil {
				return errUnrepaired
			}
			return w.right(w.other)
		}
	}
}

// remade deletes the other keyring with its metadata and makes it anew, step by step as
// docs/operations.md says, where ten minutes are ten seconds.
func (w *torture) remade(int) func() error {
	var deletedAt time.Time
	var seen []printed
	serves := func(remaking bool) func() error {
		return func() error { seen = w.serveAnew(remaking); return nil }
	}
	w.pausing = true // nobody rotates by hand meanwhile, paused or not
	steps := []func() error{
		func() error {
			for i := range w.daemons {
				if w.busy[fmt.Sprintf("command %c", 'A'+i)] {
					return errors.New("a command is under way")
				}
			}
			return nil
		},
		w.succeeds("set", w.other.target.String(), "paused=true"),
		func() error {
			s, err := w.read(w.other)
			if err == nil && (s.Keyring.Pending() != nil || s.Keyring.Overrides == nil || !s.Keyring.Overrides.Paused) {
				err = errors.New("it is not paused, or a key is pending")
			}
			return err
		},
		serves(true),
		func() error { return w.serving(seen, 1) },
		func() error {
			s, err := w.read(w.other)
			kv := w.byHand()
			if err != nil || kv == nil {
				return errors.Join(err, errors.New("it cannot be read now"))
			}
			if err := kv.DeleteMetadata(context.Background(), at(w.other)); err != nil {
				return err
			}
			w.others.isGone(s.Keyring.Life)
			w.forgotten(at(w.other))
			deletedAt = time.Now()
			return nil
		},
		func() error {
			if time.Since(deletedAt) < 10*time.Minute/speed {
				return errors.New("ten minutes have not passed")
			}
			return nil
		},
		w.succeeds("enroll", w.other.target.String()),
		serves(false),
		func() error { return w.serving(seen, 2) },
		func() error { w.pausing = false; return w.right(w.other) },
	}
	return func() error {
		for len(steps) > 0 {
			if err := steps[0](); err != nil {
				return err
			}
			steps = steps[1:]
		}
		return nil
	}
}

// succeeds runs a command until it ends well.
func (w *torture) succeeds(args ...string) func() error {
	var p *process
	return func() error {
		if p != nil && !p.exited() {
			return errors.New("it is still at it")
		}
		if p != nil && p.code == 0 {
			return nil
		}
		d := w.daemons[w.random.IntN(len(w.daemons))]
		p = w.start(append(args, "--env-file", d.settings), d.env...)
		return errors.New("it has just begun")
	}
}

// printed is how much a process had printed.
type printed struct {
	*process
	until int
}

// serveAnew gives all daemons settings with the targets that they are to serve, and tells how much each had
// printed before.
func (w *torture) serveAnew(remaking bool) (before []printed) {
	w.remaking = remaking
	for i, d := range w.daemons {
		w.give(i, w.settings(i))
		before = append(before, printed{d.process, len(d.String())})
		if !d.exited() {
			d.signal(syscall.SIGHUP)
		}
	}
	return before
}

// serving reports whether every daemon has said since that it serves so many targets.
func (w *torture) serving(before []printed, targets int) error {
	for i, d := range w.daemons {
		text := d.String()
		if d.process == before[i].process { // else it was started anew
			text = text[before[i].until:]
		}
		if d.exited() || !strings.Contains(text, fmt.Sprintf(`"count":%d,`, targets)) {
			return fmt.Errorf("daemon %s has not reloaded yet", d.name)
		}
	}
	return nil
}

// tellsOld has Tencent tell, of the application whose callbacks are sent, a key that was in force not long
// ago, or is and soon will not be: always, or every now and then. No key is adopted on that word: the
// application has its keyring, unless it is deleted, when Tencent tells nothing; and daemons that adopt foreign
// keys know the last sixteen that were retired.
func (w *torture) tellsOld(always bool) func(int) func() error {
	return func(int) func() error {
		keys := w.picture.inForce()
		old := keys[len(keys)-1-w.random.IntN(min(4, len(keys)))]
		random := rand.New(rand.NewPCG(w.random.Uint64(), 0))
		app := w.app.target.SdkAppID
		w.server.Tell(app, func(inForce string) string { // one call at a time
			if !always && random.IntN(2) == 0 {
				return inForce
			}
			return old
		})
		return func() error { w.server.Tell(app, nil); return nil }
	}
}

// handiwork is what is done by hand.
func (w *torture) handiwork() []mishap {
	const s = time.Second
	accept := func(keys ...any) func(map[string]any) {
		return func(m map[string]any) { m["accept"] = append([]any{}, keys...) }
	}
	none := func(m map[string]any) { delete(m, "accept"); delete(m, "callback_key") }
	theirs := func(m map[string]any) { m["callback_key"] = foreignKey }
	more := func(m map[string]any) {
		if all, ok := m["accept"].([]any); ok {
			m["accept"] = append(slices.Clone(all), foreignKey)
		}
	}
	return []mishap{
		{"keyring's callback_key changed by hand", 1, "keyring", 1, false, 0, 0, w.edited(w.app, theirs)},
		{"keyring's accept emptied by hand", 1, "keyring", 1, false, 0, 0, w.edited(w.app, accept())},
		{"keyring's accept and callback_key taken away", 1, "keyring", 1, false, 0, 0, w.edited(w.app, none)},
		{"one more key in the keyring's accept", 1, "keyring", 1, false, 0, 0, w.edited(w.app, more)},
		{"keyring's older version with the same keys written back", 2, "keyring", 1, false, 0, 0, w.writtenBack(w.app, sameKeys)},
		{"keyring deleted softly, and undeleted", 1, "Tencent", 1, false, s / 5, 10 * s, w.undeleted},
		{"other keyring's accept emptied by hand", 1, "other keyring", 1, false, 0, 0, w.edited(w.other, accept())},
		{"other keyring's accept names foreign keys only", 1, "other keyring", 1, false, 0, 0, w.edited(w.other, accept(foreignKey))},
		{"other keyring's callback_key changed by hand", 1, "other keyring", 1, false, 0, 0, w.edited(w.other, theirs)},
		{"other keyring's older version written back", 1, "other keyring", 1, false, 0, 0, w.writtenBack(w.other, anyOlder)},
		{"other keyring deleted softly", 1, "other keyring", 1, false, s, 5 * s, w.deleted(false)},
		{"other keyring deleted softly, and undeleted", 1, "other keyring", 1, false, s / 5, 5 * s, w.deleted(true)},
		{"other keyring deleted with its metadata, and made anew", 2, "other keyring", 1, false, 0, 0, w.remade},
		{"Tencent tells an older key", 1, "Tencent", 1, false, 2 * s, 45 * s, w.tellsOld(true)},
		{"Tencent tells now this key, now an older one", 1, "Tencent", 1, false, 2 * s, 30 * s, w.tellsOld(false)},
		{"Vault node tells an older version", 2, "lag", 3, false, 2 * s, 20 * s, w.lags(frozen)},
		{"Vault node tells one older version after another", 2, "lag", 3, false, 2 * s, 20 * s, w.lags(alternating)},
	}
}
