package sim

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	tiw "tiwkeyd/tencent"
)

// Two hours from one rotation to the next leave room for what goes wrong.
var fleetSchedule, _ = schedule.Parse("0 */2 * * *", 0)

// join starts a daemon.
func (f *fleet) join(t *testing.T, name string, due ...time.Time) *member {
	t.Helper()
	m := &member{f: f, name: name, ended: make(chan struct{}), limits: map[string]*tiw.Limiter{}}
	if len(due) > 0 {
		m.due = due[0]
	}
	f.mu.Lock()
	m.skew = time.Duration(f.random.Int64N(int64(2*f.skew+1))) - f.skew // as time servers keep them
	if !f.calm && f.random.IntN(4) == 0 {
		m.skew = time.Duration(f.random.IntN(181)-90) * time.Second
	}
	f.mu.Unlock()
	for _, api := range []string{"set", "describe"} {
		m.limits[api] = tiw.NewLimiter(limit)
	}
	p := f.policy
	p.Owner = name
	rate := float64(limit)
	if f.unpaced {
		rate = 0
	}
	e, err := rotator.New(rotator.Options{Store: m, API: m, Policy: p, Due: m.dueAt, LookRate: limit / 4, StageRate: rate, Share: m.share, Clock: skewed{rotator.NewSystemClock(), m.skew}, Events: m.hear})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.engine, m.stop = e, cancel
	f.mu.Lock()
	f.members = append(f.members, m)
	f.mu.Unlock()
	go func() {
		defer close(m.ended)
		e.Run(ctx, f.targets)
	}()
	return m
}

// share has the replicas take turns at Tencent.
func (m *member) share(replicas, place int) {
	for _, l := range m.limits {
		l.Share(replicas, place)
	}
}

// dueAt is the schedule, or once at m.due.
func (m *member) dueAt(t secrets.Target, _ *rotator.Keyring, at time.Time) time.Time {
	switch {
	case m.due.IsZero():
		return fleetSchedule.Due(t, at)
	case at.Before(m.due):
		return m.due
	}
	return time.Time{}
}

// kill ends a daemon in the middle of whatever it does.
func (m *member) kill() {
	m.f.mu.Lock()
	m.dead = true
	m.f.members = slices.DeleteFunc(m.f.members, func(o *member) bool { return o == m })
	m.f.mu.Unlock()
	m.stop()
}

func (m *member) hear(ev rotator.Event) {
	f := m.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.dead {
		return
	}
	switch {
	case ev.Kind == rotator.Idle:
		f.visits++
	case ev.Kind != rotator.Done:
	case ev.Step == rotator.StepStage:
		f.stages[m.name]++
	case ev.Step == rotator.StepRollback:
		f.rollbacks++
	case ev.Step == rotator.StepCommit:
		f.commits++
		k := f.rings[ev.Target].versions[len(f.rings[ev.Target].versions)-1].k
		if cur := k.Current(); cur != nil {
			f.lateness[ev.Target] = max(f.lateness[ev.Target], cur.ActivatedAt.Sub(cur.PushAfter))
		}
	}
}

// worst is the worst lateness, and begins the count anew.
func (f *fleet) worst() (worst time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.lateness {
		worst = max(worst, d)
	}
	clear(f.lateness)
	return worst
}

// skewed is a clock that is not quite right.
type skewed struct {
	rotator.SystemClock
	by time.Duration
}

func (c skewed) Now() time.Time { return c.SystemClock.Now().Add(c.by) }

func (c skewed) WithDeadline(ctx context.Context, wall time.Time, steady time.Duration) (context.Context, context.CancelFunc) {
	return c.SystemClock.WithDeadline(ctx, wall.Add(-c.by), steady)
}

// stopAll ends all daemons, and the world with them.
func (f *fleet) stopAll() {
	f.mu.Lock()
	members := slices.Clone(f.members)
	f.mu.Unlock()
	for _, m := range members {
		m.stop()
	}
	for _, m := range members {
		<-m.ended
	}
	time.Sleep(10 * time.Minute) // what was killed ends, what was late arrives
}

