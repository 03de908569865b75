package tencent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
)

// TestWave has programs rotate many targets together: each key is set, and then looked for, by 32 visits
// at a time. The two APIs have a limit each.
func TestWave(t *testing.T) {
	t.Parallel()
	const targets, visits = 10000, 32
	for _, r := range []struct {
		programs int
		known    time.Duration // when the first knows of the others; -1: never
		clocks   time.Duration // how much they differ by
		late     float64       // the share of calls that are late
		used     float64
		waste    float64
	}{
		{1, -1, 0, 0, 0.96, 0},
		{1, -1, 0, 0.02, 0.95, 0.0002},
		{3, -1, 0, 0, 0.89, 0.002},
		{2, 0, 0, 0, 0.97, 0.0002},
		{3, 0, 0, 0, 0.97, 0.0002},
		{5, 0, 0, 0, 0.97, 0.0002},
		{8, 0, 0, 0, 0.965, 0.0002},
		{3, 0, 10 * time.Millisecond, 0, 0.97, 0.0002},
		{3, 0, 100 * time.Millisecond, 0, 0.89, 0.002},
		{3, 0, 0, 0.02, 0.955, 0.0002},
		{3, 0, 0, 0.05, 0.93, 0.0005},
		{3, 5 * time.Second, 0, 0, 0.96, 0.001},
	} {
		synctest.Test(t, func(t *testing.T) {
			seed := uint64(r.programs)
			set, look := newShared(seed, 7), newShared(seed, 8)
			set.late, look.late = r.late, r.late
			ctx, began := rotator.WithUrgency(t.Context(), rotator.Routine), time.Now()
			todo := make(chan struct{}, targets)
			for range targets {
				todo <- struct{}{}
			}
			close(todo)
			var group sync.WaitGroup
			for i := range r.programs {
				name, sets, looks := fmt.Sprint("r", i), NewLimiter(DefaultRate), NewLimiter(DefaultRate)
				early := r.clocks * time.Duration(i) / time.Duration(r.programs)
				if r.known >= 0 {
					group.Go(func() {
						time.Sleep(r.known * time.Duration(1+i))
						sets.Share(r.programs, i)
						looks.Share(r.programs, i)
					})
				}
				for range visits {
					group.Go(func() {
						time.Sleep(time.Duration(i) * 700 * time.Millisecond) // they do not begin together
						for range todo {
							set.call(ctx, name, sets, early)
							look.call(ctx, name, looks, early)
						}
					})
				}
			}
			group.Wait()
			calls, refused := 0, 0
			for _, s := range []*shared{set, look} {
				sent, no := s.count()
				calls, refused = calls+sent, refused+no
			}
			used, waste := targets/time.Since(began).Seconds()/DefaultRate, float64(refused)/float64(calls)
			told := fmt.Sprintf("%d programs, known after %s, clocks %s, %g late: %.3f of the limit is used, %.3f %% of the calls are refused", r.programs, r.known, r.clocks, r.late, used, 100*waste)
			t.Log(told)
			if used < r.used || waste > r.waste {
				t.Error(told)
			}
		})
	}
}

// TestTurnsOfOthers: those of a program that has gone, or has nothing to do, are taken after a while.
func TestTurnsOfOthers(t *testing.T) {
	t.Parallel()
	for _, r := range []struct{ known, work int }{{3, 2}, {3, 1}, {5, 3}} {
		synctest.Test(t, func(t *testing.T) {
			s := newShared(3, 4)
			ctx, end := context.WithCancel(rotator.WithUrgency(t.Context(), rotator.Routine))
			var group sync.WaitGroup
			for i := range r.work {
				l := NewLimiter(DefaultRate)
				l.Share(r.known, i)
				s.saturate(ctx, &group, fmt.Sprint("r", i), l)
			}
			time.Sleep(30 * time.Minute)
			used, waste := s.over(30 * time.Minute)
			told := fmt.Sprintf("%d of %d work: %.3f of the limit is used, %.3f %% of the calls are refused", r.work, r.known, used, 100*waste)
			t.Log(told)
			if used < 0.95 || waste > 0.001 {
				t.Error(told)
			}
			end()
			group.Wait()
		})
	}
}

// TestRefusedTurns: what a program that takes turns allows itself after a refusal depends on how far
// above its fair share it was.
func TestRefusedTurns(t *testing.T) {
	t.Parallel()
	for _, r := range []struct{ before, told, after float64 }{
		{6, 6, 6 * slower},
		{7, 6.5, 6.5 * slower},      // the turns are its own still
		{8, 8, 6.5},                 // others take the turns that it thought free
		{12, 12, 12 * slower},       // some of the others do
		{19.5, 19.5, 19.5 * slower}, // or other programs
	} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(DefaultRate)
			l.Share(3, 0)
			l.allowed = r.before
			if got := l.Limit().Allowed; got != r.told {
				t.Errorf("%g: it tells %g, want %g", r.before, got, r.told)
			}
			l.Exceeded(time.Now())
			if l.allowed != r.after {
				t.Errorf("%g: after a refusal %g, want %g", r.before, l.allowed, r.after)
			}
			if l.Share(1, 0); l.plateau != l.most {
				t.Errorf("%g: alone it is soon back at %g", r.before, l.plateau)
			}
		})
	}
}

// TestLooksFindNoLimit: who can wait does not make the rate grow until Tencent refuses a call.
func TestLooksFindNoLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultRate)
		before := l.Limit()
		for range 100 {
			if _, err := l.Wait(rotator.WithUrgency(t.Context(), rotator.Looking)); err != nil {
				t.Error(err)
			}
		}
		if got := l.Limit(); got != before {
			t.Errorf("%v, before %v", got, before)
		}
	})
}
