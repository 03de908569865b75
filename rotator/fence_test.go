package rotator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// strict is a store that takes its time, and a Tencent that wants every request to be fenced
// by the read, or the write, that told of the key.
type strict struct {
	*memory
	t     *testing.T
	took  []time.Duration // by the next calls of the store
	began time.Time
}

func (s *strict) pass() {
	s.began = time.Now()
	if len(s.took) > 0 {
		time.Sleep(s.took[0])
		s.took = s.took[1:]
	}
}

func (s *strict) Read(ctx context.Context, t secrets.Target) (Snapshot, error) {
	s.pass()
	return s.memory.Read(ctx, t)
}

func (s *strict) Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	s.pass()
	return s.memory.Write(ctx, t, k, version)
}

func (s *strict) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	if d, ok := ctx.Deadline(); !ok || d.After(s.began.Add(tablePolicy.Timing.PushDeadline)) || time.Since(s.began) > tablePolicy.Timing.PushDeadline/4 {
		s.t.Errorf("sent %s after the keyring was read, and until %s after it", time.Since(s.began), d.Sub(s.began))
	}
	return s.memory.SetKey(ctx, t, k)
}

func TestPushIsFenced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		took   []time.Duration
		reason Reason
		lookup time.Duration
	}{
		"a slow read":                {[]time.Duration{20 * time.Second}, "", 0},
		"a read that was too slow":   {[]time.Duration{40 * time.Second, 20 * time.Second}, "", 0},
		"a slow write":               {[]time.Duration{0, 20 * time.Second}, ByRevoke, 0},
		"a write that was too slow":  {[]time.Duration{0, 40 * time.Second, 20 * time.Second}, ByRevoke, 0},
		"a look that takes longer":   {[]time.Duration{0, 20 * time.Second}, "", 40 * time.Second},
		"a look that takes its time": {[]time.Duration{10 * time.Second}, "", 15 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			e, _ := engineOn(t, m, "me", nil, nil)
			s := &strict{memory: m, t: t}
			e.store, e.api = s, s
			if c.reason == "" { // a pending key that is ready
				m.inForce[target] = keyF // so that the current one is put back
			} else {
				e.Ask(c.reason, target)
			}
			s.took = c.took
			m.onLook = func() { time.Sleep(c.lookup) }
			e.Visit(t.Context(), target)
			if m.setCalls(target) != 1 {
				t.Errorf("%s: %d Set calls", name, m.setCalls(target))
			}
		})
	}
	for name, c := range map[string]struct{ ahead, took time.Duration }{
		"the clock was set back":                          {-time.Second, 0},
		"the clock was set back while this was paused":    {-time.Minute, time.Minute},
		"the machine was suspended, and time stood still": {time.Minute, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			e, _ := engineOn(t, m, "me", nil, nil)
			e.store = meanwhile{m, func() {
				time.Sleep(c.took)
				m.change(func() { m.ahead = c.ahead })
			}}
			api, err := e.set(t.Context(), &track{target: target, answered: e.moment(), snap: Snapshot{Keyring: settled().s.Keyring}}, keyC)
			if !errors.Is(err, errStale) || api != nil || m.setCalls(target) != 0 {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// meanwhile is a store that takes its time to answer a write.
type meanwhile struct {
	*memory
	happens func()
}

func (s meanwhile) Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	defer s.happens()
	return s.memory.Write(ctx, t, k, version)
}

// deposed is a node of the store that was deposed and does not know it: it tells what was, and can
// write nothing.
type deposed struct {
	*memory
	was Snapshot
	err error // what it says to a write
}

func (d deposed) Read(context.Context, secrets.Target) (Snapshot, error) { return d.was, nil }

func (d deposed) Write(context.Context, secrets.Target, *Keyring, int64) (int64, error) {
	return 0, d.err
}

// TestOldReadsSetNothing: who is told of an old keyring finds a foreign key in force, or a
// pending one to be set, and sets neither.
func TestOldReadsSetNothing(t *testing.T) {
	t.Parallel()
	for name, was := range map[string]*Keyring{
		"a current key": settled().s.Keyring,
		"a pending key": pending().s.Keyring,
	} {
		for _, err := range []error{ErrConflict, errAway} {
			synctest.Test(t, func(t *testing.T) {
				m, target := newMemory(), targets(1)[0]
				m.adoptedKey(target, "value") // which the old keyring does not know
				was := was.Clone()
				was.Target = target
				for i := range was.Keys {
					was.Keys[i].PushAfter = time.Time{}
				}
				e, _ := engineOn(t, m, "me", nil, nil)
				e.store = deposed{m, Snapshot{Keyring: was, Version: 7, Written: time.Now().Add(-time.Hour)}, err}
				for range 5 {
					next := e.Visit(t.Context(), target)
					time.Sleep(time.Until(next))
				}
				if m.looks == 0 || m.setCalls(target) != 0 {
					t.Errorf("%s, %v: looked %d times, and set %d", name, err, m.looks, m.setCalls(target))
				}
			})
		}
	}
}

// TestSetIsConfirmed: the write that confirms the keyring notes in it that the key is sent, and takes no longer
// than a read may before the key is set.
func TestSetIsConfirmed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		k    *Keyring
		took time.Duration
		want error
	}{
		"pending":  {pending().s.Keyring, 0, nil},
		"settled":  {settled().s.Keyring, 0, nil},
		"too slow": {settled().s.Keyring, tablePolicy.Timing.PushDeadline/4 + time.Second, errStale},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			e, _ := engineOn(t, m, "me", nil, nil)
			e.store = &strict{memory: m, t: t, took: []time.Duration{c.took}}
			api, err := e.set(t.Context(), &track{target: target, answered: e.moment(), snap: Snapshot{Keyring: c.k}}, keyC)
			if api != nil || !errors.Is(err, c.want) || (m.setCalls(target) == 1) != (c.want == nil) {
				t.Errorf("%s: %v, %v, %d Set calls", name, api, err, m.setCalls(target))
			}
			if got := m.rings[target]; got.Version != 1 || describe(got.Keyring) != describe(c.k.tried(keyC)) {
				t.Errorf("%s: version %d: %s", name, got.Version, describe(got.Keyring))
			}
		})
	}
}

