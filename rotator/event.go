package rotator

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Phase is where in a step an Event stands.
type Phase string

const (
	Begin Phase = "begin" // decided, not yet done
	Done  Phase = "done"
	Error Phase = "error" // Event.Err says why; the engine goes on by itself
	Idle  Phase = "idle"  // nothing to do before Event.Until
)

// Event is a piece of news about a target, for progress displays and for tests.
type Event struct {
	Time     time.Time
	Target   Target
	Step     Step
	Phase    Phase
	Why      string
	Key      Key // the key that the step is about; zero if none is
	Rotation string
	Reason   Reason
	Started  time.Time // when the rotation was begun
	InHand   bool      // the rotation is under way; else it is the last one, which failed
	Until    time.Time // of Idle
	Err      error     // of Error
}

func (e *Engine) emit(tr *track, a Action, phase Phase, err error) {
	e.progress.mark(tr, e.clock.Steady())
	if phase != Begin {
		e.publish(tr)
	}
	ev := Event{Time: e.clock.Now(), Target: tr.target, Step: a.Step, Phase: phase, Why: a.Why, Err: err}
	if a.Step == StepWait {
		ev.Until = a.Until
	}
	if k := tr.snap.Keyring; k != nil {
		if k.Rotation != nil {
			ev.Rotation, ev.Reason, ev.Started = k.Rotation.ID, k.Rotation.Reason, k.Rotation.StartedAt
		}
		ev.Key = k.CallbackKey()
		p := k.Pending()
		ev.InHand = p != nil
		if p != nil && a.Step != StepReassert {
			ev.Key = p.Key
		}
	}
	e.events(ev)
	e.logEvent(ev)
}

func (e *Engine) logEvent(ev Event) {
	level, msg := slog.LevelDebug, string(ev.Step)
	switch {
	case ev.Phase == Error:
		level, msg = slog.LevelError, string(ev.Step)+" failed"
	case ev.Phase == Done && ev.Step != StepObserve:
		level, msg = slog.LevelInfo, string(ev.Step)+" done"
	case ev.Phase == Begin:
		msg = string(ev.Step) + " begins"
	}
	if !e.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("target", ev.Target.String()), slog.String("why", ev.Why), slog.Any("key", ev.Key)}
	if ev.Rotation != "" {
		attrs = append(attrs, slog.String("rotation", ev.Rotation), slog.String("reason", string(ev.Reason)))
	}
	if !ev.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", ev.Until))
	}
	if ev.Err != nil {
		attrs = append(attrs, slog.String("error", ev.Err.Error()))
		var api *APIError
		if errors.As(ev.Err, &api) {
			attrs = append(attrs, slog.String("code", api.Code), slog.String("request_id", api.RequestID))
		}
	}
	e.log.LogAttrs(context.Background(), level, msg, attrs...)
}
