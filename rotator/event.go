package rotator

import (
	"time"

	"tiwkeyd/secrets"
)

// Kind is what an Event tells of its step.
type Kind string

const (
	Begin Kind = "begin" // decided, not yet done
	Done  Kind = "done"
	Error Kind = "error" // Event.Err says why; the engine goes on by itself
	Idle  Kind = "idle"  // nothing to do before Event.Until
)

// Event is a piece of news about a target, for logs, progress displays and tests.
type Event struct {
	Time     time.Time
	Target   secrets.Target
	Step     Step
	Kind     Kind
	Hold     Hold // of Idle
	Why      string
	Key      secrets.Key // the key that the step is about; zero if none is
	Rotation string
	Reason   Reason
	Until    time.Time // of Idle, and of an Error of the store, which is logged
	Err      error     // of Error
	Drift    bool      // as in Standing; of any but Begin
}

func (e *Engine) emit(tr *track, a Action, kind Kind, err error) {
	e.progress.mark(tr, e.clock.Steady())
	if kind != Begin {
		e.publish(tr)
	}
	ev := Event{Time: e.clock.Now(), Target: tr.target, Step: a.Step, Kind: kind, Hold: a.Hold, Why: a.Why, Err: err}
	if a.Step == StepWait {
		ev.Until = a.Until
	}
	if k := tr.snap.Keyring; k != nil {
		if k.Rotation != nil {
			ev.Rotation, ev.Reason = k.Rotation.ID, k.Rotation.Reason
		}
		ev.Key = k.CallbackKey()
		if p := k.Pending(); p != nil && a.Step != StepReassert {
			ev.Key = p.Key
		}
	}
	ev.Drift = kind != Begin && tr.standing.Drift
	e.events(ev)
}