// TestLookIsAsOldAsItsRequest has a key's time end while Tencent is asked: that look does not
// prove that nothing older came after it.
func TestLookIsAsOldAsItsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		k := m.rings[target].Keyring
		k.Keys = append(k.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: time.Now().Add(2 * time.Second)})
		m.onLook = func() { time.Sleep(5 * time.Second) }
		e, _ := engineOn(t, m, "me", nil, nil)
		e.Visit(t.Context(), target)
		if m.looks != 2 || m.keyring(target).Lookup(keyV) != nil {
			t.Errorf("%d looks, %s", m.looks, describe(m.keyring(target)))
		}
	})
}

// TestBlindProofIsAsOldAsItsRequest: where Set's answer has to serve as the look.
func TestBlindProofIsAsOldAsItsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		key := m.adoptedKey(target, "value")
		m.slow = 5 * time.Second
		e, _ := engineOn(t, m, "me", nil, nil)
		began := e.moment()
		tr := &track{target: target}
		if err := e.read(t.Context(), tr); err != nil {
			t.Fatal(err)
		}
		tr.obs.Sight = Forbidden
		if api, err := e.set(t.Context(), tr, key); api != nil || err != nil || tr.obs.Sight != Seen || !tr.obs.Key.Equal(key) || !tr.obs.At.Equal(began.wall) {
			t.Errorf("%v, %+v, %s after it was sent", err, tr.obs, tr.obs.At.Sub(began.wall))
		}
	})
}

