package rotator

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestDoubt: what has to be proven before an old key goes.
func TestDoubt(t *testing.T) {
	t.Parallel()
	takenBack := func(doubts int) *situation {
		return previous().with(func(c *situation) { c.s.Keyring.Keys[1].ActivatedAt, c.s.Keyring.Keys[1].Doubts = time.Time{}, doubts })
	}
	unconfirmed := func() *situation {
		return previous().with(func(c *situation) { c.s.Keyring.Keys[0].Confirmed = false })
	}
	foreign := func(change func(*Keyring)) *situation {
		return settled().with(func(c *situation) {
			c.o.Key, c.p.OnDrift = keyF, AdoptKey
			change(c.s.Keyring)
		})
	}
	for _, c := range []struct {
		name string
		c    *situation
		want Step
		till time.Time
	}{
		{"taken back, and refused each time", takenBack(0), StepRetire, time.Time{}},
		{"taken back in doubt", takenBack(1), StepReassert, time.Time{}},
		{"taken back in doubt, and set since its time was over", takenBack(1).with(func(c *situation) { c.o.SetAt = t0 }), StepRetire, time.Time{}},
		{"taken back in doubt, and set before", takenBack(1).with(func(c *situation) { c.o.SetAt = minute(-2) }), StepReassert, time.Time{}},
		{"taken back in doubt, and not proven previous for long enough when it was set", takenBack(1).with(func(c *situation) {
			c.s.Written, c.o.SetAt = minute(-11), minute(-2)
			c.s.Keyring.Keys[1].AcceptUntil = minute(-3)
		}), StepReassert, time.Time{}},
		{"taken back in doubt, the look is too old", takenBack(1).with(func(c *situation) { c.o.At = minute(-2) }), StepObserve, minute(100)},
		{"taken back in doubt, and the set failed a moment ago", takenBack(1).with(func(c *situation) { c.o.NextPush = minute(3) }), StepWait, minute(3)},
		{"taken back in doubt, and a key is due", takenBack(1).with(func(c *situation) { c.w.Due = t0 }), StepStage, time.Time{}},
		{"taken back in doubt, and there is no current key", takenBack(1).with(func(c *situation) {
			c.s.Keyring.Keys, c.s.Keyring.AcceptUnsigned, c.o.Key = c.s.Keyring.Keys[1:], true, secrets.Key{}
		}), StepWait, minute(10)},
		{"nobody was told that the current key was set", unconfirmed(), StepReassert, time.Time{}},
		{"the key that goes was sent in doubt when it was current", previous().with(func(c *situation) { c.s.Keyring.Keys[1].Doubts = 1 }), StepReassert, time.Time{}},
		{"it was set again", unconfirmed().with(func(c *situation) { c.o.SetAt = t0 }), StepRetire, time.Time{}},
		{"what was refused goes by a look alone", unconfirmed().with(func(c *situation) { c.s.Keyring.Keys[1].ActivatedAt = time.Time{} }), StepRetire, time.Time{}},
		{"one can go, and one that cannot stands after it", previous().with(func(c *situation) {
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyP, State: Previous, AcceptUntil: minute(-5), Doubts: 1})
		}), StepRetire, time.Time{}},
		{"one can go, and one that cannot stands before it", previous().with(func(c *situation) {
			c.s.Keyring.Keys = slices.Insert(c.s.Keyring.Keys, 1, Entry{Key: keyP, State: Previous, AcceptUntil: minute(-5), Doubts: 1})
		}), StepRetire, time.Time{}},
		{"while a key is pending nothing else is set", pending().with(func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter, c.s.Written = minute(3), minute(-61)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: minute(-1), Doubts: 1})
		}), StepWait, minute(3)},
		{"a foreign key is adopted", foreign(func(*Keyring) {}), StepAdopt, time.Time{}},
		{"one that was retired is not", foreign(func(k *Keyring) { k.Retired = []string{"x", keyF.Fingerprint()} }), StepReassert, time.Time{}},
		{"one that was revoked is not", foreign(func(k *Keyring) { k.Revoked = []Revoked{{ID: "f", Fingerprint: keyF.Fingerprint()}} }), StepReassert, time.Time{}},
	} {
		if a := Decide(c.c.s, c.c.o, t0, c.c.w, &c.c.p); a.Step != c.want || !a.Until.Equal(c.till) {
			t.Errorf("%s: %s until %s (%s), want %s until %s", c.name, a.Step, a.Until, a.Why, c.want, c.till)
		}
	}
}

