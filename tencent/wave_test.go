package tencent

import (
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
	for _, programs := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			set := &shared{random: rand.New(rand.NewPCG(uint64(programs), 7)), sent: map[string]int{}, no: map[string]int{}}
			look := &shared{random: rand.New(rand.NewPCG(uint64(programs), 8)), sent: map[string]int{}, no: map[string]int{}}
			ctx, began := rotator.WithUrgency(t.Context(), rotator.Routine), time.Now()
			todo := make(chan struct{}, targets)
			for range targets {
				todo <- struct{}{}
			}
			close(todo)
			var group sync.WaitGroup
			for i := range programs {
				name, sets, looks := fmt.Sprint("r", i), NewLimiter(DefaultRate), NewLimiter(DefaultRate)
				for range visits {
					group.Go(func() {
						time.Sleep(time.Duration(i) * 700 * time.Millisecond) // they do not begin together
						for range todo {
							set.call(ctx, name, sets)
							look.call(ctx, name, looks)
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
			t.Logf("%d programs: %.3f of the limit is used, %.3f %% of the calls are refused", programs, used, 100*waste)
			if used < 0.89 || waste > 0.002 {
				t.Errorf("%d programs: %.3f of the limit is used, %.3f %% of the calls are refused", programs, used, 100*waste)
			}
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