// settled is I2 and I3, once the mishaps have ended and two rotations could be.
func (f *fleet) settled() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.targets {
		r := f.rings[t]
		k := r.versions[len(r.versions)-1].k
		switch {
		case k.Current() == nil || !k.Current().Key.Equal(r.inForce) || k.Pending() != nil:
			f.fail("I2: %s: Tencent signs with %s, the keyring says %v", t, r.inForce, k.Keys)
		case time.Since(k.RotatedAt) > 2*time.Hour+f.policy.Propagation+f.policy.Reconcile:
			f.fail("I2: %s: the last rotation was at %s", t, k.RotatedAt)
		case len(k.Keys) > 2:
			f.fail("I3: %s: there are still %d keys", t, len(k.Keys))
		}
	}
}

// TestFleet has five daemons share sixty applications for a day in which they are killed,
// paused and cut off, Vault is sealed, and calls get lost. With TIWKEYD_SIM_FLEETS it is that many
// days, of a thousand applications each.
func TestFleet(t *testing.T) {
	t.Parallel()
	days, n := 1, 60
	if v := os.Getenv("TIWKEYD_SIM_FLEETS"); v != "" {
		var err error
		if days, err = strconv.Atoi(v); err != nil {
			t.Fatalf("TIWKEYD_SIM_FLEETS: %v", err)
		}
		n = 1000
	}
	for seed := range uint64(days) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(seed, n)
			for i := range 5 {
				f.join(t, fmt.Sprint("r", i))
			}
			names := 5
			for hour := range 12 {
				for range 4 {
					time.Sleep(15 * time.Minute)
					f.mu.Lock()
					m := f.members[f.random.IntN(len(f.members))]
					what := f.random.IntN(4)
					switch what {
					case 0:
						m.cut = true
						time.AfterFunc(time.Duration(f.random.IntN(3600))*time.Second, func() { f.mu.Lock(); m.cut = false; f.mu.Unlock() })
					case 1:
						m.frozen = time.Now().Add(time.Duration(f.random.IntN(3600)) * time.Second)
					}
					f.mu.Unlock()
					switch what {
					case 2:
						m.kill()
						time.Sleep(10 * time.Second)
						f.join(t, fmt.Sprint("r", names))
						names++
					case 3:
						if hour%3 == 0 {
							f.seal(10 * time.Minute)
						}
					}
				}
			}
			f.mu.Lock()
			f.calm = true
			for _, m := range f.members {
				m.cut, m.frozen = false, time.Time{}
			}
			f.mu.Unlock()
			time.Sleep(4 * time.Hour)
			time.Sleep(time.Until(time.Now().Truncate(2 * time.Hour).Add(2*time.Hour + 59*time.Minute)))
			f.settled()
			f.stopAll()
			if f.fault != "" {
				t.Errorf("seed %d: %s", seed, f.fault)
			}
			t.Logf("seed %d: %d rotations, %d rolled back, %d visits, %d mishaps; per rotation %.2f reads, %.2f writes of which %.2f conflicts, %.2f calls to Tencent; %.3f %% over the limit; staged %v",
				seed, f.commits, f.rollbacks, f.visits, f.mishaps, float64(f.reads)/float64(f.commits), float64(f.writes)/float64(f.commits),
				float64(f.conflicts)/float64(f.commits), float64(f.calls)/float64(f.commits), 100*float64(f.limited)/float64(f.calls), f.stages)
			if f.commits < 8*n {
				t.Errorf("seed %d: only %d rotations", seed, f.commits)
			}
		})
	}
}

// seal has nobody read or write for a while.
func (f *fleet) seal(d time.Duration) {
	f.mu.Lock()
	f.vault.down = true
	f.vault.outages = append(f.vault.outages, span{from: time.Now()})
	f.mu.Unlock()
	time.Sleep(d)
	f.mu.Lock()
	f.vault.down = false
	f.vault.outages[len(f.vault.outages)-1].to = time.Now()
	f.mu.Unlock()
}

