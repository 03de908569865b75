package tencent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
)

// TestWave has programs rotate many targets together: each key is set, and then looked for, by 32 visits
// at a time. The two APIs have a limit each.
func TestWave(t *testing.T) {
	const targets, visits = 10000, 32
	for _, r := range []struct {
		programs int
		known    time.Duration // when the first knows of the others; -1: never
		clocks   time.Duration // how much they differ by
		used     float64
		waste    float64
	}{
		{1, -1, 0, 0.96, 0},
		{3, -1, 0, 0.89, 0.002},
		{2, 0, 0, 0.97, 0.0002},
		{3, 0, 0, 0.97, 0.0002},
		{5, 0, 0, 0.97, 0.0002},
		{8, 0, 0, 0.965, 0.0002},
		{3, 0, 10 * time.Millisecond, 0.97, 0.0002},
		{3, 0, 100 * time.Millisecond, 0.89, 0.002},
		{3, 5 * time.Second, 0, 0.96, 0.001},
	} {
		synctest.Test(t, func(t *testing.T) {
			seed := uint64(r.programs)
			set := &shared{random: rand.New(rand.NewPCG(seed, 7)), sent: map[string]int{}, no: map[string]int{}}
			look := &shared{random: rand.New(rand.NewPCG(seed, 8)), sent: map[string]int{}, no: map[string]int{}}
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
				for name := range s.sent {
					calls, refused = calls+s.sent[name], refused+s.no[name]
				}
			}
			used, waste := targets/time.Since(began).Seconds()/DefaultRate, float64(refused)/float64(calls)
			told := fmt.Sprintf("%d programs, known after %s, clocks %s: %.3f of the limit is used, %.3f %% of the calls are refused", r.programs, r.known, r.clocks, used, 100*waste)
			t.Log(told)
			if used < r.used || waste > r.waste {
				t.Error(told)
			}
		})
	}
}

// TestTurnsOfOthers: those of a program that has gone, or has nothing to do, are taken after a while.
func TestTurnsOfOthers(t *testing.T) {
	for _, r := range []struct{ known, work int }{{3, 2}, {3, 1}, {5, 3}} {
		synctest.Test(t, func(t *testing.T) {
			s := &shared{random: rand.New(rand.NewPCG(3, 4)), sent: map[string]int{}, no: map[string]int{}}
			ctx, end := context.WithCancel(rotator.WithUrgency(t.Context(), rotator.Routine))
			var group sync.WaitGroup
			for i := range r.work {
				l := NewLimiter(DefaultRate)
				l.Share(r.known, i)
				for range 32 {
					group.Go(func() {
						for ctx.Err() == nil {
							s.call(ctx, fmt.Sprint("r", i), l, 0)
						}
					})
				}
			}
			count := func() (sent, no int) {
				s.mu.Lock()
				defer s.mu.Unlock()
				for name, n := range s.sent {
					sent, no = sent+n, no+s.no[name]
				}
				return sent, no
			}
			time.Sleep(30 * time.Minute)
			sent, no := count()
			time.Sleep(30 * time.Minute)
			sent2, no2 := count()
			used, waste := float64(sent2-sent-no2+no)/(DefaultRate*1800), float64(no2-no)/float64(sent2-sent)
			t.Logf("%d of %d work: %.3f of the limit is used, %.3f %% of the calls are refused", r.work, r.known, used, 100*waste)
			if used < 0.95 || waste > 0.001 {
				t.Errorf("%d of %d work: %.3f of the limit is used, %.3f %% of the calls are refused", r.work, r.known, used, 100*waste)
			}
			end()
			group.Wait()
		})
	}
}

// TestLooksFindNoLimit: who can wait does not make the rate grow until Tencent refuses a call.
func TestLooksFindNoLimit(t *testing.T) {
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
