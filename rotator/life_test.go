package rotator

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// reborn is a store whose keyring is deleted and made anew just before a write takes effect.
type reborn struct {
	*memory
	anew func() // once
}

func (r *reborn) Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	if r.anew != nil {
		r.anew()
		r.anew = nil
		return 0, ErrAnotherLife
	}
	return r.memory.Write(ctx, t, k, version)
}

// TestAnotherLife: a keyring that was deleted and made anew ends the rotation of the old one, with an error
// in the log, and nothing is set.
func TestAnotherLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, log := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		if m.keyring(target).Life == "" {
			t.Error("a keyring of an older program was written, and given no life")
		}
		anew := settled().s.Keyring.Clone()
		anew.Target, anew.Life = target, "another"
		e.store = &reborn{m, func() {
			m.change(func() {
				m.rings[target] = Snapshot{Keyring: anew, Version: m.rings[target].Version, Written: time.Now()}
				m.inForce[target] = keyC
			})
		}}
		stop := running(e, targets(1))
		time.Sleep(tablePolicy.Propagation + 10*time.Minute)
		stop()
		if k := m.keyring(target); m.setCalls(target) != 0 || k.Life != "another" || !m.signing(target).Equal(keyC) {
			t.Errorf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
		if s := log.String(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, "write the keyring of 1/whiteboard-push to memory: the keyring was changed by somebody else in between: it was deleted and made anew, and the new one stays") ||
			!strings.Contains(s, "level=WARN msg=\"the keyring was deleted and made anew since it was read last\"") {
			t.Errorf("it is not told: %s", s)
		}
	})
}