// TestGoneIsRemembered: the last sixteen keys that were retired, and that were revoked.
func TestGoneIsRemembered(t *testing.T) {
	t.Parallel()
	key := func(i int) secrets.Key { return secrets.NewKey(fmt.Sprint("k", i), fmt.Sprint("value-", i)) }
	c := previous()
	was := c.s.Keyring
	for i := range goneKept + 2 {
		c.s.Keyring = c.s.Keyring.Clone()
		c.s.Keyring.Keys = append(c.s.Keyring.Keys[:1:1], Entry{Key: key(i), State: Previous, ActivatedAt: minute(-900), AcceptUntil: minute(-1)})
		c.s.Keyring, _ = c.facts().retired()
	}
	if k := c.s.Keyring; len(k.Retired) != goneKept || k.went(key(1)) || !k.went(key(2)) || !k.went(key(goneKept+1)) || k.went(keyC) || len(was.Retired) != 0 {
		t.Errorf("%d are remembered: %t, %t", len(k.Retired), k.went(key(1)), k.went(key(2)))
	}
	r := pending().s.Keyring
	r.Rotation.Reason = ByRevoke
	for i := range goneKept + 2 { // after the current one, which is the one that leaked
		r.Keys = append(r.Keys, Entry{Key: key(i), State: Previous})
	}
	n := r.committed(true, t0, &tablePolicy)
	if len(n.Revoked) != goneKept || n.Revoked[goneKept-1].ID != "C" || !n.went(keyC) || n.went(keyP) || n.went(key(2)) || !n.went(key(3)) || len(r.Revoked) != 0 {
		t.Errorf("%+v", n.Revoked)
	}
	if n := pending().s.Keyring.committed(true, t0, &tablePolicy); len(n.Revoked) != 0 {
		t.Errorf("without a revocation: %+v", n.Revoked)
	}
}

// TestDoubtIsWrittenDown: after each answer to a Set the keyring tells what nobody knows.
func TestDoubtIsWrittenDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		class     Class
		n         int
		doubts    int
		confirmed bool
	}{
		"refused":           {Refused, 1, 0, false},
		"refused for now":   {RefusedForNow, 1000, 0, false},
		"in doubt":          {Doubtful, 1000, 5, false},
		"in doubt at first": {Doubtful, 1, 1, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.setErrs = refuse(c.n, c.class, "x")
			e, _ := engineOn(t, m, "me", nil, nil)
			_ = e.Settle(t.Context(), target, ByCommand)
			k := m.keyring(target)
			if c.confirmed {
				if cur := k.Current(); !cur.Confirmed || cur.Doubts != c.doubts {
					t.Errorf("%s: %s", name, describe(k))
				}
				return
			}
			for _, e := range k.Keys {
				if e.State == Previous && (e.Doubts < c.doubts || (c.doubts == 0 && e.Doubts != 0)) {
					t.Errorf("%s: %d doubts, %s", name, e.Doubts, describe(k))
				}
			}
			if len(k.Keys) != 2 || k.Current().Confirmed {
				t.Errorf("%s: %s", name, describe(k))
			}
		})
	}
}

// TestDescribeLagsForHours: Tencent tells of the old key for longer than a rotation may take, and then for longer
// than a key that was taken back is kept. The key that it signs with stays accepted all the while.
func TestDescribeLagsForHours(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{time.Minute, 2 * time.Hour, 5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.lag = lag
			e, log := engineOn(t, m, "me", nil, nil)
			stop := running(e, targets(1))
			defer stop()
			e.Ask(ByCommand, target)
			for range int(12 * time.Hour / (10 * time.Second)) {
				time.Sleep(10 * time.Second)
				if m.keyring(target).Lookup(m.signing(target)) == nil {
					t.Fatalf("%s: the key in force is refused: %s\n%s", lag, describe(m.keyring(target)), log.String())
				}
			}
			if k := m.keyring(target); lag < 5*time.Hour && (len(k.Keys) != 1 || !k.CallbackKey().Equal(m.signing(target))) {
				t.Errorf("%s: %s", lag, describe(k))
			}
		})
	}
}

