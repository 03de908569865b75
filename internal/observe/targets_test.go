package observe

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// TestLifeOfATarget follows the series of a target from before the first read to the second
// rotation, by a clock that stands still in between.
func TestLifeOfATarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		time.Sleep(time.Second)
		r.expect("before the first read", map[string]string{of(one, "target_phase", "phase", "unread"): "1", `tiwkeyd_targets{phase="unread"}`: "1", of(one, "target_visit_age_seconds"): "",
			of(one, "target_until_rotation_seconds"): "-1", of(one, "target_since_rotation_seconds"): "", of(one, "target_key_age_seconds"): "", of(one, "target_drift"): ""})
		stop := r.run()
		defer func() { stop() }()
		// Observe and adopt, and stage: a target whose key was never replaced is due at once.
		time.Sleep(time.Second)
		r.expect("receivers come to accept the first key", map[string]string{of(one, "target_phase", "phase", "waiting"): "1", of(one, "target_phase", "phase", "unread"): "", `tiwkeyd_targets{phase="unread"}`: "0",
			`tiwkeyd_targets{phase="waiting"}`: "1", of(one, "target_rotation_owned"): "1", of(one, "target_since_rotation_seconds"): "",
			of(one, "target_drift"): "0", of(one, "target_last_error_timestamp_seconds"): "", rotations(one, "schedule", "committed"): "0",
			rotations(one, "adopt", "committed"): ""})
		first := r.w.keyring(one)
		created := first.Current().CreatedAt
		lease := first.Rotation.LeaseUntil
		r.expect("the same", map[string]string{of(one, "target_key_age_seconds"): seconds(time.Since(created)), of(one, "target_rotation_lease_seconds"): seconds(time.Until(lease)),
			of(one, "target_until_rotation_seconds"): seconds(-2 * time.Second)})
		if lease.Before(time.Now().Add(propagation)) || time.Since(created) < 700*time.Millisecond {
			t.Errorf("lease %s, created %s", lease, created)
		}
		// The push is in doubt for longer than a visit.
		r.w.change(func() { r.w.setErrs = []error{answered(rotator.Doubtful, "InternalError")} })
		time.Sleep(time.Until(first.Pending().PushAfter) + 2*apiTime - 50*time.Millisecond)
		r.expect("the push was answered in doubt", map[string]string{of(one, "target_phase", "phase", "pushing"): "1", `tiwkeyd_targets{phase="pushing"}`: "1"})
		time.Sleep(time.Minute)
		k := r.w.keyring(one)
		at := k.RotatedAt
		r.expect("the first key is in force", map[string]string{of(one, "target_phase", "phase", "settled"): "1", `tiwkeyd_targets{phase="settled"}`: "1", of(one, "target_since_rotation_seconds"): seconds(time.Since(at)),
			of(one, "target_until_rotation_seconds"): seconds(time.Until(at.Add(24 * time.Hour))), of(one, "target_key_age_seconds"): seconds(time.Since(k.Current().CreatedAt)),
			of(one, "target_rotation_owned"): "", of(one, "target_rotation_lease_seconds"): "", rotations(one, "adopt", "committed"): "1", rotations(one, "schedule", "committed"): "0"})
		last := r.lastError(one)
		r.expect("an error remains", map[string]string{of(one, "target_last_error_timestamp_seconds"): seconds(last.Sub(time.Unix(0, 0)))})
		if since := time.Since(last); since < 50*time.Second || since > 2*time.Minute {
			t.Errorf("the last error is %s old", since)
		}
		visited := time.Since(r.engine.Standings()[0].At)
		if visited < 30*time.Second {
			t.Errorf("the visit is %s old", visited)
		}
		r.expect("the visit was a while ago", map[string]string{of(one, "target_visit_age_seconds"): seconds(visited)})
		time.Sleep(time.Until(at.Add(24*time.Hour)) + propagation + time.Minute)
		r.expect("a day later", map[string]string{rotations(one, "schedule", "committed"): "1", of(one, "target_phase", "phase", "settled"): "1", "tiwkeyd_targets_overdue": "0",
			"tiwkeyd_look_interval_seconds":                      seconds(policy("me").Reconcile),
			`tiwkeyd_tencent_rate_allowed{api="` + setAPI + `"}`: "6.5", `tiwkeyd_tencent_limit_exceeded_total{api="` + setAPI + `"}`: "2"})
	})
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// TestRolledBack: refused for good. What counts next is the next attempt.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.w.setErrs = []error{answered(rotator.Refused, "ResourceUnavailable.ServiceExpired")}
		stop := r.run()
		defer stop()
		time.Sleep(propagation + time.Minute)
		retry := r.w.keyring(one).Rotation.RetryAt
		r.expect("rolled back", map[string]string{of(one, "target_phase", "phase", "rolled_back"): "1", `tiwkeyd_targets{phase="rolled_back"}`: "1", rotations(one, "adopt", "rolled_back"): "1", rotations(one, "adopt", "committed"): "",
			of(one, "target_until_rotation_seconds"): seconds(time.Until(retry)), of(one, "target_rotation_owned"): ""})
		if time.Until(retry) < 10*time.Minute {
			t.Errorf("the next attempt is at %s", retry)
		}
	})
}

