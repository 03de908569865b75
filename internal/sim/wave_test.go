package sim

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestWave has replicas rotate thousands of targets at one moment: how much of Tencent's limit is used, how many calls it refuses, and what each rotation costs.
func TestWave(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, r := range []struct {
		members, targets int
		used, looks      float64
	}{{1, 3000, 0.93, 1.01}, {3, 8000, 0.955, 1.01}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(uint64(r.members), r.targets)
			f.calm, f.spread, f.skew = true, 10*time.Millisecond, 10*time.Millisecond
			due := time.Now().Add(time.Duration(r.targets) * time.Second / 5 * 13 / 10)
			for i := range r.members {
				f.join(t, fmt.Sprint("r", i), due)
			}
			time.Sleep(time.Until(due.Add(-time.Second)))
			f.mu.Lock()
			limited, writes := f.limited, f.writes
			f.mu.Unlock()
			time.Sleep(time.Until(due.Add(f.policy.Propagation)))
			f.mu.Lock()
			calls := f.calls
			f.mu.Unlock()
			began, commits := time.Now(), 0
			for commits < r.targets && time.Since(began) < time.Hour {
				time.Sleep(100 * time.Millisecond)
				f.mu.Lock()
				commits = f.commits
				f.mu.Unlock()
			}
			used := float64(commits) / time.Since(began).Seconds() / limit
			f.mu.Lock()
			calls, limited, writes = f.calls-calls, f.limited-limited, f.writes-writes
			f.mu.Unlock()
			f.stopAll()
			n := float64(r.targets)
			looks, waste := float64(calls)/n-1, float64(limited)/float64(calls)
			t.Logf("%d replicas, %d targets: %.3f of the limit is used, %.3f %% of the calls are refused; per rotation %.3f looks and %.3f writes; staged %v",
				r.members, r.targets, used, 100*waste, looks, float64(writes)/n, f.stages)
			if f.fault != "" || commits != r.targets || used < r.used || waste > 0.001 || looks > r.looks {
				t.Errorf("%d rotations; %s", commits, f.fault)
			}
		})
	}
}
