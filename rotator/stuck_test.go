package rotator

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// stuck is a store and a Tencent of which one call never answers.
type stuck struct {
	*memory
	in string
}

func (s *stuck) hang(ctx context.Context, in string) error {
	if s.in == in {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *stuck) Read(ctx context.Context, t secrets.Target) (Snapshot, error) {
	if err := s.hang(ctx, "read"); err != nil {
		return Snapshot{}, err
	}
	return s.memory.Read(ctx, t)
}

func (s *stuck) Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	if err := s.hang(ctx, "write"); err != nil {
		return 0, err
	}
	return s.memory.Write(ctx, t, k, version)
}

func (s *stuck) Purge(ctx context.Context, t secrets.Target, version int64) error {
	if err := s.hang(ctx, "purge"); err != nil {
		return err
	}
	return s.memory.Purge(ctx, t, version)
}

func (s *stuck) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	if err := s.hang(ctx, "look"); err != nil {
		return secrets.Key{}, err
	}
	return s.memory.KeyInForce(ctx, t)
}

func (s *stuck) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	if err := s.hang(ctx, "set"); err != nil {
		return "", err
	}
	return s.memory.SetKey(ctx, t, k)
}

func TestNothingHangsForEver(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"read", "write", "purge", "look", "set"} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			e, _ := engineOn(t, m, "me", nil, nil)
			s := &stuck{m, in}
			e.store, e.api = s, s
			e.Ask(ByRevoke, target)
			began := time.Now()
			e.Visit(t.Context(), target)
			if took := time.Since(began); took < callLimit || took > tablePolicy.Timing.PushDeadline+time.Second {
				t.Errorf("a visit whose %s hangs took %s", in, took)
			}
		})
	}
}

// TestStopBetweenSteps stops while Tencent is asked: what comes after the answer is not begun.
func TestStopBetweenSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		m.onLook = cancel
		e.Ask(BySignal, target)
		e.Visit(ctx, target)
		if k := m.keyring(target); k.Pending() != nil {
			t.Errorf("a step was begun after the stop: %s", describe(k))
		}
	})
}

// contested is a store that somebody else always writes to first.
type contested struct{ *memory }

func (contested) Write(context.Context, secrets.Target, *Keyring, int64) (int64, error) {
	return 0, ErrConflict
}

func TestVisitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, log := engineOn(t, m, "me", nil, nil)
		e.store = contested{m}
		e.Ask(BySignal, target)
		if next := e.Visit(t.Context(), target); next.Before(time.Now().Add(time.Minute)) || !strings.Contains(log.String(), "does not settle") {
			t.Errorf("it comes again at %s", next)
		}
	})
}

// napping tells how long the engine wants to sleep.
type napping struct {
	clock
	longest *time.Duration
}

func (n napping) After(d time.Duration) (<-chan time.Time, func()) {
	*n.longest = max(*n.longest, d)
	return n.clock.After(d)
}

func TestNoLongSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		var longest time.Duration
		e.clock = napping{e.clock.(clock), &longest}
		stop := running(e, targets(1))
		time.Sleep(time.Hour)
		stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		sleepUntil(ctx, e.clock, e.clock.Now().Add(10*time.Minute), nil)
		cancel()
		if longest == 0 || longest > longestSleep {
			t.Errorf("a sleep of %s: a machine that is suspended meanwhile oversleeps", longest)
		}
	})
}
