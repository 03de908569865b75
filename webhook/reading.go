package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// DefaultEvery is how often a Cache of few applications reads each keyring, and thus how
	// long a revoked key may still be accepted.
	DefaultEvery = time.Second

	// readsPerSecond is what a Cache of many applications asks of the store for all of them
	// together; it then reads each less often.
	readsPerSecond = 20

	// rereadPause is the shortest time from one reading of a target's keys to the next, and
	// rereadsPerSecond how many readings are asked for on demand, whatever comes in.
	rereadPause      = time.Second
	rereadsPerSecond = 100

	// A reading is given up after some time. One that hangs should not keep the next from
	// being begun while callbacks wait for it; a store that is always slow is given longer.
	leastPatience = 2 * time.Second
	mostPatience  = 8 * time.Second

	// newestKept is for how long a version stays accepted beside others, if none is known to have come after it.
	newestKept = time.Hour
)

// EveryFor is how often a Cache of so many targets reads each of them, whatever is demanded.
func EveryFor(targets int) time.Duration {
	return max(DefaultEvery, time.Duration(targets)*time.Second/readsPerSecond)
}

// SureTargets is for how many targets each has its turn to be read on demand before a callback
// that waits for it is given up, whatever comes in. Of more than these, a flood of forged
// callbacks may have genuine ones answered 503 that are signed with a key which came into force
// sooner after it was written than EveryFor.
const SureTargets = int((DefaultRereadTimeout - time.Second) / time.Second * rereadsPerSecond)

// ring is one target's keys.
type ring struct {
	target   Target
	demand   chan struct{}
	patience time.Duration // for the next reading

	// Guarded by app.mu.
	demanded time.Time // when a reading was asked for that has not begun; zero: none is
	vain     time.Time // when a reading that was asked for last changed nothing
	begun    int       // readings begun
	answered int       // the last of them that told what there is
	keys     Keys
	readAt   time.Time       // when the reading that gave keys began; zero: never
	newest   []newest        // what was read and nothing that came after it; several if versions were numbered anew
	err      error           // of the last reading
	revoked  []Revoked       // all that any reading gave
	told     map[string]bool // ids of revoked keys that were read again and told of
}

// newest is a version that no other is known to have come after.
type newest struct {
	Keys
	at time.Time // when it was read last
}

// since reports whether k is the same version as other, or came after it. Where versions are numbered anew,
// of two neither may have come after the other: they have one number and two times, or their numbers say one
// thing and their times another.
func (k Keys) since(other Keys) bool {
	if k.Version == other.Version {
		return k.Version == 0 || k.Written.Equal(other.Written)
	}
	return k.Version > other.Version && !k.Written.Before(other.Written)
}

// accepted is what is to be accepted after a reading. If it gave an older version than one before,
// a node of the store was deposed and does not know it. If it cannot be told which of two is older, a
// store was put back, lost what it had acknowledged, or the keyring was made anew. Then a key of
// either version may be the one in force.
func (r *ring) accepted(read Keys, began time.Time) Keys {
	r.newest = slices.DeleteFunc(r.newest, func(n newest) bool { return read.since(n.Keys) || began.Sub(n.at) > newestKept })
	if !slices.ContainsFunc(r.newest, func(n newest) bool { return n.since(read) }) {
		r.newest = append(r.newest, newest{read, began})
	}
	all := r.newest[0].Keys
	all.Accept = slices.Clone(all.Accept)
	for _, n := range append(slices.Clone(r.newest[1:]), newest{Keys: Keys{Accept: read.Accept}}) {
		all.Version = max(all.Version, n.Version)
		all.AcceptUnsigned = all.AcceptUnsigned || n.AcceptUnsigned
		for _, k := range n.Accept {
			if !slices.ContainsFunc(all.Accept, k.Equal) {
				all.Accept = append(all.Accept, k)
			}
		}
	}
	return all
}

// unrevoked is keys without those that were ever read to be revoked. A version that was put back, or
// a keyring that was begun anew, may not know of it.
func (r *ring) unrevoked(keys Keys) Keys {
	keys.Accept = slices.DeleteFunc(slices.Clone(keys.Accept), Keys{Revoked: r.revoked}.WasRevoked)
	keys.Revoked = nil // done with; the keys of another service are not judged by it
	return keys
}

// remember keeps what a reading says of revoked keys for as long as the Cache lives.
func (r *ring) remember(revoked []Revoked) {
	for _, k := range revoked {
		if !slices.Contains(r.revoked, k) {
			r.revoked = append(r.revoked, k)
		}
	}
}

// keep reads a target's keys until ctx ends.
func (c *Cache) keep(ctx context.Context, a *app, r *ring) {
	// The second reading comes early by chance, so that receivers that were started together
	// do not read together.
	pause := rand.N(c.every)
	for {
		began := time.Now()
		if !c.read(ctx, a, r) {
			pause += rand.N(c.every)
		}
		if waitUntil(ctx, began.Add(pause), r.demand) {
			c.turns.await(ctx, a.urgency(r), began.Add(pause)) // it puts off no reading that is due
			waitUntil(ctx, began.Add(min(c.every, rereadPause)), nil)
		}
		if ctx.Err() != nil {
			return
		}
		pause = c.every
	}
}

// urgency tells how urgent a reading on demand is, from what became of those before.
func (a *app) urgency(r *ring) urgency {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch since := time.Now().Add(-lately); {
	case a.changed.After(since) && !a.changed.Before(r.vain):
		return rotating
	case r.vain.After(since):
		return flooded
	}
	return quiet
}

