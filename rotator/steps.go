package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tiwkeyd/secrets"
)

// do carries out one step. An *APIError has been taken account of; ErrConflict and errStale
// ask for another read; any other error is the store's.
func (e *Engine) do(ctx context.Context, tr *track, a Action, w Wish) error {
	k, now, p := tr.snap.Keyring, e.clock.Now(), e.policy.Of(tr.snap.Keyring)
	switch a.Step {
	case StepObserve:
		return e.observe(ctx, tr, w)
	case StepPush:
		return e.push(ctx, tr, k.Pending().Key)
	case StepReassert:
		return e.reassert(ctx, tr, k.CallbackKey())
	case StepRestore:
		e.log.Warn("callback_key or accept was changed by hand, and is written anew: receivers may have refused genuine callbacks; see who may write the secret", "target", tr.target.String())
		return e.write(ctx, tr, k.restored(now, p))
	case StepRaise:
		return e.write(ctx, tr, k.raised(p))
	case StepAdopt:
		return e.adopt(ctx, tr, now)
	case StepStage:
		return e.stage(ctx, tr, w, now)
	case StepHasten:
		return e.write(ctx, tr, k.hastened(now, p))
	case StepClaim:
		err := e.write(ctx, tr, k.claimed(now, p))
		tr.forget() // whoever went away may have set the key: look before setting it again
		return err
	case StepCommit:
		if err := e.write(ctx, tr, k.committed(tr.sure.Equal(k.Pending().Key), now, p)); err != nil {
			return err
		}
		tr.pushFails = 0
		if k.Rotation.Reason == ByRevoke {
			tr.purge = tr.snap.Version
			e.purge(ctx, tr)
		}
		return nil
	case StepRollback:
		f := e.rollbackCause(tr, now)
		if tr.obs.Refused.Equal(k.Pending().Key) {
			k = k.answered(tr.obs.Refused)
		}
		retry := now.Add(e.delay(k.Rotation.Attempts+1, p.Timing.RefusedMin, p.Timing.RefusedMax))
		return e.write(ctx, tr, k.rolledBack(f, retry, now, p))
	case StepRetire:
		f := derive(tr.snap, tr.obs, now, w, p)
		next, gone := f.retired()
		if err := e.write(ctx, tr, next); err != nil {
			return err
		}
		e.log.Info("keys retired", "target", tr.target.String(), "keys", fmt.Sprint(gone))
		tr.purge = tr.snap.Version
		e.purge(ctx, tr)
		return nil
	}
	return fmt.Errorf("step %q is unknown", a.Step)
}

func (e *Engine) adopt(ctx context.Context, tr *track, now time.Time) error {
	id, err := secrets.NewID(e.random)
	if err != nil {
		return err
	}
	if tr.obs.Key.IsZero() {
		e.log.Warn("no key is set at Tencent: callbacks were unsigned until now, and are until the first key is in force",
			"target", tr.target.String())
	}
	if why := tr.obs.Key.Unusual(); why != "" {
		e.log.Warn("the key in force is adopted, but receivers may be unable to use it and refuse what is signed with it until the next key is in force: run tiwkeyd rotate",
			"target", tr.target.String(), "because", why)
	}
	return e.write(ctx, tr, tr.snap.Keyring.adopted(tr.target, tr.obs.Key, id, now, e.policy.Of(tr.snap.Keyring)))
}

func (e *Engine) stage(ctx context.Context, tr *track, w Wish, now time.Time) error {
	key, err := secrets.GenerateKey(e.random, e.policy.KeyLength)
	if err != nil {
		return err
	}
	id, err := secrets.NewID(e.random)
	if err != nil {
		return err
	}
	k, reason := tr.snap.Keyring, w.Asked
	switch {
	case reason != "":
	case k.RotatedAt.IsZero():
		reason = ByAdopt
	default:
		reason = BySchedule
	}
	if err := e.write(ctx, tr, k.staged(key, id, reason, now, e.policy.Of(k))); err != nil {
		return err
	}
	e.mu.Lock()
	tr.room = false // it is used
	e.mu.Unlock()
	tr.obs.Refused, tr.pushFails = secrets.Key{}, 0
	return nil
}