// TestReasons are those of what was asked for, and another for what no program of ours wrote.
func TestReasons(t *testing.T) {
	t.Parallel()
	for _, reason := range []rotator.Reason{rotator.BySignal, rotator.ByCommand, rotator.ByRevoke, "evil\"} 1\nx"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, newWorld(), one)
			stop := r.run()
			defer stop()
			time.Sleep(time.Hour)
			r.engine.Ask(reason, one)
			time.Sleep(time.Hour)
			want := string(reason)
			if want[:4] == "evil" {
				want = other
			}
			r.expect(want, map[string]string{rotations(one, want, "committed"): "1", rotations(one, "schedule", "committed"): "0"})
		})
	}
}

// TestUnsigned: an application that has no key until its first one is in force.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.w.inForce[one] = secrets.Key{}
		r.w.rings[one] = rotator.Snapshot{Version: 1, Keyring: &rotator.Keyring{Target: one, AcceptUnsigned: true, RotatedAt: time.Now().Add(-time.Hour)}}
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		r.expect("unsigned", map[string]string{of(one, "target_phase", "phase", "unsigned"): "1", of(one, "target_key_age_seconds"): "", of(one, "target_drift"): "0"})
	})
}

// TestUnadopted: Tencent does not tell which key is in force.
func TestUnadopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.w.change(func() { r.w.storeErr = errAway })
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		r.expect("the store is away", map[string]string{of(one, "target_phase", "phase", "unread"): "1"})
		if age, err := strconv.ParseFloat(r.value(of(one, "target_visit_age_seconds")), 64); err != nil || age > 40 {
			t.Errorf("a visit that failed is none: %v, %v", age, err)
		}
		r.w.change(func() { r.w.storeErr = nil })
		for phase := rotator.Phase(""); phase != rotator.Unadopted; { // between the read and the adoption
			time.Sleep(time.Millisecond)
			now := r.engine.Standings()[0]
			phase = now.PhaseAt(time.Now())
			if phase != rotator.Unadopted && phase != rotator.Unread {
				t.Fatalf("it came to %s", phase)
			}
		}
		r.expect("there is no keyring yet", map[string]string{of(one, "target_phase", "phase", "unadopted"): "1", `tiwkeyd_targets{phase="unadopted"}`: "1"})
	})
}

