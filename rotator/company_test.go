package rotator

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// reading gives what has e read a target's keyring, and checks what e tells of who shares the work.
func reading(t *testing.T, e *Engine) func(target Target, want ...string) {
	var told []string
	e.share = func(replicas, place int) { told = append(told, fmt.Sprintf("%d of %d", place, replicas)) }
	return func(target Target, want ...string) {
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
		begin := func(owner string, target Target, lease time.Duration) {
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

// TestShareInAWave: whose leases have passed is still there while it goes on with what it has in hand, and
// not when somebody else takes that over.
func TestShareInAWave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, ts, _ := fleet(t, 4, 5, nil)
		read := reading(t, e)
		a, _ := engineOn(t, m, "a", nil, nil)
		z, _ := engineOn(t, m, "z", nil, nil)
		type change = func(k *Keyring, p *Policy) *Keyring
		claim := func(k *Keyring, p *Policy) *Keyring { return k.claimed(time.Now(), p) }
		confirm := func(k *Keyring, _ *Policy) *Keyring { return k }
		commit := func(k *Keyring, p *Policy) *Keyring { return k.committed(true, time.Now(), p) }
		write := func(e *Engine, target Target, changes ...change) {
			t.Helper()
			tr := e.track(target)
			if err := e.read(t.Context(), tr); err != nil {
				t.Fatal(err)
			}
			for _, c := range changes {
				if err := e.write(t.Context(), tr, c(tr.snap.Keyring, &e.policy)); err != nil {
					t.Fatal(err)
				}
			}
		}
		me, _ := engineOn(t, m, "me", nil, nil)
		if err := me.Begin(t.Context(), ts[3], BySignal); err != nil {
			t.Fatal(err)
		}
		read(ts[3])
		write(me, ts[3], confirm, commit)
		read(ts[3]) // its own
		for i, target := range ts[:3] {
			if err := a.Begin(t.Context(), target, BySignal); err != nil {
				t.Fatal(err)
			}
			read(target, []string{"1 of 2"}[:1-min(i, 1)]...)
		}
		lease := tablePolicy.Timing.Lease
		time.Sleep(tablePolicy.Propagation + lease)
		tr := e.track(ts[1])
		tr.held, tr.behind = true, behindLimit
		read(ts[1], "0 of 1")
		spares := func(want bool) {
			t.Helper()
			if got := e.spare(tr, Action{Step: StepClaim}); got.Step == StepWait != want || want && !got.Until.Equal(time.Now().Add(spareCheck)) {
				t.Errorf("it spares a's rotation: %+v", got)
			}
		}
		spares(false)
		write(a, ts[0], confirm, commit)
		read(ts[0], "1 of 2")
		read(ts[1])
		spares(true)
		tr.behind--
		idle := e.spare(tr, Action{Step: StepClaim})
		tr.behind++
		if other := e.spare(tr, Action{Step: StepPush}); idle.Step != StepClaim || other.Step != StepPush {
			t.Errorf("with nothing else to do: %+v; what is its own: %+v", idle, other)
		}
		for _, reason := range []Reason{ByCommand, ByRevoke} {
			r := tr.snap.Keyring.Rotation
			was := r.Reason
			r.Reason = reason
			if got := e.spare(tr, Action{Step: StepClaim}); got.Step != StepClaim {
				t.Errorf("%s: %+v", reason, got)
			}
			r.Reason = was
		}
		time.Sleep(lease / 2)
		read(ts[3])
		time.Sleep(lease/2 - time.Nanosecond)
		read(ts[1])
		time.Sleep(time.Nanosecond)
		read(ts[1], "0 of 1")
		spares(false)
		write(z, ts[2], claim, confirm, commit)
		read(ts[2])
	})
}

// TestGoneOn has a row for each way on from a rotation in hand.
func TestGoneOn(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	p.Owner = "a"
	before := settled().s.Keyring
	staged := before.staged(keyP, "r", BySchedule, t0, &p)
	z := p
	z.Owner = "z"
	for name, r := range map[string]struct {
		was, is *Keyring
		later   int64
		want    bool
	}{
		"confirmed":                     {staged, staged, 1, true},
		"confirmed and committed":       {staged, staged.committed(true, t0, &p), 2, true},
		"claimed, confirmed, committed": {staged, staged.claimed(t0, &z).committed(true, t0, &z), 3, false},
		"claimed":                       {staged, staged.claimed(t0, &z), 1, false},
		"gone":                          {staged, nil, 1, false},
		"nothing was in hand":           {before, staged, 1, false},
	} {
		if got := goneOn(Snapshot{Keyring: r.was, Version: 7}, Snapshot{Keyring: r.is, Version: 7 + r.later}); got != r.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestBusy: for how long a replica is taken to go on goes by when it wrote, as the store tells, but never by a time
// that has yet to come.
func TestBusy(t *testing.T) {
	t.Parallel()
	_, e, ts, _ := fleet(t, 1, 5, nil)
	p := tablePolicy
	p.Owner = "a"
	tr, now := e.track(ts[0]), e.clock.Now()
	tr.snap = Snapshot{Keyring: settled().s.Keyring.staged(keyP, "r", BySchedule, now, &p), Version: 5}
	for _, r := range []struct{ written, busy time.Duration }{
		{-time.Minute, -time.Minute},
		{-2 * time.Minute, -time.Minute},
		{time.Minute, 0},
	} {
		before := e.clock.Now()
		e.noticed(tr, Snapshot{Keyring: tr.snap.Keyring, Version: 6, Written: before.Add(r.written)})
		got := e.peers["a"].busy.Add(-e.policy.Timing.Lease)
		if got.Before(before.Add(r.busy).Add(-time.Second)) || got.After(e.clock.Now().Add(r.busy)) {
			t.Errorf("written %s from now: busy from %s from now on, want %s", r.written, got.Sub(before), r.busy)
		}
	}
}