// observe asks Tencent which key is in force.
func (e *Engine) observe(ctx context.Context, tr *track, w Wish) error {
	began := e.moment()
	call, cancel := e.within(ctx, began, callLimit)
	defer cancel()
	key, err := e.api.KeyInForce(call, tr.target)
	now, t := e.now(tr), &e.policy.Timing
	tr.looked, tr.obs.At = began, began.wall
	if err == nil {
		tr.obs.Sight, tr.obs.Key, tr.obs.NextLook, tr.lookFails = Seen, key, time.Time{}, 0
		if k := tr.snap.Keyring; k != nil && k.Pending() == nil && key.Equal(k.CallbackKey()) {
			tr.pushFails = 0
		}
		e.warnOfDrift(tr)
		e.contend(tr)
		return e.confirm(ctx, tr)
	}
	api := asAPIError(err)
	tr.lookFails++
	tr.obs.Key = secrets.Key{}
	switch {
	case api.Forbidden:
		tr.obs.Sight, tr.obs.NextLook = Forbidden, now.Add(t.RetryMax)
		if tr.snap.Keyring == nil {
			return api // a key in force that cannot be read cannot be adopted
		}
		e.warnOnce(tr, "forbidden", "the credential may not read back the key in force: answers to Set must do, "+
			"and a change made by somebody else goes unseen", "action", api.Action, "request_id", api.RequestID)
		return nil
	case api.Class == Refused:
		tr.obs.Sight, tr.obs.NextLook = Barred, now.Add(e.delay(tr.lookFails, t.RefusedMin, t.RefusedMax))
		if err := e.holdBack(ctx, tr, api, w, now); err != nil {
			return err
		}
	default:
		tr.obs.Sight, tr.obs.NextLook = Unanswered, now.Add(e.delay(tr.lookFails, t.RetryMin, t.RetryMax))
	}
	return api
}

// holdBack writes down that a new key was wanted and could not even be begun, so that the
// next attempt waits, on every replica.
func (e *Engine) holdBack(ctx context.Context, tr *track, api *APIError, w Wish, now time.Time) error {
	k := tr.snap.Keyring
	if k == nil || k.Pending() != nil {
		return nil
	}
	if due := e.policy.begins(k, w, now); w.Asked == "" && (due.IsZero() || now.Before(due)) {
		return nil
	}
	reason := w.Asked
	if reason == "" {
		reason = BySchedule
	}
	err := e.writeFailure(ctx, tr, k.failed(failureOf(api, now), reason, tr.obs.NextLook, &e.policy))
	if _, news := e.unheard(tr); err == nil && !news {
		e.answerAsk(tr)
	}
	return err
}

// writeFailure writes down that something failed. Whoever wrote in between knows as much.
func (e *Engine) writeFailure(ctx context.Context, tr *track, k *Keyring) error {
	err := e.write(ctx, tr, k)
	if errors.Is(err, ErrConflict) && !errors.Is(err, ErrAnotherLife) {
		return e.read(ctx, tr)
	}
	return err
}

// confirm compares what was seen in force with what Tencent said it had set. If it says one
// thing and does another, both are tried again more and more slowly.
func (e *Engine) confirm(ctx context.Context, tr *track) error {
	set, k := tr.set, tr.snap.Keyring
	tr.set = secrets.Key{}
	if set.IsZero() || tr.obs.Key.Equal(set) {
		return nil
	}
	if k == nil || k.Pending() == nil || !k.Pending().Key.Equal(set) {
		return nil
	}
	tr.pushFails++
	err := e.pushFailed(ctx, tr, &APIError{Class: Doubtful, Action: "set the key", Target: tr.target, Code: "NotInForce",
		Message: "Tencent answered that the key was set, but tells that another one is in force", Advice: "nothing: it is looked at and tried again"})
	tr.obs.Sight, tr.obs.Key, tr.obs.NextLook = Unanswered, secrets.Key{}, tr.obs.NextPush
	return err
}

// push sets the pending key.
func (e *Engine) push(ctx context.Context, tr *track, key secrets.Key) error {
	api, err := e.set(ctx, tr, key)
	switch {
	case err != nil:
		return err
	case api == nil:
		tr.set = key
		return nil
	case api.Class == Refused:
		tr.failure, tr.obs.Refused = failureOf(api, e.clock.Now()), key
		return api
	}
	return e.pushFailed(ctx, tr, api)
}

