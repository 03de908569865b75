package rotator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestDemandBeforeDrift: whoever asks for a new key gets it, whatever is wrong with the one in force.
func TestDemandBeforeDrift(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		propagation time.Duration
		reason      Reason
	}{
		"no propagation": {0, ByCommand}, "three seconds": {3 * time.Second, ByCommand}, "thirty seconds": {30 * time.Second, ByCommand}, "revoked": {6 * time.Minute, ByRevoke},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			ours := m.adoptedKey(target, "value")
			e, _ := engineOn(t, m, "me", nil, nil)
			e.policy.Propagation, e.policy.OnDrift = c.propagation, AdoptKey
			e.Visit(t.Context(), target)
			m.change(func() { m.inForce[target] = secrets.NewKey("", "foreign") })
			time.Sleep(e.policy.Reconcile)
			e.Visit(t.Context(), target)
			if m.keyring(target).CallbackKey().Equal(ours) {
				t.Fatal("the foreign key was not adopted")
			}
			m.change(func() { m.inForce[target] = ours }) // and now the one before it is back
			e.track(target).forget()                      // so that it is seen
			e.Visit(t.Context(), target)
			ctx, cancel := context.WithTimeout(t.Context(), c.propagation+30*time.Second)
			defer cancel()
			if err := e.Settle(ctx, target, c.reason); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// TestRolledBackIsTold: who asked for a key that Tencent refused is told so, although a foreign key was
// adopted meanwhile.
func TestRolledBackIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.inForce[target] = secrets.NewKey("", "foreign")
		e, _ := engineOn(t, m, "me", nil, nil)
		e.policy.OnDrift = AdoptKey
		e.store = tardy{m, time.Millisecond}
		m.setErrs = refuse(1, Refused, "InvalidParameter")
		err := e.Settle(t.Context(), target, ByCommand)
		var rolledBack *RolledBackError
		if !errors.As(err, &rolledBack) || m.keyring(target).CallbackKey().Reveal() != "foreign" {
			t.Errorf("%v; %s", err, describe(m.keyring(target)))
		}
	})
}
