package rotator

import "time"

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
