package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tiwkeyd/secrets"
)

const (
	// callLimit bounds one call to the store or to Tencent.
	callLimit = 30 * time.Second
	// stopLimit is how long the step in hand may take once the engine is told to stop.
	stopLimit = 7 * time.Second
	// storeRetryMax bounds the back-off towards a store that is away.
	storeRetryMax = 30 * time.Second
)

// outlive gives a context that ends some time after ctx, so that a step in hand is finished.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return longer, func() { stop(); cancel() }
}

func (e *Engine) read(ctx context.Context, tr *track) error {
	began := e.moment()
	ctx, cancel := e.within(ctx, began, callLimit)
	defer cancel()
	s, err := e.store.Read(ctx, tr.target)
	if err != nil {
		return fmt.Errorf("read the keyring of %s from %s: %w", tr.target, e.store, err)
	}
	if tr.storeFails > 0 {
		e.log.Info("the store answers again", "target", tr.target.String(), "store", e.store.String())
	}
	e.notice(tr, s)
	if was := tr.snap.Keyring; was != nil && s.Keyring != nil && was.Life != "" && was.Life != s.Keyring.Life {
		e.log.Warn("the keyring was deleted and made anew since it was read last", "target", tr.target.String())
	}
	if !tr.snap.sameCurrent(s) {
		tr.forget() // somebody else changed what is in force since this replica looked
	}
	e.took(tr, s, began)
	return nil
}

// moment is a time by both clocks.
type moment struct {
	wall   time.Time
	steady time.Duration
}

func (e *Engine) moment() moment { return moment{e.clock.Now(), e.clock.Steady()} }

// within bounds what was begun at a moment, by both clocks.
func (e *Engine) within(ctx context.Context, began moment, d time.Duration) (context.Context, context.CancelFunc) {
	return e.clock.WithDeadline(ctx, began.wall.Add(d), began.steady+d)
}

// since is how long ago a moment was, by the clock that says longer: the steady one may stand
// still while the machine is suspended, the wall clock may have been set back meanwhile.
func (m moment) since(now moment) time.Duration {
	return max(now.wall.Sub(m.wall), now.steady-m.steady)
}

// date tells when Tencent was asked, and since when the store was seen as it is, by the wall
// clock that Decide is given: it may have been set since. A look counts for as old as either
// clock says: one that seemed younger than it is could come after a key's last moment.
func (tr *track) date(now moment) {
	if now.wall.Before(tr.latest) || now.wall.Before(tr.looked.wall) || now.wall.Before(tr.surely.wall) {
		tr.forget() // the clock was set back: no time in memory means anything
		tr.surely = moment{}
	}
	tr.latest = now.wall
	if tr.obs.Sight != Unseen {
		tr.obs.At = earlier(tr.looked.wall, now.wall.Add(tr.looked.steady-now.steady))
	}
	if k := tr.snap.Keyring; k != nil && tr.sure.Equal(k.CallbackKey()) {
		tr.obs.SetAt = earlier(tr.surely.wall, now.wall.Add(tr.surely.steady-now.steady))
	} else {
		tr.obs.SetAt = time.Time{}
	}
	tr.obs.Since = now.wall.Add(tr.pendingSeen.since - now.steady)
	tr.obs.CurrentSince = now.wall.Add(tr.currentSeen.since - now.steady)
	tr.obs.NextPutBack = now.wall.Add(tr.contest.rest - now.steady)
	if tr.obs.Previous = nil; len(tr.previousSeen) > 0 { // an empty map for each of thousands is much
		tr.obs.Previous = make(map[string]time.Time, len(tr.previousSeen))
	}
	for id, r := range tr.previousSeen {
		tr.obs.Previous[id] = now.wall.Add(r.since - now.steady)
	}
}

// now is the wall clock's time, for what is to be remembered of it.
func (e *Engine) now(tr *track) time.Time {
	now := e.clock.Now()
	tr.latest = later(tr.latest, now)
	return now
}

// replaced is since when a key was found replaced at every look, by the steady clock: a wall
// clock that was behind and is set right would make that look long ago. One whose time to go
// is another was current again in between.
type replaced struct {
	until time.Time
	since time.Duration
}

// previousSeen carries over since when each previous key has been seen as one.
func previousSeen(k *Keyring, seen map[string]replaced, now time.Duration) map[string]replaced {
	var since map[string]replaced
	if k == nil {
		return nil
	}
	for _, e := range k.Keys {
		if e.State != Previous {
			continue
		}
		if since == nil {
			since = map[string]replaced{}
		}
		since[e.Key.ID()] = replaced{e.AcceptUntil, now}
		if r, ok := seen[e.Key.ID()]; ok && r.until.Equal(e.AcceptUntil) {
			since[e.Key.ID()] = r
		}
	}
	return since
}