// waitUntil waits for a time, for ctx to end, or for a demand, and reports whether it was that.
func waitUntil(ctx context.Context, at time.Time, demand <-chan struct{}) (demanded bool) {
	d := time.Until(at)
	if d <= 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-demand:
		return true
	case <-ctx.Done():
	}
	return false
}

// read reads a target's keys once.
func (c *Cache) read(ctx context.Context, a *app, r *ring) (ok bool) {
	a.mu.Lock()
	r.begun++
	demanded := r.demanded
	r.demanded = time.Time{}
	select {
	case <-r.demand: // this reading is what it asks for
	default:
	}
	a.mu.Unlock()
	began := time.Now()
	call, cancel := context.WithTimeout(ctx, r.patience)
	keys, err := c.reader.ReadKeys(call, r.target)
	cancel()
	if err == nil {
		keys, err = checked(r.target, keys)
	}
	switch took := time.Since(began); {
	case err == nil && took < r.patience/4:
		r.patience = max(leastPatience, r.patience/2)
	case err != nil && took >= r.patience:
		r.patience = min(mostPatience, 2*r.patience)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	read := keys.Version
	if err == nil {
		r.remember(keys.Revoked)
		all := r.accepted(keys, began)
		c.tellRevoked(r, all)
		keys = r.unrevoked(all)
		// A keyring without a usable key is as one that cannot be read: what no key explains is
		// answered 503, not 401. Tencent may sign with another key, or with a revoked one again
		// where a backup was put back, so nobody knows that it is forged.
		if len(keys.Accept) == 0 && !keys.AcceptUnsigned {
			err = fmt.Errorf("the keys of %s: all of them were revoked: run `tiwkeyd rotate --revoke %s`", r.target, r.target)
		}
	}
	if ctx.Err() == nil {
		c.tell(r, keys, read, err)
	}
	r.err = err
	switch {
	case err == nil && !slices.EqualFunc(keys.Accept, r.keys.Accept, Key.Equal):
		a.changed = time.Now()
	case demanded.After(a.changed): // else what was asked about may be another service's change
		r.vain = time.Now()
	}
	if err == nil {
		r.keys, r.readAt = keys, began
	} else {
		r.keys = r.unrevoked(r.keys)
	}
	// That there never was a keyring is an answer. One that has gone is a place that is away.
	if err == nil || (errors.Is(err, ErrNoKeyring) && r.readAt.IsZero()) {
		r.answered = r.begun
	}
	a.hold(time.Now())
	return err == nil
}

// checked keeps what a Reader made a mistake about from taking the place of good keys.
func checked(t Target, keys Keys) (Keys, error) {
	keys.SdkAppID = t.SdkAppID
	if slices.ContainsFunc(keys.Accept, Key.IsZero) {
		return keys, fmt.Errorf("the keys of %s: one of them is empty", t)
	}
	if len(keys.Accept) == 0 && !keys.AcceptUnsigned {
		return keys, fmt.Errorf("the keys of %s: there are none", t)
	}
	return keys, nil
}

// ShortKey is the warning of a key that is no secret for long.
const ShortKey = "a key has fewer than 8 characters: whoever sees one callback can find it by trying"

// tell logs what a reading has changed, that of a version.
func (c *Cache) tell(r *ring, keys Keys, read int64, err error) {
	target, from := r.target.String(), c.reader.String()
	switch {
	case err != nil && r.err != nil:
	case err != nil && r.readAt.IsZero():
		c.log.Warn("the keys cannot be read, and never were: callbacks cannot be verified", "target", target, "from", from, "error", err.Error())
	case err != nil:
		c.log.Warn("the keys cannot be read; those read last stay in use", "target", target, "from", from, "error", err.Error(), "read_at", r.readAt)
	case r.readAt.IsZero() || !slices.Equal(ids(keys), ids(r.keys)) || keys.AcceptUnsigned != r.keys.AcceptUnsigned:
		c.log.Info("keys read", "target", target, "from", from, "accept", ids(keys), "accept_unsigned", keys.AcceptUnsigned)
		for _, k := range keys.Accept {
			if k.Short() {
				c.log.Warn(ShortKey, "target", target, "from", from, "key", k.String())
			}
		}
		if read < keys.Version {
			c.log.Warn("an older version was read than before: the keys of both are accepted, for an hour at most", "target", target, "from", from, "version", read, "newest", keys.Version)
		} else if len(r.newest) > 1 {
			c.log.Warn("versions are numbered anew: a store was put back, or lost what it had acknowledged, or a clock is wrong; the keys of all are accepted, for an hour at most", "target", target, "from", from, "version", read)
		}
	case r.err != nil:
		c.log.Info("the keys can be read again", "target", target, "from", from)
	}
}

// tellRevoked logs that revoked keys were read as accepted ones, once for each.
func (c *Cache) tellRevoked(r *ring, keys Keys) {
	known := Keys{Revoked: r.revoked}
	for _, k := range keys.Accept {
		if known.WasRevoked(k) && !r.told[k.String()] {
			r.told[k.String()] = true
			c.log.Warn("a revoked key was read among the accepted ones: it stays refused. If it is in force again, run `tiwkeyd rotate --revoke`", "target", r.target.String(), "from", c.reader.String(), "key", k.String())
		}
	}
}
