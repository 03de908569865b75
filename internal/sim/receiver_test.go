package sim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/webhook"
)

// lagging is a store as a receiver reads it, which tells any version at each reading.
type lagging struct {
	w       *World
	mutant  bool
	cache   func() *webhook.Cache
	gone    []webhook.Revoked // that a reading told of
	reads   int
	revived int // the reading after which a revoked key was accepted again
}

func (l *lagging) String() string { return "simulated" }

func (l *lagging) ReadKeys(_ context.Context, t webhook.Target) (webhook.Keys, error) {
	if held, _ := l.cache().Keys(t.SdkAppID); l.revived == 0 {
		for _, k := range held.Accept {
			if (webhook.Keys{Revoked: l.gone}).WasRevoked(k) {
				l.revived = l.reads
			}
		}
	}
	l.reads++
	s := l.w.vault.at(int(l.w.draw(uint64(len(l.w.vault.versions)))))
	raw, err := s.Keyring.Encode()
	if err != nil {
		return webhook.Keys{}, err
	}
	keys, err := webhook.DecodeKeys(t, raw)
	keys.Version = s.Version
	l.gone = append(l.gone, keys.Revoked...)
	if l.mutant {
		keys.Revoked = nil
	}
	return keys, err
}

// huntReceiver has keys revoked in a world, and a receiver read its versions in any order. It tells
// after how many readings a key was accepted that the receiver had read to be revoked.
func huntReceiver(t *testing.T, mutant bool) (readings int, found bool) {
	o := options(1)
	o.Without = allPowers
	w := New(o)
	for range 12 {
		w.replicas[0].ask(rotator.ByRevoke)
		w.Run(time.Hour)
		w.violation = "" // a revocation trades I1 for speed
	}
	synctest.Test(t, func(t *testing.T) {
		var c *webhook.Cache
		l := &lagging{w: w, mutant: mutant}
		made := make(chan struct{})
		l.cache = func() *webhook.Cache { <-made; return c }
		c = webhook.NewCache(t.Context(), l, webhook.CacheOptions{}, w.target)
		close(made)
		time.Sleep(time.Hour)
		c.Close()
		readings, found = l.revived, l.revived > 0
		if l.reads < 1000 || len(l.gone) == 0 {
			t.Errorf("%d readings, which told of %d revoked keys", l.reads, len(l.gone))
		}
	})
	return readings, found
}

// huntWave has a daemon rotate more targets at one moment than may be pending, and tells how many keys
// it had staged when there were too many.
func huntWave(t *testing.T, mutant bool) (staged int, found bool) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(1, 2000)
		f.calm, f.unpaced, f.policy.Propagation = true, mutant, 4*time.Second
		due := time.Now().Add(9 * time.Minute)
		f.join(t, "r0", due)
		time.Sleep(time.Until(due.Add(time.Minute)))
		f.stopAll()
		staged, found = f.staged, f.most > f.crowd()
	})
	return staged, found
}

// TestGuardsAround: what the mutants of receivers and waves do not have keeps them from harm.
func TestGuardsAround(t *testing.T) {
	t.Parallel()
	if n, found := huntReceiver(t, false); found {
		t.Errorf("after %d readings a revoked key was accepted again", n)
	}
	if n, found := huntWave(t, false); found || n == 0 {
		t.Errorf("%d keys were staged, and too many at one time: %t", n, found)
	}
}
