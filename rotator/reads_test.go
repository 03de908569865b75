package rotator

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestPropagationsDiffer: a target whose receivers need longer than this process is told gets its
// key when they know it, and not later.
func TestPropagationsDiffer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		process, override, staged time.Duration
	}{
		"an override where the process waits for nobody": {0, 4 * time.Second, 0},
		"an override of five times as long":              {time.Second, 5 * time.Second, 0},
		"an override of hours":                           {0, 5 * time.Hour, 0},
		"a key staged under six minutes":                 {0, 0, 6 * time.Minute},
		"a key staged under twenty seconds":              {time.Second, 0, 20 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.change(func() {
				s := m.rings[target]
				if c.override != 0 {
					s.Keyring = s.Keyring.With(Overrides{Propagation: &c.override})
				}
				m.rings[target] = s
			})
			before, _ := engineOn(t, m, "before", nil, nil)
			before.policy.Propagation = max(c.staged, c.process)
			if err := before.Begin(t.Context(), target, ByCommand); err != nil {
				t.Fatal(err)
			}
			e, _ := engineOn(t, m, "me", nil, nil)
			e.policy.Propagation = c.process
			stop := running(e, targets(1))
			defer stop()
			wait := max(c.process, c.override, c.staged)
			time.Sleep(wait - time.Millisecond)
			if m.setCalls(target) != 0 {
				t.Errorf("%s: it was set too early", name)
			}
			time.Sleep(e.policy.Timing.Lease + wait/8 + time.Minute) // the other replica's lease ends
			if m.setCalls(target) != 1 {
				t.Errorf("%s: %d set: %s", name, m.setCalls(target), describe(m.keyring(target)))
			}
		})
	}
}

// TestGoneMeanwhile: a keyring that is deleted while receivers come to know its key, and comes
// back, has them begin anew, although others were read all the time.
func TestGoneMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(m *memory, target secrets.Target, was Snapshot){
		"for a minute": func(m *memory, target secrets.Target, was Snapshot) {
			m.change(func() { m.rings[target] = Snapshot{Version: was.Version} })
			time.Sleep(time.Minute)
			m.change(func() { m.rings[target] = was })
		},
		"until it would be set": func(m *memory, target secrets.Target, was Snapshot) {
			m.change(func() { m.rings[target] = Snapshot{Version: was.Version} })
			time.Sleep(tablePolicy.Propagation)
			m.change(func() { m.rings[target] = was })
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(20)
			for _, target := range ts {
				m.adoptedKey(target, "value-"+target.String())
			}
			e, _ := engineOn(t, m, "me", nil, nil)
			stop := running(e, ts)
			defer stop()
			e.policy.Reconcile = time.Minute
			e.Ask(BySignal, ts...)
			time.Sleep(4 * time.Minute)
			var was Snapshot
			m.change(func() { was = m.rings[ts[0]] })
			if was.Keyring.Pending() == nil {
				t.Fatal("nothing is pending")
			}
			m.change(func() { m.lookErrs = refuse(10_000, Doubtful, "InternalError") }) // or it would be adopted
			c(m, ts[0], was)
			m.change(func() { m.lookErrs = nil })
			time.Sleep(tablePolicy.Propagation - time.Second)
			if n := m.setCalls(ts[0]); n != 0 {
				t.Errorf("%s: it was set %d times, and receivers had not had the time to read it", name, n)
			}
			time.Sleep(10 * time.Minute)
			if m.setCalls(ts[0]) != 1 || m.setCalls(ts[1]) != 1 {
				t.Errorf("%s: it was set %d times, others %d times", name, m.setCalls(ts[0]), m.setCalls(ts[1]))
			}
		})
	}
}

// TestAdoptedWithoutLooks: where Tencent does not tell which key is in force, a key that an adopted
// one replaced goes all the same, once receivers know the adopted one and it was set again.
func TestAdoptedWithoutLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		adopted := m.adoptedKey(target, "value")
		m.change(func() {
			s := m.rings[target]
			now := time.Now()
			s.Keyring.Keys[0].CreatedAt, s.Keyring.Keys[0].ActivatedAt = now.Add(-time.Hour), now.Add(-time.Hour)
			s.Keyring.Keys[0].PushAfter = now.Add(-time.Hour + tablePolicy.Propagation + tablePolicy.Timing.Skew)
			s.Keyring.Keys = append(s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: now.Add(tablePolicy.Grace)})
			for range 10_000 {
				m.lookErrs = append(m.lookErrs, &APIError{Class: Refused, Forbidden: true, Action: "DescribeWhiteboardPushCallback", Code: "AuthFailure.UnauthorizedOperation"})
			}
		})
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(3 * time.Hour)
		if k := m.keyring(target); len(k.Keys) != 1 || !k.CallbackKey().Equal(adopted) || m.setCalls(target) == 0 {
			t.Errorf("%d Set calls: %s", m.setCalls(target), describe(k))
		}
	})
}

