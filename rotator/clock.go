package rotator

import (
	"context"
	"time"
)

// Clock is where the engine takes time from: SystemClock, or a simulator's.
type Clock interface {
	Now() time.Time
	// Steady is the time since some moment in the past, which no setting of the clock changes.
	// It may stand still while the machine is suspended.
	Steady() time.Duration
	// After sends once d has passed; stop releases it early.
	After(d time.Duration) (c <-chan time.Time, stop func())
	// WithDeadline gives a context that ends at a time by either clock.
	WithDeadline(ctx context.Context, wall time.Time, steady time.Duration) (context.Context, context.CancelFunc)
}

// SystemClock is the machine's clock.
type SystemClock struct{ start time.Time }

// NewSystemClock gives the machine's clock.
func NewSystemClock() SystemClock { return SystemClock{time.Now()} }

// Steady is the monotonic clock's.
func (c SystemClock) Steady() time.Duration { return time.Since(c.start) }

// Now is the wall clock's time. Its monotonic part is removed: times are compared with
// those of other machines, and a machine that was suspended must see that time has passed.
func (SystemClock) Now() time.Time { return time.Now().Round(0) }

// After is a timer of the machine.
func (SystemClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// WithDeadline is the standard library's, with a deadline that has both clocks' times.
func (c SystemClock) WithDeadline(ctx context.Context, wall time.Time, steady time.Duration) (context.Context, context.CancelFunc) {
	now := time.Now() // both in one reading: a pause after it puts nothing off
	return context.WithDeadline(ctx, now.Add(min(wall.Sub(now.Round(0)), steady-now.Sub(c.start))))
}

// longestSleep bounds one sleep: a timer does not count the time a machine was suspended.
const longestSleep = 30 * time.Second

// sleepUntil waits for the given time, for wake, or for ctx to end.
func sleepUntil(ctx context.Context, c Clock, until time.Time, wake <-chan struct{}) {
	for {
		d := until.Sub(c.Now())
		if d <= 0 {
			return
		}
		timer, stop := c.After(min(d, longestSleep))
		select {
		case <-timer:
		case <-wake:
			stop()
			return
		case <-ctx.Done():
			stop()
			return
		}
	}
}
