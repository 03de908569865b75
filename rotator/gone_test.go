package rotator

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestGone: a keyring that is deleted is told of once, as a warning, and never as one that was not there yet.
func TestGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, found bool // the engine has seen it; it serves what is found
		version       int64
		told          int
	}{
		"all of it":                                    {true, false, 0, 1},
		"its last version":                             {true, false, 2, 1},
		"its last version, before this process":        {false, false, 2, 1},
		"all of it, before this process: nobody knows": {false, false, 0, 0},
		"of a target that is served no longer then":    {true, true, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			ours := m.adoptedKey(target, "value")
			e, log := engineOn(t, m, "me", nil, nil)
			if c.found {
				e.ServeFound(target)
			}
			if c.before {
				e.Visit(t.Context(), target)
			}
			m.change(func() { m.rings[target] = Snapshot{Version: c.version} })
			m.lookErrs = refuse(3, Doubtful, "InternalError") // so that it takes several visits
			for range 6 {
				e.Visit(t.Context(), target)
				time.Sleep(10 * time.Minute)
			}
			told := strings.Count(log.String(), "level=WARN msg=\"the keyring that was there is gone")
			if told != c.told || strings.Contains(log.String(), "no keyring yet") {
				t.Errorf("%s: told %d times\n%s", name, told, log)
			}
			if k := m.keyring(target); !c.found && (k == nil || k.Lookup(ours) == nil) {
				t.Errorf("%s: the key in force is not adopted", name)
			}
		})
	}
}

// TestForeignKeyAtARotation: a rotation that is due replaces a foreign key, which leaves a trace.
func TestForeignKeyAtARotation(t *testing.T) {
	t.Parallel()
	for _, policy := range []Drift{AlarmOnly, Reassert, AdoptKey} {
		for _, propagation := range []time.Duration{0, 6 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				m, target, drifts := newMemory(), targets(1)[0], 0
				m.adoptedKey(target, "value")
				m.inForce[target] = secrets.NewKey("", "foreign")
				m.rings[target].Keyring.RotatedAt = time.Now().Add(-48 * time.Hour)
				e, log := engineOn(t, m, "me", nil, func(ev Event) {
					if ev.Step == StepObserve && ev.Drift {
						drifts++
					}
				})
				e.policy.OnDrift, e.policy.Propagation = policy, propagation
				stop := running(e, targets(1))
				defer stop()
				time.Sleep(time.Hour)
				if k := m.keyring(target); !m.signing(target).Equal(k.CallbackKey()) || time.Since(k.RotatedAt) > time.Hour {
					t.Errorf("%s, %s: it was not rotated: %s", policy, propagation, describe(k))
				}
				if n := strings.Count(log.String(), "a key is in force that is not ours"); n != 1 || drifts == 0 {
					t.Errorf("%s, %s: told %d times, %d looks\n%s", policy, propagation, n, drifts, log)
				}
			})
		}
	}
}
