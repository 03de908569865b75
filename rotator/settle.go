package rotator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tiwkeyd/secrets"
)

// ErrUnsettled says that a rotation was not finished, and that a later run, or a daemon,
// goes on with it.
var ErrUnsettled = errors.New("not settled yet")

// RolledBackError says that a rotation ended without a new key, and nothing has changed.
type RolledBackError struct {
	Target  secrets.Target
	Failure Failure
	RetryAt time.Time // when daemons try again by themselves
	Err     error     // the answer, if this process got it itself
}

func (e *RolledBackError) Error() string {
	what := fmt.Sprintf("%s: %s", e.Failure.Code, e.Failure.Message)
	if e.Failure.RequestID != "" {
		what += "; RequestId " + e.Failure.RequestID
	}
	if e.Err != nil {
		what = e.Err.Error()
	}
	msg := fmt.Sprintf("%s keeps its key, the rotation was rolled back: %s", e.Target, what)
	if !e.RetryAt.IsZero() {
		msg += fmt.Sprintf("; daemons try again after %s", e.RetryAt.UTC().Format(time.RFC3339))
	}
	return msg
}

// Unwrap gives the answer that led to it.
func (e *RolledBackError) Unwrap() error { return e.Err }

const (
	// earlyTries is how often a rotation that could not even be begun is tried.
	earlyTries = 3
	// joinPoll is how often a rotation that another replica carries out is looked at.
	joinPoll = time.Second
)

// Settle replaces the key of t now, or joins the rotation in hand, and returns when the new
// key is in force. It is safe beside any number of other replicas. Its errors are a
// *RolledBackError, or wrap ErrUnsettled.
func (e *Engine) Settle(ctx context.Context, t secrets.Target, reason Reason) error {
	tr := e.track(t)
	began := e.clock.Now()
	e.Ask(reason, t)
	for tries := 1; ; tries++ {
		next := e.Visit(ctx, t)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w: stopped after %s; %s", t, ErrUnsettled,
				e.clock.Now().Sub(began).Round(time.Millisecond), tr.stand())
		}
		if done, err := tr.outcome(began); done {
			return err
		}
		begun := !tr.pending.IsZero()
		if !begun && tr.lastErr != nil && (tries >= earlyTries || refused(tr.lastErr)) {
			e.answerAsk(tr)
			return tr.notBegun()
		}
		if k := tr.snap.Keyring; tr.lastErr == nil && k != nil && k.Pending() != nil && k.Rotation.Owner != e.policy.Owner {
			next = sooner(next, e.clock.Now().Add(joinPoll))
		}
		sleepUntil(ctx, e.clock, next, nil)
	}
}

// Begin starts a rotation of t, or joins the one in hand, and leaves it to the daemons.
func (e *Engine) Begin(ctx context.Context, t secrets.Target, reason Reason) error {
	tr := e.track(t)
	began := e.clock.Now()
	e.Ask(reason, t)
	for tries := 1; ; tries++ {
		next := e.Visit(ctx, t)
		if !tr.pending.IsZero() {
			_, err := tr.outcome(began)
			return err
		}
		if ctx.Err() != nil || tr.lastErr == nil || tries >= earlyTries || refused(tr.lastErr) {
			return tr.notBegun()
		}
		sleepUntil(ctx, e.clock, next, nil)
	}
}

// outcome tells how the rotation of tr.pending ended, if it did.
func (tr *track) outcome(began time.Time) (bool, error) {
	k := tr.snap.Keyring
	if tr.pending.IsZero() || k == nil || k.Pending() != nil {
		return false, nil
	}
	if e := k.Lookup(tr.pending); e != nil && e.State == Previous && e.ActivatedAt.IsZero() && k.Rotation != nil && k.Rotation.LastError != nil {
		return true, tr.rolledBack()
	} else if e != nil {
		began = later(began, e.CreatedAt) // what was adopted before it was there is no new key
	}
	if cur := k.Current(); cur != nil && (cur.Key.ID() == tr.pending.ID() || cur.ActivatedAt.After(began)) {
		return true, nil
	}
	r := k.Rotation
	if r == nil || r.LastError == nil {
		return false, nil
	}
	return true, tr.rolledBack()
}

func (tr *track) rolledBack() error {
	r := tr.snap.Keyring.Rotation
	err := &RolledBackError{Target: tr.target, Failure: *r.LastError, RetryAt: r.RetryAt}
	var api *APIError
	if errors.As(tr.lastErr, &api) && api.Code == r.LastError.Code {
		err.Err = api
	}
	return err
}

// notBegun tells why there is not even a pending key.
func (tr *track) notBegun() error {
	if refused(tr.lastErr) {
		api := asAPIError(tr.lastErr)
		err := &RolledBackError{Target: tr.target, Err: api, Failure: Failure{Refused: true}}
		if k := tr.snap.Keyring; k != nil && k.Rotation != nil {
			err.RetryAt = k.Rotation.RetryAt
		}
		return err
	}
	return fmt.Errorf("%s: %w, and nothing was changed: %w", tr.target, ErrUnsettled, tr.lastErr)
}

func refused(err error) bool { return err != nil && asAPIError(err).Class == Refused }

// stand is where a rotation stands, in words.
func (tr *track) stand() string {
	if tr.pending.IsZero() {
		return "nothing was changed"
	}
	s := fmt.Sprintf("key %s is pending and accepted by receivers; a daemon or the next run goes on with it", tr.pending)
	if tr.lastErr != nil {
		s += "; last error: " + tr.lastErr.Error()
	}
	return s
}
