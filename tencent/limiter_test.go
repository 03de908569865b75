package tencent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
)

// shared is Tencent's limit: so many calls in any second.
type shared struct {
	mu       sync.Mutex
	random   *rand.Rand
	window   []time.Time
	sent, no map[string]int
	late     float64 // the share of calls that take up to lateness longer
}

const lateness = 60 * time.Millisecond

func newShared(seed1, seed2 uint64) *shared {
	return &shared{random: rand.New(rand.NewPCG(seed1, seed2)), sent: map[string]int{}, no: map[string]int{}}
}

// saturate has a program send as fast as it may until ctx ends.
func (s *shared) saturate(ctx context.Context, group *sync.WaitGroup, name string, l *Limiter) {
	for range 32 {
		group.Go(func() {
			for ctx.Err() == nil {
				s.call(ctx, name, l, 0)
			}
		})
	}
}

// count tells how many calls all programs have made, and how many of them were refused.
func (s *shared) count() (sent, no int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.sent {
		sent, no = sent+n, no+s.no[name]
	}
	return sent, no
}

// over tells what share of the limit is used in a span that begins now, and what share of the calls is
// refused.
func (s *shared) over(span time.Duration) (used, waste float64) {
	sent, no := s.count()
	time.Sleep(span)
	sent2, no2 := s.count()
	return float64(sent2-sent-no2+no) / (DefaultRate * span.Seconds()), float64(no2-no) / float64(sent2-sent)
}

// call takes its time on the way there and back.
func (s *shared) call(ctx context.Context, name string, l *Limiter, longer time.Duration) {
	at, err := l.Wait(ctx)
	if err != nil {
		return
	}
	s.mu.Lock()
	way := longer + 20*time.Millisecond + time.Duration(s.random.Int64N(int64(10*time.Millisecond)))
	if s.random.Float64() < s.late {
		way += time.Duration(s.random.Int64N(int64(lateness)))
	}
	s.mu.Unlock()
	time.Sleep(way)
	s.mu.Lock()
	now := time.Now()
	for len(s.window) > 0 && now.Sub(s.window[0]) >= time.Second {
		s.window = s.window[1:]
	}
	over := len(s.window) >= DefaultRate
	if s.sent[name]++; over {
		s.no[name]++
	} else {
		s.window = append(s.window, now)
	}
	s.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	l.Answered(at)
	if over {
		l.Exceeded(at)
	}
}

// TestLimitIsShared has programs send as fast as they may, against one limit.
func TestLimitIsShared(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 5; n += 2 {
		synctest.Test(t, func(t *testing.T) {
			s := newShared(uint64(n), 3)
			var group sync.WaitGroup
			var ends []context.CancelFunc
			for i := range n {
				ctx, end := context.WithCancel(t.Context())
				ends = append(ends, end)
				s.saturate(ctx, &group, fmt.Sprint("r", i), NewLimiter(DefaultRate))
			}
			share := func(span time.Duration, what string, most float64) {
				used, waste := s.over(span)
				s.mu.Lock()
				t.Logf("%d programs, %s: %.3f of the limit is used, %.3f %% of the calls are refused; %v", n, what, used, 100*waste, s.sent)
				s.mu.Unlock()
				if used < 0.955 || waste > most {
					t.Errorf("%d programs, %s: %.3f of the limit is used, %.3f %% of the calls are refused", n, what, used, 100*waste)
				}
			}
			share(500*time.Second, "from the start", 0.001*float64(n))
			share(2000*time.Second, "then", 0.00035*float64(n))
			s.mu.Lock()
			least, largest := s.sent["r0"], s.sent["r0"]
			for _, k := range s.sent {
				least, largest = min(least, k), max(largest, k)
			}
			s.mu.Unlock()
			if float64(largest) > 2.5*float64(least) {
				t.Errorf("%d programs: one has sent %d calls, another %d", n, largest, least)
			}
			if n > 1 {
				ends[0]() // its share goes to the others
				time.Sleep(600 * time.Second)
				share(1000*time.Second, "without one", 0.00035*float64(n))
			}
			for _, end := range ends {
				end()
			}
			group.Wait()
		})
	}
}

