package rotator

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// sick is a Tencent that does not tell the key of some targets, and takes no key of more than 64 characters.
type sick struct {
	*memory
	ill map[secrets.Target]bool
}

func (s *sick) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	s.mu.Lock()
	ill := s.ill[t]
	s.mu.Unlock()
	if ill {
		return secrets.Key{}, &APIError{Class: Doubtful, Code: "InternalError", Action: "DescribeWhiteboardPushCallback", Target: t}
	}
	return s.memory.KeyInForce(ctx, t)
}

func (s *sick) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	if len(k.Reveal()) > secrets.MaxKeyLength {
		return "", &APIError{Class: Refused, Code: "InvalidParameter.CallbackKey", Target: t}
	}
	return s.memory.SetKey(ctx, t, k)
}

// TestSickTakeNoRoom: keys that wait for an answer of Tencent's do not keep other targets from being rotated.
func TestSickTakeNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 200 // of which half are sick; there is room for 60
		m, ts := newMemory(), targets(n)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		start := time.Now().Add(time.Hour)
		e, _ := engineOn(t, m, "me", func(_ secrets.Target, at time.Time) time.Time {
			if at.Before(start) {
				return start
			}
			return at.Add(24 * time.Hour)
		}, nil)
		e.stageRate, e.policy.Propagation = 1, 0
		s := &sick{m, map[secrets.Target]bool{}}
		e.api = s
		defer running(e, ts)()
		time.Sleep(59 * time.Minute)
		m.change(func() {
			for i, target := range ts {
				s.ill[target] = i%2 == 0
			}
		})
		time.Sleep(2 * time.Hour)
		for i, target := range ts {
			if i%2 == 1 && m.keyring(target).RotatedAt.Before(start) {
				t.Fatalf("%s waits for those that are sick", target)
			}
		}
	})
}

// TestPutOffIsLookedAt: drift of a target whose rotation is put off is put right meanwhile.
func TestPutOffIsLookedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(300)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		start := time.Now().Add(time.Hour)
		e, _ := engineOn(t, m, "me", func(_ secrets.Target, at time.Time) time.Time {
			if at.Before(start) {
				return start
			}
			return time.Time{}
		}, nil)
		e.stageRate, e.policy.Propagation = 0.01, time.Minute // a key in two minutes
		defer running(e, ts)()
		time.Sleep(time.Until(start) + time.Minute)
		put := ts[0]
		for _, target := range ts {
			if m.keyring(target).Pending() == nil && m.keyring(target).RotatedAt.Before(start) {
				put = target
			}
		}
		m.change(func() { m.inForce[put] = keyF })
		time.Sleep(2*e.policy.Reconcile + time.Minute)
		if k := m.keyring(put); !k.RotatedAt.Before(start) || k.Lookup(m.signing(put)) == nil {
			t.Errorf("a foreign key is in force: %s", describe(k))
		}
	})
}

// TestLongKeyIsReplaced: a key that was adopted and that Tencent does not take back is replaced on schedule.
func TestLongKeyIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), codecTarget
		m.adoptedKey(target, strings.Repeat("k", secrets.MaxKeyLength+1))
		m.inForce[target] = keyF
		e, _ := engineOn(t, m, "me", func(_ secrets.Target, at time.Time) time.Time { return at.Add(2 * time.Hour) }, nil)
		e.api = &sick{m, nil}
		defer running(e, []secrets.Target{target})()
		time.Sleep(3 * time.Hour)
		if k := m.keyring(target); k.Lookup(m.signing(target)) == nil {
			t.Errorf("a foreign key is in force, though a new one was due: %s", describe(k))
		}
	})
}