// TestFoundInForce: a key that another replica set, or that came into force in doubt, is current, but nobody
// was told that it was set. It is set once more before the one that it replaced goes.
func TestFoundInForce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "other", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		m.change(func() { m.inForce[target] = m.rings[target].Keyring.Pending().Key })
		e, _ = engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(tablePolicy.Grace - time.Minute)
		if k := m.keyring(target); k.Pending() != nil || k.Current().Confirmed || m.setCalls(target) != 0 || len(k.Keys) != 2 {
			t.Fatalf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
		time.Sleep(tablePolicy.Propagation + tablePolicy.Reconcile)
		if k := m.keyring(target); m.setCalls(target) != 1 || len(k.Keys) != 1 {
			t.Errorf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
	})
}

// TestSetAt: when the current key was set, as Decide is told, by the clock that says earlier.
func TestSetAt(t *testing.T) {
	t.Parallel()
	now := moment{t0, time.Hour}
	for name, c := range map[string]struct {
		sure   secrets.Key
		surely moment
		want   time.Time
	}{
		"a minute ago":                      {keyC, moment{minute(-1), time.Hour - time.Minute}, minute(-1)},
		"the wall clock was set forward":    {keyC, moment{minute(-9), time.Hour - time.Minute}, minute(-9)},
		"the wall clock was set back a bit": {keyC, moment{minute(-1), time.Hour - 3*time.Minute}, minute(-3)},
		"the wall clock was set back":       {keyC, moment{minute(1), time.Hour - time.Minute}, time.Time{}},
		"another key was set":               {keyP, moment{minute(-1), time.Hour - time.Minute}, time.Time{}},
		"none was set":                      {secrets.Key{}, moment{}, time.Time{}},
	} {
		tr := &track{snap: settled().s, sure: c.sure, surely: c.surely}
		tr.date(now)
		if !tr.obs.SetAt.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, tr.obs.SetAt, c.want)
		}
	}
}

// TestRetiredIsKept: what went stays remembered in the keyring through many visits, and not in memory.
func TestRetiredIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		for _, reason := range []Reason{ByCommand, ByRevoke, ByCommand} {
			e.Ask(reason, target)
			time.Sleep(tablePolicy.Grace + time.Hour)
		}
		if k := m.keyring(target); len(k.Retired) != 2 || len(k.Revoked) != 1 || len(k.Keys) != 1 {
			t.Errorf("%d retired, %d revoked, %s", len(k.Retired), len(k.Revoked), describe(k))
		}
		if k := e.track(target).snap.Keyring; len(k.Retired)+len(k.Revoked) != 0 {
			t.Errorf("%d and %d stay in memory", len(k.Retired), len(k.Revoked))
		}
	})
}

// TestPutBackIsWrittenDown: a request to set the current key again is in the keyring before it is sent, and
// out of it once it is over, unless a pending key may have been sent meanwhile.
func TestPutBackIsWrittenDown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		errs []error
		want int
	}{
		"set":             {nil, 0},
		"refused":         {refuse(1, Refused, "x"), 0},
		"refused for now": {refuse(1, RefusedForNow, "x"), 0},
		"in doubt":        {refuse(1, Doubtful, "x"), 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.inForce[target], m.setErrs = keyF, c.errs
			e, _ := engineOn(t, m, "me", nil, nil)
			stop := running(e, targets(1))
			time.Sleep(time.Second)
			if n := m.setCalls(target); n != 1 || m.keyring(target).Current().Doubts != 1 {
				t.Errorf("%s: %d Set calls, %s", name, n, describe(m.keyring(target)))
			}
			time.Sleep(time.Hour)
			e.Ask(ByCommand, target)
			time.Sleep(time.Second)
			stop()
			if k := m.keyring(target); k.Pending() == nil || k.Current().Doubts != c.want || !m.signing(target).Equal(k.CallbackKey()) {
				t.Errorf("%s: %s", name, describe(k))
			}
		})
	}
	for tried, want := range map[int]int{0: 2, 1: 3} {
		m, target := newMemory(), codecTarget
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		tr := e.track(target)
		if err := e.read(t.Context(), tr); err != nil {
			t.Fatal(err)
		}
		k := tr.snap.Keyring.staged(keyP, "r", ByCommand, time.Now(), &tablePolicy)
		k.Keys[0].Doubts, k.Keys[1].Doubts, tr.over = 3, tried, k.CallbackKey()
		if err := e.write(t.Context(), tr, k); err != nil || m.keyring(target).Current().Doubts != want || !tr.over.IsZero() {
			t.Errorf("%v, %s", err, describe(m.keyring(target)))
		}
	}
}
