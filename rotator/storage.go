package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// callLimit bounds one call to the store or to Tencent.
	callLimit = 30 * time.Second
	// stopLimit is how long the step in hand may take once the engine is told to stop.
	stopLimit = 8 * time.Second
	// storeRetryMax bounds the back-off towards a store that is away.
	storeRetryMax = 30 * time.Second
)

// stepContext is for one call: it outlives ctx a little, so that a step in hand is finished,
// and ends at the deadline.
func (e *Engine) stepContext(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	step, cancel := e.clock.WithDeadline(context.WithoutCancel(ctx), deadline)
	step, cancelStep := context.WithCancel(step)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopLimit, cancelStep) })
	return step, func() { stop(); cancelStep(); cancel() }
}

func (e *Engine) read(ctx context.Context, tr *track) error {
	began := e.clock.Now()
	ctx, cancel := e.stepContext(ctx, began.Add(callLimit))
	defer cancel()
	s, err := e.store.Read(ctx, tr.target)
	if err != nil {
		return fmt.Errorf("read the keyring of %s from %s: %w", tr.target, e.store, err)
	}
	if tr.storeFails > 0 {
		e.log.Info("the store answers again", "target", tr.target.String(), "store", e.store.String())
	}
	if k := tr.snap.Keyring; k != nil && s.Keyring != nil && !k.CallbackKey().Equal(s.Keyring.CallbackKey()) {
		tr.forget() // another replica changed what is in force since this one looked
	}
	e.took(tr, s, began)
	return nil
}

// took remembers a snapshot that a call begun at began showed to be in the store, and since
// when its pending key has been seen there without a break. The store answered some time
// between began and now: a break is counted from the earliest to the latest that may be.
func (e *Engine) took(tr *track, s Snapshot, began time.Time) {
	now := e.clock.Now()
	var pend Key
	if s.Keyring != nil && s.Keyring.Pending() != nil {
		pend = s.Keyring.Pending().Key
	}
	// A replica that was paused does not know what happened meanwhile.
	paused := now.Sub(tr.snapAt) > 3*e.policy.probe() || now.Before(tr.snapAt)
	if paused || tr.storeFails > 0 || !pend.Equal(tr.watched) {
		tr.obs.Since, tr.watched = now, pend
	}
	tr.snap, tr.snapAt, tr.storeFails = s, began, 0
	tr.obs.Previous = previousSince(s.Keyring, tr.obs.Previous, now)
}

// previousSince carries over since when each previous key has been seen as one.
func previousSince(k *Keyring, seen map[string]time.Time, now time.Time) map[string]time.Time {
	if k == nil || len(k.Keys) == 0 {
		return nil
	}
	since := make(map[string]time.Time, len(k.Keys))
	for _, e := range k.Keys {
		if e.State == Previous {
			since[e.Key.ID()] = now
			if at, ok := seen[e.Key.ID()]; ok {
				since[e.Key.ID()] = at
			}
		}
	}
	return since
}

// write replaces the keyring that was read. After an error other than ErrConflict nothing
// is known, and the next visit reads again.
func (e *Engine) write(ctx context.Context, tr *track, k *Keyring) error {
	began := e.clock.Now()
	ctx, cancel := e.stepContext(ctx, began.Add(callLimit))
	defer cancel()
	version, err := e.store.Write(ctx, tr.target, k, tr.snap.Version)
	if errors.Is(err, ErrConflict) {
		return err
	}
	if err != nil {
		return fmt.Errorf("write the keyring of %s to %s: %w", tr.target, e.store, err)
	}
	e.took(tr, Snapshot{Keyring: k, Version: version, Written: e.clock.Now()}, began)
	return nil
}

// purge destroys the store's older versions, which still hold retired keys. It is not worth
// stopping for: what fails is tried again at the next visit.
func (e *Engine) purge(ctx context.Context, tr *track) {
	if tr.purge == 0 || e.policy.KeepVersions {
		return
	}
	ctx, cancel := e.stepContext(ctx, e.clock.Now().Add(callLimit))
	defer cancel()
	if err := e.store.Purge(ctx, tr.target, tr.purge); err != nil {
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
	e.events(Event{Time: e.clock.Now(), Target: tr.target, Step: step, Phase: Error, Err: err, Until: next})
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