// TestUnusualKey: a key that receivers may be unable to use is not adopted in silence.
func TestUnusualKey(t *testing.T) {
	t.Parallel()
	for value, warns := range map[string]bool{"CANARY": false, strings.Repeat("é", secrets.MaxKeyLength): true, strings.Repeat("x", secrets.MaxKeyLength): false, strings.Repeat("x", secrets.MaxKeyLength+1): true, "CANARY\n": true, "CAN\x00ARY": true} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.inForce[target] = secrets.NewKey("", value)
			e, log := engineOn(t, m, "me", nil, nil)
			e.Visit(t.Context(), target)
			if got := strings.Contains(log.String(), "receivers may be unable to use it"); got != warns || strings.Contains(log.String(), "CANARY") || !m.keyring(target).CallbackKey().Equal(secrets.NewKey("", value)) {
				t.Errorf("%q: warns %t", value, got)
			}
		})
	}
}

// TestCountBeginsAnewAtTheSet: a look took so long that nobody knows whether receivers could read
// meanwhile. What is read after it begins the count anew, and nothing is set before that is over.
func TestCountBeginsAnewAtTheSet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ propagation, look time.Duration }{
		"suspended in a look": {6 * time.Minute, time.Hour},
		"a slow look":         {10 * time.Second, 25 * time.Second},
		"a look of 9 seconds": {8 * time.Second, 9 * time.Second},
		"of half a minute":    {time.Minute, 29 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			e, _ := engineOn(t, m, "me", nil, nil)
			e.policy.Propagation = c.propagation
			if err := e.Begin(t.Context(), target, ByCommand); err != nil {
				t.Fatal(err)
			}
			for range 9 {
				time.Sleep(probe(c.propagation))
				if err := e.read(t.Context(), e.track(target)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(c.propagation - 8*probe(c.propagation))
			e.track(target).forget()
			back := time.Time{}
			m.change(func() {
				m.onLook = func() {
					m.change(func() { m.away = true })
					time.Sleep(c.look)
					m.change(func() { m.away = false })
					back = time.Now()
				}
			})
			e.Visit(t.Context(), target)
			stop := running(e, targets(1))
			defer stop()
			for m.setCalls(target) == 0 {
				time.Sleep(probe(c.propagation) / 4)
			}
			if since := time.Since(back); since < c.propagation || since > 2*c.propagation {
				t.Errorf("%s: it was set %s after the store was back, and receivers get %s", name, since, c.propagation)
			}
		})
	}
}

// TestEditedIsNotRead: while what receivers read is not what the keyring says, their time does not pass.
func TestEditedIsNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		other, _ := engineOn(t, m, "other", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(5 * time.Minute)
		m.change(func() {
			s := m.rings[target]
			s.Keyring = s.Keyring.Clone()
			s.Keyring.Edited, s.Version = true, s.Version+1
			m.rings[target] = s
		})
		other.Visit(t.Context(), target) // which puts it right before the first sees it
		restored := time.Now()
		if m.keyring(target).Edited {
			t.Fatal("it was not written anew")
		}
		for m.setCalls(target) == 0 {
			time.Sleep(time.Second)
		}
		if since := time.Since(restored); since < tablePolicy.Propagation {
			t.Errorf("the key was set %s after receivers could read it again", since)
		}
	})
}