// write replaces the keyring that was read. After an error other than ErrConflict nothing
// is known, and the next visit reads again.
func (e *Engine) write(ctx context.Context, tr *track, k *Keyring) error {
	if err := e.readAgain(ctx, tr); err != nil {
		return err
	}
	// If a pending key may have been sent meanwhile, nobody knows which request came last.
	if p := k.Pending(); tr.over.Equal(k.CallbackKey()) && (p == nil || p.Doubts == 0) {
		k = k.answered(tr.over)
	}
	k, err := k.Revised(e.random)
	if err != nil {
		return err
	}
	began := e.moment()
	ctx, cancel := e.within(ctx, began, callLimit)
	defer cancel()
	version, err := e.store.Write(ctx, tr.target, k, tr.snap.Version)
	if errors.Is(err, ErrConflict) && !errors.Is(err, ErrAnotherLife) {
		return err
	}
	if err != nil {
		return fmt.Errorf("write the keyring of %s to %s: %w", tr.target, e.store, err)
	}
	tr.over = secrets.Key{}
	// When it became readable the store will tell; this machine's clock may be wrong.
	e.took(tr, Snapshot{Keyring: k, Version: version}, began)
	return nil
}

// freshRead is how long ago a keyring may have been read that is written over.
const freshRead = 10 * time.Second

// readAgain makes sure that what is about to be written over was read a moment ago. A version
// number alone does not tell: a keyring that was deleted and made anew comes to it again.
func (e *Engine) readAgain(ctx context.Context, tr *track) error {
	if tr.answered.since(e.moment()) <= freshRead {
		return nil
	}
	was := tr.snap
	if err := e.read(ctx, tr); err != nil {
		return err
	}
	if !tr.snap.sameVersion(was) {
		return fmt.Errorf("%w (version %d is there, %d was read)", ErrConflict, tr.snap.Version, was.Version)
	}
	return nil
}

// purge destroys the store's older versions, which still hold retired keys. It is not worth
// stopping for: what fails is tried again at the next visit.
func (e *Engine) purge(ctx context.Context, tr *track) {
	if tr.purge == 0 || e.policy.KeepVersions || tr.snap.Keyring == nil {
		return
	}
	ctx, cancel := e.within(ctx, e.moment(), callLimit)
	defer cancel()
	// What is there may be older than what was to be destroyed, if an older store was put back.
	if err := e.store.Purge(ctx, tr.target, min(tr.purge, tr.snap.Version)); err != nil {
		e.log.Warn("older versions of the keyring, which hold retired keys, could not be destroyed yet",
			"target", tr.target.String(), "store", e.store.String(), "error", err.Error())
		return
	}
	tr.purge = 0
}

func (e *Engine) storeFailed(tr *track, step Step, err error) time.Time {
	tr.lastErr = err
	tr.storeFails++
	t := &e.policy.Timing
	next := e.clock.Now().Add(e.delay(tr.storeFails, t.RetryMin, min(storeRetryMax, t.RetryMax)))
	e.log.Error("the store failed; nothing is set at Tencent that is not in it",
		"target", tr.target.String(), "step", string(step), "error", err.Error(), "again_at", next)
	e.publish(tr)
	e.events(Event{Time: e.clock.Now(), Target: tr.target, Step: step, Kind: Error, Err: err, Until: next})
	return next
}

// warnOfDrift tells, once for each foreign key, that somebody else changed it.
func (e *Engine) warnOfDrift(tr *track) {
	k := tr.snap.Keyring
	if k == nil || k.Current() == nil {
		tr.warned = ""
		return
	}
	in := k.Lookup(tr.obs.Key)
	switch {
	case tr.obs.Key.IsZero():
		e.warnOnce(tr, "unset", "the key was deleted at Tencent: callbacks are unsigned", "policy", string(e.policy.OnDrift))
	case in == nil:
		e.warnOnce(tr, "foreign", "a key is in force that is not ours: callbacks signed with it are refused",
			"policy", string(e.policy.OnDrift))
	case in.State == Previous:
		e.warnOnce(tr, "previous "+in.Key.ID(), "an older key of ours came back into force; receivers still accept it",
			"key", in.Key.ID())
	default:
		tr.warned = ""
	}
}

func (e *Engine) warnOnce(tr *track, what, msg string, args ...any) {
	if tr.warned != what {
		tr.warned = what
		e.log.Warn(msg, append([]any{"target", tr.target.String()}, args...)...)
	}
}
