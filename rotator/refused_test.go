package rotator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestRefusedForDays: what Tencent refuses is tried more and more rarely.
func TestRefusedForDays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.setErrs = refuse(1000, Refused, "UnauthorizedOperation.SdkAppId")
		e, _ := engineOn(t, m, "me", hourly, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(72 * time.Hour)
		if n := m.setCalls(target); n < 8 || n > 20 {
			t.Errorf("%d Set calls in three days", n)
		}
	})
}

// TestForbiddenAtFirst: a key in force that cannot be read cannot be adopted, and it is said.
func TestForbiddenAtFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.inForce[target] = keyF
		for range 1000 {
			m.lookErrs = append(m.lookErrs, &APIError{Class: Refused, Code: "UnauthorizedOperation", Forbidden: true})
		}
		e, _ := engineOn(t, m, "me", nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err := e.Settle(ctx, target, ByCommand)
		var rolled *RolledBackError
		if !errors.As(err, &rolled) || !strings.Contains(err.Error(), "UnauthorizedOperation") || time.Since(began) > time.Minute || m.keyring(target) != nil || m.setCalls(target) != 0 || len(e.Asked()) != 0 {
			t.Errorf("after %s: %v, %s", time.Since(began), err, describe(m.keyring(target)))
		}
	})
}

// TestBarredWhilePending: Set gives its own definite answer, and its success is the proof.
func TestBarredWhilePending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		m.lookErrs = refuse(1000, Refused, "ResourceUnavailable.ServiceExpired")
		e, _ = engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(time.Minute)
		if r := m.keyring(target).Rotation; r.Attempts != 0 || r.LastError != nil {
			t.Errorf("the refusal to tell counts as a failure of the rotation: %+v", r)
		}
		time.Sleep(tablePolicy.Propagation)
		if k := m.keyring(target); m.setCalls(target) != 1 || k.Rotation != nil {
			t.Errorf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
	})
}

// TestBarredAndNothingWanted: that Tencent does not tell is no failure of a rotation nobody wants.
func TestBarredAndNothingWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.lookErrs = refuse(1000, Refused, "ResourceUnavailable.ServiceExpired")
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(4 * time.Hour)
		if k := m.keyring(target); m.rings[target].Version != 1 || k.Rotation != nil {
			t.Errorf("version %d was written: %s", m.rings[target].Version, describe(k))
		}
	})
}

// TestReassertFails: what cannot be put back is not tried in a burst.
func TestReassertFails(t *testing.T) {
	t.Parallel()
	for class, most := range map[Class]int{Doubtful: 12, RefusedForNow: 12, Refused: 3} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.inForce[target] = keyF
			m.setErrs = refuse(1000, class, "code")
			e, _ := engineOn(t, m, "me", nil, nil)
			stop := running(e, targets(1))
			defer stop()
			time.Sleep(20 * time.Minute)
			if n := m.setCalls(target); n < 2 || n > most {
				t.Errorf("%s: %d Set calls in twenty minutes", class, n)
			}
		})
	}
}

func TestWarnsOfDrift(t *testing.T) {
	t.Parallel()
	e, log := engineOn(t, newMemory(), "me", nil, nil)
	tr := &track{snap: previous().s}
	for _, key := range []secrets.Key{keyF, keyF, keyC, keyF, {}, {}, keyC, keyV, keyV, keyC, keyV} {
		tr.obs.Key = key
		e.warnOfDrift(tr)
	}
	for text, want := range map[string]int{"is not ours": 2, "was deleted": 1, "an older key": 2} {
		if n := strings.Count(log.String(), text); n != want {
			t.Errorf("%q comes %d times, want %d:\n%s", text, n, want, log)
		}
	}
}

func TestFirstReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		e, _ := engineOn(t, m, "me", nil, nil)
		e.due = func(_ secrets.Target, _ *Keyring, at time.Time) time.Time { return at.Add(time.Hour) }
		e.Visit(t.Context(), target)
		if k := m.keyring(target); k.Rotation == nil || k.Rotation.Reason != ByAdopt {
			t.Errorf("%s", describe(k))
		}
	})
}
