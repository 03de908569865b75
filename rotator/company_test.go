package rotator

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// reading gives what has e read a target's keyring, and checks what e tells of who shares the work.
func reading(t *testing.T, e *Engine) func(target secrets.Target, want ...string) {
	var told []string
	e.share = func(replicas, place int) { told = append(told, fmt.Sprintf("%d of %d", place, replicas)) }
	return func(target secrets.Target, want ...string) {
		t.Helper()
		told = nil
		if err := e.read(t.Context(), e.track(target)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: it tells %q, want %q", target, told, want)
		}
	}
}

// TestShare: an engine tells how many replicas there are, as far as it has noticed, and which of them it
// is, until they are not seen any more or have left a rotation behind.
func TestShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, ts, _ := fleet(t, 8, 5, nil)
		read := reading(t, e)
		begin := func(owner string, target secrets.Target, lease time.Duration) {
			other, _ := engineOn(t, m, owner, nil, nil)
			other.policy.Timing.Lease = lease
			if err := other.Begin(t.Context(), target, BySignal); err != nil {
				t.Fatal(err)
			}
		}
		lease := tablePolicy.Timing.Lease
		begin("me", ts[0], lease)
		read(ts[0])
		begin("nobody", ts[1], 0) // a command leaves its rotation to the daemons
		read(ts[1])
		begin("a", ts[2], lease)
		read(ts[2], "1 of 2")
		begin("z", ts[3], lease)
		read(ts[3], "1 of 3")
		read(ts[2])
		begin("z", ts[4], 2*companyLimit)
		time.Sleep(tablePolicy.Propagation + lease)
		read(ts[2], "0 of 2") // a has not ended it in time
		time.Sleep(companyLimit / 2)
		begin("z", ts[7], lease)
		read(ts[4])
		read(ts[7])
		time.Sleep(tablePolicy.Propagation + lease)
		read(ts[7]) // z has not ended this one, but has another in hand
		time.Sleep(companyLimit - tablePolicy.Propagation - lease - time.Nanosecond)
		read(ts[5])
		time.Sleep(time.Nanosecond)
		read(ts[5], "0 of 1")
		begin("a", ts[5], 2*companyLimit)
		read(ts[5], "1 of 2")
		time.Sleep(companyLimit)
		begin("z", ts[6], lease)
		read(ts[6], "0 of 2") // one has come as the other goes
	})
}
