package rotator

import (
	"bytes"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

func one(t *testing.T, k *Keyring, key secrets.Key) *Entry {
	t.Helper()
	e := k.Lookup(key)
	if e == nil {
		t.Fatalf("%v has no %v", k.Accept(), key)
	}
	if err := k.Validate(); err != nil {
		t.Errorf("%v", err)
	}
	return e
}

func TestStaged(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	k := settled().s.Keyring
	n := k.staged(keyP, "r", BySchedule, t0, &p)
	e := one(t, n, keyP)
	if e.State != Pending || !e.PushAfter.Equal(t0.Add(p.Propagation)) || n.Rotation.Owner != "me" || !n.Rotation.LeaseUntil.Equal(e.PushAfter.Add(p.Timing.Lease)) {
		t.Errorf("%+v %+v", e, n.Rotation)
	}
	if k.Pending() != nil || k.Rotation != nil {
		t.Error("the keyring it came from changed")
	}
	k.Rotation = &Rotation{Attempts: 4}
	if n := k.staged(keyP, "r", BySchedule, t0, &p); n.Rotation.Attempts != 4 || !n.Rotation.RetryAt.IsZero() {
		t.Errorf("after failures: %+v", n.Rotation)
	}
	if e := one(t, k.staged(keyP, "r", ByRevoke, t0, &p), keyP); !e.PushAfter.Equal(t0) {
		t.Errorf("a revocation waits until %s", e.PushAfter)
	}
}

// TestRaised: what is written holds for the pending key, too, and is not lowered with the next keys'.
func TestRaised(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	p.PropagationSet = true
	c := pending()
	c.s.Keyring.Overrides = &Overrides{Grace: 2 * time.Hour, Propagation: new(time.Second)}
	was := c.s.Keyring.Overrides
	for _, r := range []struct {
		own, want, pending time.Duration // from when it was written
		reason             Reason
	}{
		{20 * time.Minute, 20 * time.Minute, 20 * time.Minute, BySchedule},
		{90*time.Second + 1, 91 * time.Second, 6 * time.Minute, BySchedule},
		{20 * time.Minute, 20 * time.Minute, 6 * time.Minute, ByRevoke},
	} {
		p.Propagation, c.s.Keyring.Rotation.Reason = r.own, r.reason
		n := c.s.Keyring.raised(&p)
		e := one(t, n, keyP)
		if n.Overrides.Grace != 2*time.Hour || *n.Overrides.Propagation != r.want || e.PushAfter.Sub(e.CreatedAt) != r.pending || *was.Propagation != time.Second {
			t.Errorf("%+v: %s, and the pending key has %s", r, *n.Overrides.Propagation, e.PushAfter.Sub(e.CreatedAt))
		}
		if lowered := n.With(Overrides{Propagation: new(time.Duration(0))}); (&Policy{}).Of(lowered).propagation(e) != r.pending {
			t.Errorf("%+v: it was lowered for a key that is pending", r)
		}
	}
	if n := (*Keyring)(nil).adopted(codecTarget, keyF, "F", t0, &p); *n.Overrides.Propagation != 20*time.Minute {
		t.Errorf("adopted: %+v", n.Overrides)
	}
	p.PropagationSet = false
	if n := (*Keyring)(nil).adopted(codecTarget, keyF, "F", t0, &p); n.Overrides != nil {
		t.Errorf("adopted by one that was not told: %+v", n.Overrides)
	}
}

// TestRestoredGivesTime: after a change by hand receivers get their time for a pending key anew, no more and no
// less, on every replica, whoever writes the keyring and whatever the clock says.
func TestRestoredGivesTime(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	for name, r := range map[string]struct {
		now     time.Time
		created time.Time
	}{"at once": {minute(-7), minute(-7)}, "18 hours later": {minute(18 * 60), minute(18 * 60)}, "by a clock that is behind": {minute(-60), minute(-7)}} {
		k := pending().s.Keyring
		k.Edited = true
		e := one(t, k.restored(r.now, &p), keyP)
		if !e.CreatedAt.Equal(r.created) || e.PushAfter.Sub(e.CreatedAt) != p.Propagation || e.Renewed != 1 {
			t.Errorf("%s: created %s, to be set %s later, renewed %d times", name, e.CreatedAt, e.PushAfter.Sub(e.CreatedAt), e.Renewed)
		}
		if e := one(t, k.With(Overrides{Paused: true}), keyP); e.Renewed != 1 {
			t.Errorf("%s: set writes it anew, and receivers do not get their time", name)
		}
		k.Rotation.Reason = ByRevoke
		if e := one(t, k.restored(r.now, &p), keyP); e.Renewed != 0 {
			t.Errorf("%s: a revocation waits", name)
		}
	}
	if e := one(t, pending().s.Keyring.With(Overrides{}), keyP); e.Renewed != 0 {
		t.Error("nobody changed it, and receivers get their time anew")
	}
}

// TestAdoptedIsForeign: a key that was found in force is not known to receivers yet, with a keyring or without.
func TestAdoptedIsForeign(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	for name, k := range map[string]*Keyring{"no keyring": nil, "another current key": settled().s.Keyring, "no current key": first().s.Keyring} {
		if e := k.adopted(codecTarget, keyF, "f", t0, &p).Current(); e.PushAfter.Sub(t0) != p.Propagation+p.Timing.Skew {
			t.Errorf("%s: known %s after it was adopted", name, e.PushAfter.Sub(t0))
		}
	}
}

func TestCommitted(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	n := pending().s.Keyring.committed(true, t0, &p)
	old := one(t, n, keyC)
	if n.Current().Key.ID() != "P" || old.State != Previous || !old.AcceptUntil.Equal(t0.Add(p.Grace)) || n.Rotation != nil || !n.RotatedAt.Equal(t0) {
		t.Errorf("%+v", n)
	}
	c := pending()
	c.s.Keyring.Rotation.Reason = ByRevoke
	if n := c.s.Keyring.committed(true, t0, &p); len(n.Keys) != 1 || n.Current().Key.ID() != "P" || len(n.Revoked) != 1 || n.Revoked[0].ID != "C" || n.Revoked[0].Fingerprint != keyC.Fingerprint() {
		t.Errorf("after a revocation: %v, %+v", n.Accept(), n.Revoked)
	}
	f := first()
	f.s.Keyring = f.s.Keyring.staged(keyP, "r", ByAdopt, t0, &p).committed(true, t0, &p)
	if f.s.Keyring.AcceptUnsigned || len(f.s.Keyring.Keys) != 1 {
		t.Errorf("the first key: %+v", f.s.Keyring)
	}
}

func TestRolledBack(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	n := pending().s.Keyring.rolledBack(Failure{Code: "x"}, minute(15), t0, &p)
	e := one(t, n, keyP)
	if e.State != Previous || !e.AcceptUntil.Equal(minute(10)) || n.CallbackKey().ID() != "C" || n.Rotation.LastError.Code != "x" ||
		!n.Rotation.RetryAt.Equal(minute(15)) || n.Rotation.Attempts != 1 || n.Rotation.Owner != "" {
		t.Errorf("%+v %+v", e, n.Rotation)
	}
}

// TestRollbackKeepCoversALateRequest is the arithmetic that RollbackKeep rests on.
func TestRollbackKeepCoversALateRequest(t *testing.T) {
	t.Parallel()
	s := StandardTiming()
	if s.PushDeadline > 2*time.Minute || s.RollbackKeep < s.PushDeadline+5*time.Minute+s.Skew || s.Skew < 2*time.Minute {
		t.Errorf("%+v", s)
	}
}

func TestAdopted(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	var none *Keyring
	n := none.adopted(codecTarget, keyF, "f", t0, &p)
	if n.Current().Key.ID() != "f" || !n.RotatedAt.IsZero() || n.AcceptUnsigned {
		t.Errorf("%+v", n)
	}
	if n := none.adopted(codecTarget, secrets.Key{}, "f", t0, &p); len(n.Keys) != 0 || !n.AcceptUnsigned {
		t.Errorf("without a key: %+v", n)
	}
	n = settled().s.Keyring.adopted(codecTarget, keyF, "f", t0, &p)
	if n.Current().Key.ID() != "f" || one(t, n, keyC).State != Previous || !n.Current().PushAfter.Equal(t0.Add(p.Propagation+p.Timing.Skew)) {
		t.Errorf("a foreign key: %+v", n)
	}
	c := first()
	c.s.Keyring.Keys = []Entry{{Key: keyV, State: Previous, AcceptUntil: minute(1), Confirmed: true}}
	n = c.s.Keyring.adopted(codecTarget, keyV.Named(""), "f", t0, &p)
	if len(n.Keys) != 1 || n.Current().Key.ID() != "V" || !n.Current().AcceptUntil.IsZero() || n.Current().Confirmed {
		t.Errorf("a rolled-back first key that came into force: %+v", n)
	}
}

func TestRetired(t *testing.T) {
	t.Parallel()
	c := previous()
	c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyP, State: Previous, AcceptUntil: minute(3)})
	n, gone := c.facts().retired()
	if len(gone) != 1 || gone[0].ID() != "V" || n.Lookup(keyP) == nil || n.Lookup(keyV) != nil {
		t.Errorf("%v went, %v stays", gone, n.Accept())
	}
	c.s.Written = minute(-3)
	if n, gone := c.facts().retired(); len(gone) != 0 || len(n.Keys) != 3 {
		t.Errorf("replaced a moment ago: %v went", gone)
	}
}

