package rotator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle has each way for a rotation on demand to end.
func TestSettle(t *testing.T) {
	t.Parallel()
	refusedErr := func(n int) func(*memory) {
		return func(m *memory) { m.setErrs = refuse(n, Refused, "ResourceUnavailable.ServiceExpired") }
	}
	for _, c := range []struct {
		name    string
		prepare func(*memory)
		limit   time.Duration
		keeps   bool // the key stays
		rolled  bool // RolledBackError
		want    string
	}{
		{"done", func(*memory) {}, time.Hour, false, false, ""},
		{"done in spite of doubt", func(m *memory) { m.setErrs = refuse(3, Doubtful, "InternalError") }, time.Hour, false, false, ""},
		{"done after a while", func(m *memory) { m.setErrs = refuse(3, RefusedForNow, "RequestLimitExceeded") }, time.Hour, false, false, ""},
		{"refused", refusedErr(1), time.Hour, true, true, "ServiceExpired (meaning): in words; RequestId req-7; advice; daemons try again after"},
		{"adopted, and refused", func(m *memory) { clear(m.rings); m.latency = time.Second; refusedErr(1)(m) }, time.Hour, true, true, "ServiceExpired (meaning)"},
		{"refused at the first look", func(m *memory) { m.lookErrs = refuse(1, Refused, "UnauthorizedOperation.SdkAppId") }, time.Hour, true, true, "UnauthorizedOperation.SdkAppId"},
		{"given up", func(m *memory) { m.setErrs = refuse(1000, Doubtful, "InternalError") }, 3 * time.Hour, true, true, "InternalError"},
		{"out of time", func(m *memory) { m.setErrs = refuse(1000, Doubtful, "InternalError") }, 20 * time.Minute, true, false, "is pending and accepted by receivers"},
		{"no look, not begun", func(m *memory) { m.lookErrs = refuse(1000, Doubtful, "ClientError.NetworkError") }, time.Hour, true, false, "nothing was changed"},
		{"store away", func(m *memory) { m.away = true }, time.Hour, true, false, "nothing was changed"},
		{"an error of another kind", func(m *memory) { m.setErrs = []error{errOther} }, time.Hour, false, false, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			old := m.adoptedKey(target, "value-old")
			c.prepare(m)
			e, log := engineOn(t, m, "me", nil, nil)
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			err := e.Settle(ctx, target, ByCommand)
			m.change(func() { m.away = false })
			k := m.keyring(target)
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			var rolled *RolledBackError
			if errors.As(err, &rolled) != c.rolled || (err != nil && !c.rolled && !errors.Is(err, ErrUnsettled)) {
				t.Errorf("%s: %T", c.name, err)
			}
			if got := k.CallbackKey().Equal(old); got != c.keeps || k.Lookup(old) == nil || k.Lookup(m.signing(target)) == nil {
				t.Errorf("%s: it keeps its key: %v; in force %s, %s", c.name, got, m.signing(target), describe(k))
			}
			if strings.Contains(log.String(), "value-old") || (err != nil && strings.Contains(err.Error(), "value-old")) {
				t.Errorf("%s: a key shows", c.name)
			}
		})
	}
}

// TestSettleJoins has a rotation in hand elsewhere: it is joined, not doubled.
func TestSettleJoins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(1)
		m.adoptedKey(ts[0], "value")
		daemon, _ := engineOn(t, m, "daemon", nil, nil)
		daemon.Ask(BySignal, ts[0])
		stop := running(daemon, ts)
		defer stop()
		time.Sleep(time.Minute)
		pending := m.keyring(ts[0]).Pending().Key
		command, _ := engineOn(t, m, "command", nil, nil)
		if err := command.Settle(t.Context(), ts[0], ByCommand); err != nil {
			t.Fatal(err)
		}
		if k := m.keyring(ts[0]); m.setCalls(ts[0]) != 1 || !k.CallbackKey().Equal(pending) {
			t.Errorf("%d Set calls, %s", m.setCalls(ts[0]), describe(k))
		}
	})
}

// TestBeginLeavesTheRest is rotate --no-wait.
func TestBeginLeavesTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil || m.keyring(target).Pending() == nil || m.setCalls(target) != 0 {
			t.Errorf("%v, %s", err, describe(m.keyring(target)))
		}
		m.change(func() { m.away = true })
		other, _ := engineOn(t, m, "other", nil, nil)
		if err := other.Begin(t.Context(), target, ByCommand); !errors.Is(err, ErrUnsettled) {
			t.Errorf("with the store away: %v", err)
		}
	})
}

func TestSettleRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		old := m.adoptedKey(target, "value-old")
		m.lookErrs = refuse(2, RefusedForNow, "RequestLimitExceeded")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Settle(t.Context(), target, ByCommand); err != nil || m.signing(target).Equal(old) {
			t.Errorf("looks refused for now: %v", err)
		}
	})
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    *situation
		done bool
		err  bool
	}{
		"still pending":                 {pending(), false, false},
		"another's key came into force": {settled().with(func(c *situation) { c.s.Keyring.Keys[0].ActivatedAt = minute(1) }), true, false},
		"adopted before it was pending": {settled().with(func(c *situation) {
			c.s.Keyring.Keys[0].ActivatedAt = minute(1)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, CreatedAt: minute(1)})
			c.s.Keyring.Rotation = &Rotation{LastError: &Failure{Code: "x"}}
		}), true, true},
		"another's came into force after": {settled().with(func(c *situation) {
			c.s.Keyring.Keys[0].ActivatedAt = minute(2)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, CreatedAt: minute(1)})
		}), true, false},
		"gone, and nothing tells why":    {settled(), false, false},
		"gone, a rotation without error": {settled().with(func(c *situation) { c.s.Keyring.Rotation = &Rotation{} }), false, false},
		"rolled back":                    {settled().with(func(c *situation) { c.s.Keyring.Rotation = &Rotation{LastError: &Failure{Code: "x"}} }), true, true},
	} {
		tr := &track{pending: keyV, snap: c.s.s}
		if done, err := tr.outcome(t0); done != c.done || (err != nil) != c.err {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
	// Another replica's key is pending by now: that ours is not in force is no failure of it.
	e, _ := engineOn(t, newMemory(), "me", nil, nil)
	tr := &track{set: keyV, snap: pending().s, obs: Observation{Sight: Seen, Key: keyC, At: t0}}
	if err := e.confirm(t.Context(), tr); err != nil || tr.obs.Sight != Seen {
		t.Errorf("%v", err)
	}
}