// TestPreviousSinceTheWrite: a write that was held up became readable at its end. What it left
// as it was has been so since it was first seen.
func TestPreviousSinceTheWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		k := m.rings[target].Keyring
		k.Keys = append(k.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: time.Now().Add(time.Hour)})
		e, _ := engineOn(t, m, "me", nil, nil)
		s := &strict{memory: m, t: t, took: []time.Duration{20 * time.Second, 20 * time.Minute}}
		e.store = s
		tr := e.track(target)
		if err := e.read(t.Context(), tr); err != nil {
			t.Fatal(err)
		}
		seen := time.Now()
		if got := tr.obs.Previous["V"]; !got.Equal(seen) {
			t.Errorf("seen as a previous one since %s before the read ended", seen.Sub(got))
		}
		k = k.Clone()
		k.Keys = append(k.Keys, Entry{Key: secrets.NewKey("W", "value-w"), State: Previous, AcceptUntil: time.Now().Add(time.Hour)})
		if err := e.write(t.Context(), tr, k); err != nil {
			t.Fatal(err)
		}
		if !tr.snap.Written.IsZero() || !tr.obs.Previous["W"].Equal(time.Now()) || !tr.obs.Previous["V"].Equal(seen) {
			t.Errorf("written %s; previous since %s", tr.snap.Written, tr.obs.Previous)
		}
	})
}

// TestPreviousAgain: a key that was current in between has not been a replaced one all the time.
func TestPreviousAgain(t *testing.T) {
	t.Parallel()
	ring := func(until time.Time) *Keyring {
		return &Keyring{Keys: []Entry{{Key: keyV, State: Previous, AcceptUntil: until}}}
	}
	seen := previousSeen(ring(t0), nil, 0)
	if again := previousSeen(ring(t0), seen, time.Minute)["V"].since; again != 0 {
		t.Errorf("a key that was seen replaced all the time is so since %s", again)
	}
	if anew := previousSeen(ring(t0.Add(time.Hour)), seen, time.Hour)["V"].since; anew != time.Hour {
		t.Errorf("a key that was current in between is replaced since %s", anew)
	}
}

// doubting sets the key, and the answer is lost.
type doubting struct{ *memory }

func (d doubting) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	if _, err := d.memory.SetKey(ctx, t, k); err != nil {
		return "", err
	}
	return "", &APIError{Class: Doubtful, Code: "ClientError.NetworkError"}
}

func TestDoubtIsLookedInto(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		e.api = doubting{m}
		stop := running(e, targets(1))
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(tablePolicy.Propagation + 10*time.Second)
		if k := m.keyring(target); m.setCalls(target) != 1 || k.Rotation != nil {
			t.Errorf("%d Set calls, %s", m.setCalls(target), describe(k))
		}
	})
}

// TestTwoLives: a keyring that was deleted and made anew comes to the same version again. Whoever read
// it in its former life reads again before it writes, and does not write over the new one.
func TestTwoLives(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(k *Keyring){
		"another revision": func(k *Keyring) { k.Revision = "another" },
		"changed by hand":  func(k *Keyring) { k.Edited = true },
		"nothing":          func(*Keyring) {},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.rings[target].Keyring.Revision = "one"
			e, _ := engineOn(t, m, "me", nil, nil)
			e.Ask(BySignal, target)
			anew := secrets.NewKey("anew", "made anew")
			m.onLook = func() {
				time.Sleep(freshRead + slowAnswer + time.Second)
				m.change(func() {
					s := m.rings[target]
					s.Keyring = s.Keyring.Clone()
					change(s.Keyring)
					if name == "another revision" {
						s.Keyring.Keys = []Entry{{Key: anew, State: Current, ActivatedAt: time.Now()}}
						m.inForce[target] = anew
					}
					m.rings[target] = s
				})
			}
			tr := e.track(target)
			if err := e.read(t.Context(), tr); err != nil {
				t.Fatal(err)
			}
			if _, err := e.api.KeyInForce(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			err := e.write(t.Context(), tr, tr.snap.Keyring)
			if errors.Is(err, ErrConflict) != (name != "nothing") || (m.rings[target].Version == 1) != (name != "nothing") {
				t.Errorf("%s: %v, version %d", name, err, m.rings[target].Version)
			}
		})
	}
}
