package rotator

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

func TestPolicyOf(t *testing.T) {
	t.Parallel()
	p := &Policy{Grace: time.Hour, Propagation: 6 * time.Minute, Reconcile: time.Minute}
	for i, r := range []struct {
		o                  *Overrides
		grace, propagation time.Duration // of a process in which TIWKEYD_PROPAGATION is not set
	}{
		{nil, time.Hour, 6 * time.Minute},
		{&Overrides{Paused: true, Schedule: "@daily"}, time.Hour, 6 * time.Minute},
		{&Overrides{Grace: 48 * time.Hour}, 48 * time.Hour, 6 * time.Minute},
		{&Overrides{Grace: 20 * time.Minute}, 20 * time.Minute, 6 * time.Minute},
		{&Overrides{Grace: time.Second}, MinGrace, 6 * time.Minute},
		{&Overrides{Propagation: new(10 * time.Minute)}, time.Hour, 10 * time.Minute},
		{&Overrides{Propagation: new(time.Minute)}, time.Hour, time.Minute},
		{&Overrides{Propagation: new(time.Duration(0))}, time.Hour, 0},
		{&Overrides{Propagation: new(1000 * time.Hour)}, time.Hour, MaxPropagation},
	} {
		got := p.Of(&Keyring{Overrides: r.o})
		if got.Grace != r.grace || got.Propagation != r.propagation || got.Reconcile != p.Reconcile {
			t.Errorf("%d: grace %s, propagation %s", i, got.Grace, got.Propagation)
		}
		told := *p
		told.PropagationSet = true
		if got := told.Of(&Keyring{Overrides: r.o}).Propagation; got != max(r.propagation, 6*time.Minute) {
			t.Errorf("%d: where it is set, the propagation is %s", i, got)
		}
	}
	if p.Of(nil) != p || p.Grace != time.Hour {
		t.Error("of no keyring, or the policy itself was changed")
	}
}