// TestLongRounds: with so many keys pending, or so slow a store, that it takes longer than ten minutes
// to read them all once, they are set all the same; nor does one that cannot be read hold the others up.
func TestLongRounds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		targets int
		takes   time.Duration
		broken  int
		within  time.Duration
	}{
		"eleven minutes a round":   {1100, 20 * time.Second, 0, 12 * time.Hour},
		"one cannot be read":       {700, 5 * time.Second, 1, 3 * time.Hour},
		"a minute and two seconds": {400, 5 * time.Second, 0, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, ts := newMemory(), targets(c.targets)
			for _, target := range ts {
				m.adoptedKey(target, "value-"+target.String())
			}
			e, _ := engineOn(t, m, "me", nil, nil)
			e.log = slog.New(slog.DiscardHandler)
			e.store = tardy{m, c.takes}
			if c.broken > 0 {
				e.store = slowUnread{e.store, ts[0]}
			}
			stop := running(e, ts)
			defer stop()
			e.Ask(BySignal, ts...)
			time.Sleep(c.within)
			for _, target := range ts[c.broken:] {
				if m.setCalls(target) != 1 {
					t.Fatalf("%s: %s: %d Set calls after %s", name, target, m.setCalls(target), c.within)
				}
			}
		})
	}
}

// slowUnread is a store that cannot read one keyring.
type slowUnread struct {
	Store
	bad secrets.Target
}

func (s slowUnread) Read(ctx context.Context, t secrets.Target) (Snapshot, error) {
	snap, err := s.Store.Read(ctx, t)
	if t == s.bad {
		return Snapshot{}, errOther
	}
	return snap, err
}

// TestWaitFor: receivers get as long as the one that wrote the key was told they need.
func TestWaitFor(t *testing.T) {
	t.Parallel()
	entry := func(s State, span time.Duration) Entry {
		return Entry{Key: secrets.NewKey(string(s), string(s)), State: s, CreatedAt: t0, PushAfter: t0.Add(span)}
	}
	p := tablePolicy
	p.Propagation = time.Minute
	for name, c := range map[string]struct {
		k    *Keyring
		want time.Duration
	}{
		"no keyring":                        {nil, time.Minute},
		"no key":                            {&Keyring{}, time.Minute},
		"a current key":                     {&Keyring{Keys: []Entry{entry(Current, 9*time.Minute)}}, 9 * time.Minute},
		"a current key written in a hurry":  {&Keyring{Keys: []Entry{entry(Current, time.Second)}}, time.Minute},
		"a pending key beside a current":    {&Keyring{Keys: []Entry{entry(Current, time.Hour), entry(Pending, 5*time.Minute)}}, 5 * time.Minute},
		"a pending key written in a hurry":  {&Keyring{Keys: []Entry{entry(Pending, time.Second)}}, time.Minute},
		"previous keys make no difference":  {&Keyring{Keys: []Entry{entry(Previous, time.Hour)}}, time.Minute},
		"a span that no clock can have had": {&Keyring{Keys: []Entry{entry(Pending, 30*24*time.Hour)}}, time.Minute},
	} {
		if got := p.waitFor(c.k); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestCounts: what a key that is about to be set must still be known for: the pending one, unless it
// is revoked, and a current one that was adopted.
func TestCounts(t *testing.T) {
	t.Parallel()
	adopted := func(c *situation) { c.s.Keyring.Keys[0].PushAfter = c.s.Keyring.Keys[0].ActivatedAt.Add(time.Minute) }
	for name, c := range map[string]struct {
		c    *situation
		key  secrets.Key
		wait time.Duration
		want time.Duration
	}{
		"pending":                           {pending(), keyP, 1, 1},
		"pending, receivers need no time":   {pending(), keyP, 0, 0},
		"pending, and revoked":              {pending().with(func(c *situation) { c.s.Keyring.Rotation.Reason = ByRevoke }), keyP, 1, 0},
		"current beside a pending one":      {pending(), keyC, 1, 0},
		"adopted beside a pending one":      {pending().with(adopted), keyC, 1, 2},
		"adopted":                           {settled().with(adopted), keyC, 1, 2},
		"adopted, receivers need no time":   {settled().with(adopted), keyC, 0, 0},
		"current since long":                {settled(), keyC, 1, 0},
		"another key than the adopted one":  {settled().with(adopted), keyP, 1, 0},
		"no current one":                    {first(), keyC, 1, 0},
		"pending beside an adopted current": {pending().with(adopted), keyP, 1, 1},
	} {
		tr := &track{snap: c.c.s, wait: c.wait, pendingSeen: watch{since: 1}, currentSeen: watch{since: 2}}
		if got := tr.counts(c.key); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
