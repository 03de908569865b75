package sim

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestDueAtOnce has thousands of targets due at one moment, whatever the time is that receivers
// need: every one gets its key, as fast as Tencent takes them. TIWKEYD_SIM_TARGETS says how many.
func TestDueAtOnce(t *testing.T) {
	slow(t)
	t.Parallel()
	n := 2000
	if v := os.Getenv("TIWKEYD_SIM_TARGETS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatalf("TIWKEYD_SIM_TARGETS: %v", err)
		}
	}
	for _, members := range []int{1, 3} {
		for _, p := range []time.Duration{4 * time.Second, 15 * time.Second, time.Minute, 6 * time.Minute} {
			t.Run(fmt.Sprintf("%d/%s", members, p), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { dueAtOnce(t, members, n, p) })
			})
		}
	}
}

func dueAtOnce(t *testing.T, members, n int, propagation time.Duration) {
	f := newFleet(uint64(members), n)
	f.calm, f.spread, f.skew = true, 10*time.Millisecond, 10*time.Millisecond
	f.policy.Propagation = propagation
	// Before it all targets are looked at, and the replicas come to know of each other.
	due := time.Now().Add(time.Duration(n) * time.Second / 5 * 13 / 10)
	for i := range members {
		f.join(t, fmt.Sprint("r", i), due)
	}
	count := func() (commits, reads, writes, calls int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.commits, f.reads, f.writes, f.calls
	}
	time.Sleep(time.Until(due.Add(-time.Second)))
	_, reads, writes, calls := count()
	// As long as Tencent's limit asks for, the wait for receivers, and as much again for the last few.
	ideal := time.Duration(n) * time.Second / limit
	most := 2 * (ideal + propagation + time.Minute)
	commits := 0
	for commits < n && time.Since(due) < most {
		time.Sleep(100 * time.Millisecond)
		commits, _, _, _ = count()
	}
	took := time.Since(due)
	_, r, w, c := count()
	f.stopAll()
	each := func(x int) float64 { return float64(x) / float64(n) }
	used, least := float64(n)/limit/(took-propagation).Seconds(), 0.95
	if n < 10_000 {
		least = 0.9 // the limiter takes a while to find the limit
	}
	t.Logf("%d replicas, %d targets, propagation %s: %d rotations in %s, %.3f of the limit from the first key that can be set; per rotation %.1f reads (%.0f a second), %.2f writes, %.2f calls",
		members, n, propagation, commits, took.Round(time.Second), used, each(r-reads), float64(r-reads)/took.Seconds(), each(w-writes), each(c-calls))
	if f.fault != "" || commits != n || used < least || f.most > members*f.crowd() {
		t.Errorf("%d of %d targets have got their key after %s, at %.3f of the limit, and %d were pending at one time; %s", commits, n, took, used, f.most, f.fault)
	}
}