func TestOverridesStored(t *testing.T) {
	t.Parallel()
	target := targets(1)[0]
	k := &Keyring{Target: target, Keys: []Entry{{Key: keyC, State: Current}}}
	o := Overrides{Schedule: "@daily", Grace: time.Hour, Propagation: new(10 * time.Minute), Paused: true}
	n := k.With(o)
	if k.Overrides != nil {
		t.Fatal("With changed what it was given")
	}
	text, err := n.Encode()
	if err != nil || !strings.Contains(string(text), `"overrides":{"schedule":"@daily","grace":3600,"propagation":600,"paused":true}`) {
		t.Fatalf("%s, %v", text, err)
	}
	// A member of a newer version stays, whatever is changed.
	text = []byte(strings.Replace(string(text), `"grace":3600`, `"grace":3600,"newer":[1]`, 1))
	back, err := DecodeKeyring(target, text)
	if err != nil || back.Overrides.Grace != o.Grace || *back.Overrides.Propagation != *o.Propagation || back.Overrides.Schedule != o.Schedule || !back.Overrides.Paused {
		t.Fatalf("%+v, %v", back.Overrides, err)
	}
	if text, _ = back.With(Overrides{}).Encode(); !strings.Contains(string(text), `"overrides":{"newer":[1]}`) {
		t.Errorf("%s", text)
	}
	if text, _ = n.With(Overrides{}).Encode(); strings.Contains(string(text), "overrides") {
		t.Errorf("%s", text)
	}
	zero, err := k.With(Overrides{Propagation: new(time.Duration(0))}).Encode()
	if back, bad := DecodeKeyring(target, zero); err != nil || bad != nil || back.Overrides == nil || back.Overrides.Propagation == nil || *back.Overrides.Propagation != 0 {
		t.Errorf("receivers that need no time: %s", zero)
	}
	plain, _ := k.Encode()
	for _, bad := range []string{`7`, `{"grace":"1h"}`, `{"grace":-1}`, `{"propagation":1.5}`, `{"paused":"yes"}`, `{"schedule":5}`} {
		if _, err := DecodeKeyring(target, []byte(strings.Replace(string(plain), "{", `{"overrides":`+bad+`,`, 1))); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// overridden gives an engine for one target with overrides of its own, due every three hours.
func overridden(t *testing.T, o Overrides) (*memory, *Engine, secrets.Target, func() string) {
	t.Helper()
	m, target := newMemory(), targets(1)[0]
	m.adoptedKey(target, "value")
	s := m.rings[target]
	s.Keyring = s.Keyring.With(o)
	m.rings[target] = s
	e, log := engineOn(t, m, "me", func(_ secrets.Target, at time.Time) time.Time { return at.Add(3 * time.Hour) }, nil)
	e.due = func(_ secrets.Target, k *Keyring, at time.Time) time.Time {
		if k.Overrides == nil || k.Overrides.Schedule == "" {
			return at.Add(3 * time.Hour)
		}
		every, _ := time.ParseDuration(k.Overrides.Schedule)
		return at.Add(every)
	}
	return m, e, target, log.String
}

// TestPaused: nothing begins by itself, also not what was rolled back; who asks by name is served.
func TestPaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, target, _ := overridden(t, Overrides{Paused: true})
		stop := running(e, []secrets.Target{target})
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(24 * time.Hour)
		if n := m.setCalls(target); n != 0 || len(e.Asked()) != 0 {
			t.Errorf("%d Set calls; asked for: %v", n, e.Asked())
		}
		if s := e.Standings()[0]; !s.Paused || !s.Due.IsZero() {
			t.Errorf("%+v", s)
		}
		m.change(func() { m.setErrs = refuse(1, Refused, "UnauthorizedOperation.SdkAppId") })
		e.Ask(ByCommand, target)
		time.Sleep(24 * time.Hour)
		if n, k := m.setCalls(target), m.keyring(target); n != 1 || k.Rotation == nil {
			t.Errorf("%d Set calls after one that was refused: %s", n, describe(k))
		}
		e.Ask(ByCommand, target)
		time.Sleep(24 * time.Hour)
		if n, k := m.setCalls(target), m.keyring(target); n != 2 || k.Rotation != nil || len(k.Keys) != 1 || k.Overrides == nil {
			t.Errorf("asked for by name: %d Set calls, %s", n, describe(k))
		}
		m.change(func() { m.inForce[target] = secrets.NewKey("", "foreign") })
		time.Sleep(tablePolicy.Reconcile + time.Minute)
		if !m.signing(target).Equal(m.keyring(target).CallbackKey()) {
			t.Error("a foreign key was left in force")
		}
	})
}

// TestPausedMeanwhile: a target that is paused while the daemon remembers it otherwise is not staged.
func TestPausedMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, target, _ := overridden(t, Overrides{})
		e.lookRate = 5
		others := targets(50)[1:]
		for _, o := range others { // whose looks keep what is remembered good
			m.adoptedKey(o, "value-"+o.String())
		}
		e.Serve(others...)
		stop := running(e, []secrets.Target{target})
		defer stop()
		time.Sleep(2*time.Hour - time.Second) // due at two hours
		m.change(func() {
			s := m.rings[target]
			s.Keyring, s.Version = s.Keyring.With(Overrides{Paused: true}), s.Version+1
			m.rings[target] = s
		})
		time.Sleep(time.Hour)
		if k := m.keyring(target); m.setCalls(target) != 0 || k.Pending() != nil {
			t.Errorf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
		if m.setCalls(others[0]) != 1 {
			t.Error("the others are not rotated")
		}
	})
}

