package rotator

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestRevokeHastens has a key revoked while a rotation is in hand.
func TestRevokeHastens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		leaked := m.adoptedKey(target, "value-leaked")
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(time.Minute)
		e.Ask(ByRevoke, target)
		time.Sleep(time.Second)
		if k := m.keyring(target); m.setCalls(target) != 1 || k.Lookup(leaked) != nil || m.signing(target).Equal(leaked) {
			t.Errorf("the leaked key is still accepted: %s", describe(k))
		}
	})
}

func TestRevocationStaysAskedFor(t *testing.T) {
	t.Parallel()
	e, _ := engineOn(t, newMemory(), "me", nil, nil)
	ts := targets(3)
	e.Ask(ByRevoke, ts[0])
	e.Ask(BySignal, ts[0], ts[1])
	if got := e.Asked(); len(got) != 2 || got[ts[0]] != ByRevoke || got[ts[1]] != BySignal {
		t.Errorf("%v", got)
	}
}

// TestAskedAtTheEndOfAVisit asks when the visit has decided already.
func TestAskedAtTheEndOfAVisit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		var e *Engine
		asked := false
		e, _ = engineOn(t, m, "me", nil, func(ev Event) {
			if ev.Kind == Idle && !asked {
				asked = true
				e.Ask(BySignal, target)
				time.Sleep(time.Second)
			}
		})
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(2 * time.Second)
		if m.keyring(target).Pending() == nil {
			t.Error("what was asked for waits for the next look")
		}
	})
}

// TestRetiredKeysAreDestroyed looks at what the store is told to destroy.
func TestRetiredKeysAreDestroyed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reason  Reason
		keep    bool
		failing bool
		want    int
	}{"retired": {BySignal, false, false, 1}, "revoked": {ByRevoke, false, false, 1}, "kept": {ByRevoke, true, false, 0}, "after a failure": {ByRevoke, false, true, 1}} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			old := m.adoptedKey(target, "value")
			m.noPurge = c.failing
			e, _ := engineOn(t, m, "me", nil, nil)
			e.policy.KeepVersions = c.keep
			stop := running(e, targets(1))
			defer stop()
			e.Ask(c.reason, target)
			time.Sleep(time.Minute)
			m.change(func() { m.noPurge = false })
			time.Sleep(tablePolicy.Propagation + tablePolicy.Grace + 2*tablePolicy.Reconcile)
			m.change(func() {
				s := m.rings[target]
				if s.Keyring.Lookup(old) != nil || len(m.purges) != c.want || (c.want == 1 && m.purges[0] != s.Version) {
					t.Errorf("%s: versions below %v were destroyed, version %d is the first without the old key: %s", name, m.purges, s.Version, describe(s.Keyring))
				}
			})
		})
	}
}

// TestBeginRevoke is rotate --revoke --no-wait: the first visit may already end it.
func TestBeginRevoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.setErrs = refuse(1, Refused, "ResourceUnavailable.ServiceExpired")
		e, _ := engineOn(t, m, "me", nil, nil)
		var rolled *RolledBackError
		if err := e.Begin(t.Context(), target, ByRevoke); !errors.As(err, &rolled) {
			t.Errorf("refused: %v", err)
		}
		if err := e.Begin(t.Context(), target, ByRevoke); err != nil {
			t.Errorf("done: %v", err)
		}
	})
}