// TestDrift stays until Tencent tells of a key of ours again.
func TestDrift(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one, two)
		stop := r.run()
		defer stop()
		time.Sleep(time.Hour)
		ours := r.w.keyring(one).CallbackKey()
		r.w.change(func() { r.w.inForce[one] = secrets.NewKey("", "CANARY-foreign") })
		time.Sleep(time.Hour)
		r.expect("a foreign key", map[string]string{of(one, "target_drift"): "1", of(two, "target_drift"): "0"})
		r.w.change(func() { r.w.lookErr = answered(rotator.Doubtful, "InternalError") })
		time.Sleep(time.Hour)
		r.expect("Tencent does not tell any more", map[string]string{of(one, "target_drift"): "1", of(two, "target_drift"): "0"})
		r.w.change(func() { r.w.lookErr, r.w.inForce[one] = nil, secrets.Key{} })
		time.Sleep(time.Hour)
		r.expect("none", map[string]string{of(one, "target_drift"): "1"})
		r.w.change(func() { r.w.inForce[one] = ours })
		time.Sleep(time.Hour)
		r.expect("ours again", map[string]string{of(one, "target_drift"): "0", of(one, "drifts_total"): "1", of(two, "drifts_total"): "0"})
	})
}

// TestDriftIsCounted also where a rotation that is due replaces the foreign key before anybody scrapes.
func TestDriftIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one, two)
		stop := r.run()
		time.Sleep(time.Hour)
		stop()
		r.w.change(func() { r.w.inForce[one] = secrets.NewKey("", "CANARY-foreign") })
		time.Sleep(24 * time.Hour)
		r.engine = watched(t, r.Monitor, r.w, one, two)
		stop = r.run()
		defer func() { stop() }()
		time.Sleep(time.Hour)
		r.expect("after the rotation", map[string]string{of(one, "target_drift"): "0", of(one, "drifts_total"): "1", of(two, "drifts_total"): "0",
			rotations(one, "schedule", "committed"): "1", rotations(two, "schedule", "committed"): "1"})
	})
}

// TestAnotherReplica owns the rotation in hand.
func TestAnotherReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := newRig(t, w, one), newRig(t, w, one)
		p := policy("the other")
		var err error
		b.engine, err = rotator.New(rotator.Options{Store: b.Store(w), API: b.API(w), Policy: p, Events: b.Event, Due: func(_ secrets.Target, _ *rotator.Keyring, at time.Time) time.Time { return at.Add(24 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		b.Serve(Served{Engine: b.engine, Targets: []secrets.Target{one}, Policy: p})
		stopA := a.run()
		defer stopA()
		time.Sleep(time.Second)
		stopB := b.run()
		defer stopB()
		time.Sleep(time.Second)
		lease := seconds(time.Until(w.keyring(one).Rotation.LeaseUntil))
		a.expect("who began", map[string]string{of(one, "target_rotation_owned"): "1", of(one, "target_rotation_lease_seconds"): lease})
		b.expect("who came later", map[string]string{of(one, "target_rotation_owned"): "0", of(one, "target_rotation_lease_seconds"): lease})
		time.Sleep(time.Hour)
		b.expect("only who ends it counts it", map[string]string{rotations(one, "adopt", "committed"): ""})
		a.expect("only who ends it counts it", map[string]string{rotations(one, "adopt", "committed"): "1"})
	})
}

// TestReload: what was counted stays, what is served no more goes, and the new one comes.
func TestReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		r.w.setErrs = []error{answered(rotator.Doubtful, "InternalError")}
		stop := r.run()
		time.Sleep(time.Hour)
		stop()
		last := seconds(r.lastError(one).Sub(time.Unix(0, 0)))
		r.engine = watched(t, r.Monitor, r.w, one, two)
		r.expect("another engine", map[string]string{rotations(one, "adopt", "committed"): "1", rotations(two, "schedule", "committed"): "0", of(one, "target_last_error_timestamp_seconds"): last,
			of(two, "target_phase", "phase", "unread"): "1"})
		stop = r.run()
		time.Sleep(time.Hour)
		stop()
		r.expect("both", map[string]string{rotations(two, "adopt", "committed"): "1", `tiwkeyd_targets{phase="settled"}`: "2"})
		r.engine = watched(t, r.Monitor, r.w, two)
		r.expect("one is served no more", map[string]string{rotations(one, "adopt", "committed"): "", rotations(one, "schedule", "committed"): "", of(one, "target_phase", "phase", "settled"): "",
			of(one, "target_last_error_timestamp_seconds"): "", rotations(two, "adopt", "committed"): "1", of(one, "drifts_total"): "", of(two, "drifts_total"): "0"})
		// Its old engine's last words change nothing.
		r.Event(rotator.Event{Target: one, Step: rotator.StepCommit, Kind: rotator.Done})
		r.expect("an event of what is not served", map[string]string{`tiwkeyd_steps_total{result="done",step="commit"}`: "2", rotations(one, "other", "committed"): "", rotations(one, "", "committed"): ""})
	})
}