// TestOverridesApply: a target's own schedule, grace and propagation.
func TestOverridesApply(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		o        Overrides
		sets     int
		accepted time.Duration // the replaced key
		wait     time.Duration
	}{
		{Overrides{}, 8, tablePolicy.Grace, tablePolicy.Propagation},
		{Overrides{Schedule: "6h"}, 4, tablePolicy.Grace, tablePolicy.Propagation},
		{Overrides{Grace: 5 * time.Hour, Propagation: new(20 * time.Minute)}, 7, 5 * time.Hour, 20 * time.Minute},
		// More keys than anybody means are served.
		{Overrides{Schedule: "3h", Grace: 3000 * time.Hour}, 8, 3000 * time.Hour, tablePolicy.Propagation},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, e, target, log := overridden(t, r.o)
			stop := running(e, []secrets.Target{target})
			time.Sleep(24*time.Hour + 30*time.Minute)
			stop()
			k := m.keyring(target)
			if m.setCalls(target) != r.sets || strings.Contains(log(), "level=WARN") {
				t.Errorf("%+v: %d rotations in a day\n", r.o, m.setCalls(target))
			}
			cur := k.Current()
			if got := cur.PushAfter.Sub(cur.CreatedAt); got != r.wait {
				t.Errorf("%+v: receivers have %s", r.o, got)
			}
			for _, entry := range k.Keys {
				if entry.State == Previous && entry.AcceptUntil.Sub(cur.ActivatedAt) > r.accepted {
					t.Errorf("%+v: the replaced key is accepted for %s", r.o, entry.AcceptUntil.Sub(cur.ActivatedAt))
				}
			}
			if last := k.History[len(k.History)-1]; last.Overlap != r.accepted {
				t.Errorf("%+v: accepted for %s", r.o, last.Overlap)
			}
		})
	}
}

// TestPausedIsNotHeldBack: that Tencent does not tell is not written down as a rotation that failed,
// where none is wanted.
func TestPausedIsNotHeldBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, e, target, _ := overridden(t, Overrides{Paused: true})
		m.lookErrs = []error{&APIError{Class: Refused, Code: "ResourceUnavailable.ServiceExpired"}, errors.New("odd")}
		stop := running(e, []secrets.Target{target})
		time.Sleep(4 * time.Hour)
		stop()
		if k := m.keyring(target); k.Rotation != nil {
			t.Errorf("%s", describe(k))
		}
	})
}

// TestLongestPropagation: a key is staged by a process that was told of quicker receivers than one that
// comes later. Nobody sets it before the longer time has passed, and the quicker one says so once.
func TestLongestPropagation(t *testing.T) {
	t.Parallel()
	for _, asked := range []Reason{ByCommand, ByRevoke} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(2)
			for _, target := range ts {
				m.adoptedKey(target, "value-"+target.String())
			}
			quick, said := engineOn(t, m, "quick", nil, nil)
			quick.policy.Propagation, quick.policy.PropagationSet = time.Minute, true
			slow, silent := engineOn(t, m, "slow", nil, nil)
			slow.policy.Propagation, slow.policy.PropagationSet = 20*time.Minute, true
			other, untold := engineOn(t, m, "other", nil, nil) // in which it is not set
			stopQuick := running(quick, ts)
			defer stopQuick()
			quick.Ask(asked, ts...)
			time.Sleep(30 * time.Second)
			stopSlow := running(slow, ts)
			defer stopSlow()
			stopOther := running(other, ts)
			defer stopOther()
			if time.Sleep(20*time.Minute - 31*time.Second); (m.setCalls(ts[0]) > 0) != (asked == ByRevoke) {
				t.Errorf("%s: %d Set calls before receivers accept it: %s", asked, m.setCalls(ts[0]), describe(m.keyring(ts[0])))
			}
			time.Sleep(5 * time.Minute)
			for _, target := range ts {
				if k := m.keyring(target); m.setCalls(target) != 1 || *k.Overrides.Propagation != 20*time.Minute {
					t.Errorf("%s: %d Set calls, %s", target, m.setCalls(target), describe(k))
				}
			}
			const text = "receivers need longer than TIWKEYD_PROPAGATION"
			if n := strings.Count(said.String(), text); n != 1 || !strings.Contains(said.String(), "propagation=1m0s") || strings.Contains(silent.String()+untold.String(), text) {
				t.Errorf("it was said %d times", n)
			}
		})
	}
}
