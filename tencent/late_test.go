package tencent

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// TestLateCall: the call after those that were late on their way is so much later, or a turn later.
func TestLateCall(t *testing.T) {
	t.Parallel()
	const gap, way = time.Second * 10 / 195, 100 * time.Millisecond
	for _, r := range []struct {
		programs, calls int
		late, later     time.Duration
		usual           time.Duration // afterwards
	}{
		{1, 1, -50 * time.Millisecond, 0, way - 50*time.Millisecond/usualCalls},
		{1, 1, 19 * time.Millisecond, 0, way + 19*time.Millisecond/usualCalls},
		{1, 1, 20 * time.Millisecond, 20 * time.Millisecond, way + 20*time.Millisecond/usualCalls},
		{1, 2, 40 * time.Millisecond, 75 * time.Millisecond, way + 75*time.Millisecond/usualCalls},
		{1, 1, 10 * time.Second, gap, way + way/usualCalls},
		{3, 1, 19 * time.Millisecond, 0, way + 19*time.Millisecond/usualCalls},
		{3, 1, 20 * time.Millisecond, 3 * gap, way + 20*time.Millisecond/usualCalls},
		{3, 2, 40 * time.Millisecond, 6 * gap, way + 75*time.Millisecond/usualCalls},
		{3, 1, 10 * time.Second, 3 * gap, way + way/usualCalls},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(DefaultRate)
			l.allowed = l.most
			l.Share(r.programs, 0)
			wait := func() time.Time {
				at, err := l.Wait(t.Context())
				if err != nil {
					t.Error(err)
				}
				return at
			}
			sent := time.Now()
			time.Sleep(way)
			l.Answered(sent)
			for range r.calls {
				l.Answered(time.Now().Add(-r.late - way))
			}
			if got := l.delays.usual; got != r.usual {
				t.Errorf("%d programs, %s late: the usual delay is then %s, want %s", r.programs, r.late, got, r.usual)
			}
			owed := l.delays.owed
			l.delays.owed = 0
			before := wait()
			l.delays.owed = owed
			if got, want := wait().Sub(before), time.Duration(r.programs)*gap+r.later; (got - want).Abs() > time.Microsecond {
				t.Errorf("%d programs, %s late: the next call is %s after, want %s", r.programs, r.late, got, want)
			}
			if l.delays.owed != 0 {
				t.Errorf("%s is still owed", l.delays.owed)
			}
		})
	}
}

// TestAllLate: what is late all the time is usual soon; and a machine that stood still sends again
// soon after.
func TestAllLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultRate)
		l.allowed = l.most
		l.delays.usual = 40 * time.Millisecond
		for range 20 {
			l.Answered(time.Now().Add(-10 * time.Second))
		}
		if l.delays.owed != mostOwed {
			t.Errorf("after a stall %s is owed", l.delays.owed)
		}
		for range 100 {
			l.Answered(time.Now().Add(-10 * time.Second))
		}
		l.delays.owed = 0
		if l.Answered(time.Now().Add(-10 * time.Second)); l.delays.owed != 0 {
			t.Errorf("what takes 10 s each time is late by %s", l.delays.owed)
		}
	})
}

// TestAnswersAreTimed: those with a key and those with an error, but not what was no answer.
func TestAnswersAreTimed(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	const set, describe = "SetWhiteboardPushCallbackKey", "DescribeWhiteboardPushCallback"
	timed := func(api string) bool { return c.limits[api].delays.usual > 0 }
	s.Plan(describe, app, tiwtest.Drop())
	if _, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush)); err == nil || timed(describe) {
		t.Errorf("a broken connection: %v, timed: %t", err, timed(describe))
	}
	if _, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush)); err != nil || !timed(describe) {
		t.Errorf("an answer: %v, timed: %t", err, timed(describe))
	}
	s.Plan(set, app, tiwtest.Refuse("ResourceUnavailable.ServiceExpired"))
	if _, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey)); err == nil || !timed(set) {
		t.Errorf("an error: %v, timed: %t", err, timed(set))
	}
}

// TestLateTimers: what wakes the limiter is never quite in time, which makes it miss neither a turn nor,
// alone, a place.
func TestLateTimers(t *testing.T) {
	t.Parallel()
	for programs := 1; programs <= 3; programs += 2 {
		synctest.Test(t, func(t *testing.T) {
			l, random := NewLimiter(DefaultRate), rand.New(rand.NewPCG(5, 6))
			l.allowed = l.most
			l.Share(programs, 0)
			ctx, end := context.WithCancel(t.Context())
			var group sync.WaitGroup
			granted := 0
			for range 32 {
				group.Go(func() {
					for {
						if _, err := l.Wait(ctx); err != nil {
							return
						}
						l.mu.Lock()
						granted++
						l.mu.Unlock()
					}
				})
			}
			wake := func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.timer != nil {
					l.timer.Stop()
				}
				l.serve(true)
				if l.timer != nil {
					l.timer.Stop() // it is woken below, too late
				}
			}
			const span = 100 * time.Second
			for began := time.Now(); time.Since(began) < span; {
				time.Sleep(time.Duration(random.Int64N(int64(10 * time.Millisecond))))
				wake()
				synctest.Wait()
			}
			if want := l.most / float64(programs) * span.Seconds(); float64(granted) < 0.99*want {
				t.Errorf("%d programs: %d calls in %s, want %.0f", programs, granted, span, want)
			}
			end()
			group.Wait()
		})
	}
}
