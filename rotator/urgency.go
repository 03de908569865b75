package rotator

import "context"

// Urgency is who goes first where calls to Tencent wait for a place within its limit.
type Urgency int

// The urgencies, the least first.
const (
	Looking   Urgency = iota // a settled target is looked at
	Routine                  // a rotation, or what belongs to one
	Overdue                  // a rotation that should have been over long ago
	Requested                // somebody waits for it
	Alarm                    // a leaked key is replaced, or a foreign one: callbacks may be refused
)

func (u Urgency) String() string {
	return [...]string{"looking", "routine", "overdue", "requested", "alarm"}[u]
}

type urgencyKey struct{}

// WithUrgency gives the calls that are made with ctx an urgency.
func WithUrgency(ctx context.Context, u Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// UrgencyOf is the urgency of calls that are made with ctx: Routine if none was given.
func UrgencyOf(ctx context.Context) Urgency {
	if u, ok := ctx.Value(urgencyKey{}).(Urgency); ok {
		return u
	}
	return Routine
}

// urgency is that of a step.
func (e *Engine) urgency(tr *track, a Action, w Wish) Urgency {
	k, now := tr.snap.Keyring, e.clock.Now()
	switch {
	case a.Idle:
		return Looking
	case k == nil:
		return Routine
	case a.Step == StepReassert && tr.obs.Sight == Seen && !tr.obs.Key.Equal(k.CallbackKey()):
		return Alarm
	}
	reason, since := w.Asked, w.Due
	if p := k.Pending(); p != nil {
		since = p.PushAfter
		if reason != ByRevoke {
			reason = k.Rotation.Reason
		}
	}
	switch {
	case reason == ByRevoke:
		return Alarm
	case reason == ByCommand || reason == BySignal:
		return Requested
	case !since.IsZero() && now.Sub(since) > e.policy.AttemptLimit:
		return Overdue
	}
	return Routine
}