// TestPartition cuts off one of five daemons in the middle of a rotation of all applications: its
// share waits for its lease to end, and for its turn within the limit.
func TestPartition(t *testing.T) {
	slow(t)
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 300
		if os.Getenv("TIWKEYD_SIM_FLEETS") != "" {
			n = 1000
		}
		f := newFleet(1, n)
		f.calm = true
		for i := range 5 {
			f.join(t, fmt.Sprint("r", i))
		}
		time.Sleep(f.policy.Reconcile)
		begun := time.Now().Truncate(2 * time.Hour).Add(2 * time.Hour)
		time.Sleep(time.Until(begun.Add(f.policy.Propagation + 100*time.Second))) // skewed clocks begin up to 90 s late
		undisturbed := f.worst()
		f.worst()
		time.Sleep(time.Until(begun.Add(2*time.Hour + f.policy.Propagation - 90*time.Second)))
		f.mu.Lock()
		m := f.members[2]
		m.cut = true
		had := f.stages[m.name]
		f.mu.Unlock()
		time.Sleep(time.Hour)
		delayed := f.worst()
		f.settled()
		f.stopAll()
		// Who takes over has rotations of its own, and each run shares them out differently.
		allowed := undisturbed + 2*f.policy.Timing.Lease
		t.Logf("worst delay %s, without the partition %s; it had staged %d in two rotations; lease %s", delayed, undisturbed, had, f.policy.Timing.Lease)
		if f.fault != "" || delayed > allowed {
			t.Errorf("delay %s, allowed %s; %s", delayed, allowed, f.fault)
		}
	})
}

// TestHundredThousand is the budget of docs/design.md: one daemon, a hundred thousand applications, one
// rotation of all. It takes minutes, and runs with TIWKEYD_SIM_FLEETS only; else it is three hundred.
func TestHundredThousand(t *testing.T) {
	n := 300
	if os.Getenv("TIWKEYD_SIM_FLEETS") != "" {
		n = 100_000
	}
	synctest.Test(t, func(t *testing.T) {
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		f := newFleet(1, n)
		f.calm = true
		before := heap()
		idle := runtime.NumGoroutine()
		day := time.Now().Add(12 * time.Hour)
		m := f.join(t, "r0", day)
		time.Sleep(2 * time.Second)
		interval := m.engine.Interval()
		time.Sleep(interval + time.Minute)
		memory, goroutines := heap()-before, runtime.NumGoroutine()-idle
		f.mu.Lock()
		calls := f.calls
		f.mu.Unlock()
		if perSecond := float64(calls) / (interval + time.Minute).Seconds(); perSecond > limit/4+0.1 || calls < n {
			t.Errorf("%d looks in %s", calls, interval)
		}
		time.Sleep(time.Until(day.Add(f.policy.Propagation + time.Duration(n)*time.Second/limit*11/10 + 30*time.Second)))
		f.mu.Lock()
		reads, writes, commits, limited := f.reads, f.writes, f.commits, f.limited
		f.mu.Unlock()
		t.Logf("%d targets: a look every %s, %d bytes and %d goroutines for all, %d bytes a target; one rotation of all: %d of them, worst wait %s; %.2f writes each; %d reads since the start; %d calls over the limit",
			n, interval, memory, goroutines, memory/uint64(n), commits, f.worst(), float64(writes)/float64(n), reads, limited)
		// What had waited for longer than AttemptLimit when it met the limit is given up, and tried again later.
		time.Sleep(time.Hour)
		f.mu.Lock()
		again := f.commits
		f.mu.Unlock()
		f.stopAll()
		if f.fault != "" || n-commits > n/1000 || again != n || goroutines > 70 || memory/uint64(n) > 4000 {
			t.Errorf("%d rotations, %d an hour later, %d goroutines, %d bytes a target; %s", commits, again, goroutines, memory/uint64(n), f.fault)
		}
	})
}