// TestUrgentCallsFirst: and the rest in the order in which it came, with a place now and then for
// who waits longest.
func TestUrgentCallsFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultRate)
		var mu sync.Mutex
		var order []string
		var group sync.WaitGroup
		queue := func(u rotator.Urgency, n int) {
			for i := range n {
				group.Go(func() {
					if _, err := l.Wait(rotator.WithUrgency(t.Context(), u)); err != nil {
						t.Error(err)
					}
					mu.Lock()
					order = append(order, fmt.Sprintf("%s%d", u, i))
					mu.Unlock()
				})
				synctest.Wait()
			}
		}
		queue(rotator.Looking, 3)
		queue(rotator.Routine, 60)
		queue(rotator.Alarm, 2)
		queue(rotator.Overdue, 1)
		queue(rotator.Requested, 1)
		group.Wait()
		if want := []string{"looking0", "alarm0", "alarm1", "requested0", "overdue0", "routine0", "routine1"}; !slices.Equal(order[:7], want) {
			t.Errorf("%v", order)
		}
		if i := slices.Index(order, "looking1"); i != lowShare-1 {
			t.Errorf("who waits longest came as number %d", i)
		}
		if !slices.IsSortedFunc(order[5:lowShare-1], func(a, b string) int { return len(a) - len(b) }) {
			t.Errorf("not first come, first served: %v", order)
		}
		if l.timer != nil || l.waiting.Len() != 0 {
			t.Error("there is a timer, and nobody waits")
		}
	})
}

// TestWaitIsBrokenOff: who goes leaves no trace, and holds nobody up.
func TestWaitIsBrokenOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(DefaultRate)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if _, err := l.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		cancel()
		group.Wait()
		began := time.Now()
		if at, err := l.Wait(t.Context()); err != nil || at.Sub(began) > time.Second {
			t.Errorf("%s, %v", at.Sub(began), err)
		}
		if _, err := l.Wait(ctx); !errors.Is(err, context.Canceled) || l.waiting.Len() != 0 {
			t.Errorf("%v, %d wait", err, l.waiting.Len())
		}
	})
}

// TestRate has one row for what makes it go up or down.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(20)
		wait := func() time.Time { at, _ := l.Wait(t.Context()); return at }
		if l.Limit().Allowed != 19.5/4 {
			t.Errorf("at the start %v", l.Limit())
		}
		time.Sleep(time.Hour)
		wait()
		if l.Limit().Allowed != 19.5/4 {
			t.Errorf("it grows while nobody waits: %v", l.Limit())
		}
		for range 1000 {
			wait()
		}
		if l.Limit().Allowed != 19.5 {
			t.Errorf("it does not find the limit: %v", l.Limit())
		}
		began := time.Now()
		for range 1000 {
			wait()
		}
		if rate := 1000 / time.Since(began).Seconds(); rate < 19.4 || rate > 19.6 {
			t.Errorf("%f a second", rate)
		}
		sent := wait()
		for range 5 { // all under way together
			l.Exceeded(sent)
		}
		if got := l.Limit(); got.Allowed != 19.5*slower || got.Exceeded != 5 { // nobody else was there before
			t.Errorf("after an excess at the limit %v", got)
		}
		l = NewLimiter(20)
		for range 20 {
			wait()
		}
		before := l.allowed
		if l.Exceeded(wait()); l.allowed < before*found || l.allowed > (before+0.3)*found { // what it grew in the wait between
			t.Errorf("after an excess on the way to the limit %g, before %g", l.allowed, before)
		}
		before = l.allowed
		if l.Exceeded(wait()); l.allowed < before*slower || l.allowed > (before+0.1)*slower {
			t.Errorf("after another %g, before %g", l.allowed, before)
		}
		for range 600 { // a minute and a half
			wait()
		}
		if back := l.allowed / before; back < 0.97 || back > 1 {
			t.Errorf("%f of what was too much comes back", back)
		}
		for range 2000 {
			l.Exceeded(wait())
		}
		if got := l.Limit().Allowed; got != 0.195 {
			t.Errorf("after many %v", got)
		}
	})
}