// pushFailed writes down that the pending key was not set, or not yet, and when to go on.
func (e *Engine) pushFailed(ctx context.Context, tr *track, api *APIError) error {
	now := e.now(tr)
	tr.failure = failureOf(api, now)
	tr.obs.NextPush = now.Add(e.delay(tr.pushFails, e.policy.Timing.RetryMin, e.policy.Timing.RetryMax))
	k := tr.snap.Keyring
	if api.Class != Doubtful {
		k = k.answered(k.Pending().Key)
	}
	if err := e.writeFailure(ctx, tr, k.failed(tr.failure, "", tr.obs.NextPush, &e.policy)); err != nil {
		return errors.Join(api, err)
	}
	return api
}

// reassert sets the current key again.
func (e *Engine) reassert(ctx context.Context, tr *track, key secrets.Key) error {
	drifted := tr.obs.Sight == Seen && !tr.obs.Key.Equal(key)
	api, err := e.set(ctx, tr, key)
	if err == nil && (api == nil || api.Class != Doubtful) {
		tr.over = key
	}
	t := &e.policy.Timing
	switch {
	case err != nil:
		return err
	case api == nil && tr.obs.Sight == Seen:
		return nil
	case api == nil: // until it is seen in force, it may have been in vain
		tr.contest.put = drifted
		tr.pushFails++
		tr.obs.NextPush = e.now(tr).Add(e.delay(tr.pushFails, t.RetryMin, t.RetryMax))
		return nil
	}
	pause := e.delay(tr.pushFails, t.RetryMin, t.RetryMax)
	if api.Class == Refused {
		pause = e.delay(tr.pushFails, t.RefusedMin, t.RefusedMax)
	}
	tr.obs.NextPush = e.now(tr).Add(pause)
	return api
}

// set sends a key of the keyring within the push deadline, once the store took the same keyring
// again. For what was read proves nothing: it may be old by now, and a node of the store that was
// deposed and does not know it tells what was, for any length of time; a key that was retired since
// would be set. It can write nothing, though. That the keyring is still the same also proves that
// what was seen in force is foreign to it: a key is in the keyring before it is set.
// What was known of Tencent's side is void after it, unless the answer itself has to serve as the
// proof. err is the store's, or errStale; then nothing was sent.
func (e *Engine) set(ctx context.Context, tr *track, key secrets.Key) (api *APIError, err error) {
	counted := tr.counts(key)
	if err := e.readAgain(ctx, tr); err != nil {
		return nil, err
	}
	confirmed := e.moment()
	if err := e.write(ctx, tr, tr.snap.Keyring.tried(key)); err != nil {
		return nil, err
	}
	if tr.counts(key) != counted {
		return nil, errStale // receivers begin anew to come to know it
	}
	now := e.moment()
	age, deadline := confirmed.since(now), e.policy.Timing.PushDeadline
	if age > deadline/4 || now.wall.Before(confirmed.wall) {
		return nil, errStale
	}
	ctx, cancel := e.within(ctx, now, deadline-age)
	defer cancel()
	blind := tr.obs.Sight == Forbidden || tr.obs.Sight == Barred
	if _, err := e.api.SetKey(ctx, tr.target, key); err != nil {
		tr.pushFails++
		api = asAPIError(err)
		if api.Class == Doubtful {
			tr.forget()
		}
		return api, nil
	}
	tr.forget()
	tr.sure, tr.surely = key, now
	if blind {
		tr.pushFails = 0
		tr.looked = now
		tr.obs.Sight, tr.obs.Key, tr.obs.At = Seen, key, now.wall
	}
	return nil, nil
}

// rollbackCause is what the keyring tells of why a pending key was given up.
func (e *Engine) rollbackCause(tr *track, now time.Time) Failure {
	if pend := tr.snap.Keyring.Pending(); tr.obs.Refused.Equal(pend.Key) {
		return tr.failure
	}
	if f := tr.snap.Keyring.Rotation.LastError; f != nil {
		return *f
	}
	return Failure{Code: "AttemptLimit", At: now,
		Message: "the key was not seen in force within TIWKEYD_ATTEMPT_LIMIT"}
}

func failureOf(api *APIError, now time.Time) Failure {
	return Failure{Code: api.Code, Message: api.Message, RequestID: api.RequestID, Refused: api.Class == Refused, At: now}
}

// asAPIError takes any other error as an answer in doubt.
func asAPIError(err error) *APIError {
	var api *APIError
	if errors.As(err, &api) {
		return api
	}
	return &APIError{Class: Doubtful, Code: "ClientError", Message: err.Error(), Err: err}
}