func TestFailedAndClaimed(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	n := pending().s.Keyring.failed(Failure{Code: "x"}, "", minute(2), &p)
	if n.Rotation.Attempts != 1 || !n.Rotation.RetryAt.Equal(minute(2)) || !n.Rotation.LeaseUntil.Equal(minute(4)) || n.Pending() == nil {
		t.Errorf("%+v", n.Rotation)
	}
	n = settled().s.Keyring.failed(Failure{Code: "x", At: t0}, BySchedule, minute(2), &p)
	if n.Rotation.Reason != BySchedule || n.Rotation.Owner != "" {
		t.Errorf("%+v", n.Rotation)
	}
	c := pending()
	c.s.Keyring.Rotation.Owner, c.s.Keyring.Keys[1].PushAfter = "other", minute(5)
	n = c.s.Keyring.hastened(t0, &p)
	if n.Rotation.Owner != "me" || n.Rotation.Reason != ByRevoke || !n.Pending().PushAfter.Equal(t0) {
		t.Errorf("%+v", n.Rotation)
	}
}

func TestTransitionsMore(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	n := settled().s.Keyring.adopted(codecTarget, keyF, "f", t0, &p)
	if !n.RotatedAt.Equal(t0) {
		t.Errorf("adopted: rotated at %s", n.RotatedAt)
	}
	if n := first().s.Keyring.adopted(codecTarget, keyF, "f", t0, &p); n.AcceptUnsigned {
		t.Error("a key was adopted, and unsigned callbacks are still accepted")
	}
	c := pending()
	c.s.Keyring.Keys[1].PushAfter = minute(-30)
	n = c.s.Keyring.hastened(t0, &p)
	if !n.Pending().PushAfter.Equal(minute(-30)) {
		t.Errorf("hastening begins the attempt limit anew: %s", n.Pending().PushAfter)
	}
	if n := c.s.Keyring.claimed(minute(3), &p); !n.Rotation.LeaseUntil.Equal(minute(5)) {
		t.Errorf("claimed until %s", n.Rotation.LeaseUntil)
	}
	k := pending().s.Keyring
	k.Rotation.LastError = &Failure{}
	before, _ := k.Encode()
	k.adopted(k.Target, keyF, "F", t0, &p)
	k.failed(Failure{Code: "x", At: t0}, BySchedule, t0, &p)
	k.claimed(t0.Add(time.Hour), &p)
	k.hastened(t0, &p)
	k.committed(true, t0, &p)
	k.rolledBack(Failure{Code: "x"}, t0, t0, &p)
	if after, _ := k.Encode(); !bytes.Equal(after, before) {
		t.Errorf("a transition changed its receiver: %s", after)
	}
}