// TestManyTargets: with more than maxSeries targets only those that somebody may be woken for have
// series of their own, and the totals are of all.
func TestManyTargets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, ts := newWorld(), make([]secrets.Target, maxSeries+1)
		for i := range ts {
			ts[i] = secrets.Target{SdkAppID: 1400000001 + int64(i), Service: secrets.WhiteboardPush}
			key, at := secrets.NewKey("first", canary+ts[i].String()), time.Now().Add(-time.Hour)
			w.inForce[ts[i]] = key
			w.rings[ts[i]] = rotator.Snapshot{Version: 1, Keyring: &rotator.Keyring{Target: ts[i], RotatedAt: at,
				Keys: []rotator.Entry{{Key: key, State: rotator.Current, CreatedAt: at, ActivatedAt: at}}}}
		}
		own := func(values map[string]string) (n int) {
			for series := range values {
				if strings.Contains(series, `target="14`) {
					n++
				}
			}
			return n
		}
		r := newRig(t, w, ts...)
		stop := r.run()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		if got := r.values(); own(got) != 0 || len(got) > 200 {
			t.Errorf("%d series, %d of them of targets", len(got), own(got))
		}
		r.expect("all is settled", map[string]string{`tiwkeyd_targets{phase="settled"}`: strconv.Itoa(len(ts)), "tiwkeyd_targets_drifting": "0", "tiwkeyd_oldest_key_age_seconds": "3660"})
		w.change(func() { w.inForce[two] = secrets.NewKey("", canary+"foreign") })
		time.Sleep(12 * time.Minute)
		r.expect("one drifts", map[string]string{"tiwkeyd_targets_drifting": "1", of(two, "target_drift"): "1", of(two, "target_phase", "phase", "settled"): "1", of(one, "target_drift"): ""})
		r.engine.Ask(rotator.ByCommand, one)
		time.Sleep(20 * time.Minute)
		r.expect("one was rotated", map[string]string{rotations(one, "command", "committed"): "", `tiwkeyd_rotations_total{reason="command",result="committed",target=""}`: "1",
			of(two, "drifts_total"): "", `tiwkeyd_drifts_total{target=""}`: "1"})
		// With one target less each has its series again.
		stop()
		r.engine = watched(t, r.Monitor, w, ts[:maxSeries]...)
		stop = r.run()
		time.Sleep(time.Minute)
		r.expect("few", map[string]string{of(one, "target_drift"): "0", of(two, "target_drift"): "1", of(ts[9], "target_phase", "phase", "settled"): "1", rotations(one, "schedule", "committed"): "0",
			`tiwkeyd_rotations_total{reason="command",result="committed",target=""}`: "", `tiwkeyd_drifts_total{target=""}`: "", of(one, "drifts_total"): "0"})
		if got := r.values(); own(got) < 7*maxSeries {
			t.Errorf("%d series of targets", own(got))
		}
	})
}

// TestTargetWithoutTimes: a keyring need not say when a key was made, or until when a rotation is somebody's.
func TestTargetWithoutTimes(t *testing.T) {
	t.Parallel()
	told := map[*prometheus.Desc]float64{}
	s := rotator.Standing{Target: one, Read: true, Adopted: true, KeyID: "k", PendingID: "p", Rotation: "r", Reason: rotator.ByCommand}
	ofTarget(func(d *prometheus.Desc, value float64, _ ...string) { told[d] = value }, &s, memory{}, rotator.Pushing, time.Now())
	for d, value := range told {
		if value < 0 || value > 1 {
			t.Errorf("%s is %v", d, value)
		}
	}
	if _, ok := told[ownedDesc]; !ok {
		t.Error("it is not told who carries the rotation out")
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		key := secrets.NewKey("k", "value")
		r.w.inForce[one] = key
		r.w.rings[one] = rotator.Snapshot{Version: 1, Keyring: &rotator.Keyring{Target: one, Keys: []rotator.Entry{{Key: key, State: rotator.Current}}, RotatedAt: time.Now()}}
		defer r.run()()
		time.Sleep(time.Minute)
		r.expect("settled", map[string]string{of(one, "target_phase", "phase", "settled"): "1", of(one, "target_key_age_seconds"): "", "tiwkeyd_oldest_key_age_seconds": ""})
	})
}

// TestLate: the store cannot be read in one go, so receivers begin anew and anew. That shows five minutes
// after the key was to be set, while the time at which receivers accept it moves on.
func TestLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		pushAfter := r.w.keyring(one).Pending().PushAfter
		r.expect("receivers come to accept it", map[string]string{"tiwkeyd_targets_late": "0", of(one, "target_rotation_late_seconds"): seconds(time.Since(pushAfter))})
		for time.Until(pushAfter.Add(LateAfter)) > 3*time.Minute {
			r.w.change(func() { r.w.storeErr = errAway })
			time.Sleep(2 * time.Minute)
			r.w.change(func() { r.w.storeErr = nil })
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Until(pushAfter.Add(LateAfter)))
		r.expect("not yet", map[string]string{"tiwkeyd_targets_late": "0", of(one, "target_rotation_late_seconds"): "300"})
		time.Sleep(time.Millisecond)
		r.expect("late", map[string]string{"tiwkeyd_targets_late": "1", "tiwkeyd_targets_overdue": "0"})
		if row := r.row(one); !row.Late || row.Phase != rotator.Waiting || row.ReadyAt.Before(time.Now()) {
			t.Errorf("late, and %+v", row)
		}
		time.Sleep(2 * propagation)
		r.expect("in force", map[string]string{"tiwkeyd_targets_late": "0", of(one, "target_rotation_late_seconds"): "", of(one, "target_phase", "phase", "settled"): "1"})
		if r.row(one).Late {
			t.Error("it is in force, and late yet")
		}
	})
}

// TestContested: somebody sets another key whenever ours is put back.
func TestContested(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one, two)
		p := policy("me")
		p.OnDrift = rotator.Reassert
		var err error
		r.engine, err = rotator.New(rotator.Options{Store: r.Store(r.w), API: r.API(r.w), Policy: p, Events: r.Event, Due: func(_ secrets.Target, _ *rotator.Keyring, at time.Time) time.Time { return at.Add(24 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		r.Serve(Served{Engine: r.engine, Targets: []secrets.Target{one, two}, Policy: p})
		stop := r.run()
		defer stop()
		time.Sleep(time.Hour)
		r.expect("settled", map[string]string{of(one, "target_contested"): "0", "tiwkeyd_targets_contested": "0"})
		for range 3 {
			r.w.change(func() { r.w.inForce[one] = secrets.NewKey("", canary+"foreign") })
			time.Sleep(p.Reconcile + time.Minute)
		}
		r.expect("contested, and our key is in force", map[string]string{of(one, "target_contested"): "1", of(two, "target_contested"): "0", "tiwkeyd_targets_contested": "1", of(one, "target_drift"): "0"})
		if r.row(two).Contested || !r.row(one).Contested {
			t.Error("the rows tell something else")
		}
		time.Sleep(2 * time.Hour)
		r.expect("over", map[string]string{of(one, "target_contested"): "0", "tiwkeyd_targets_contested": "0"})
	})
}
