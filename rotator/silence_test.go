package rotator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// still is a clock that stands.
type still struct {
	SystemClock
	moment moment
}

func (s still) Now() time.Time { return s.moment.wall }

func (s still) Steady() time.Duration { return s.moment.steady }

// TestStoreSilence says what counts as a break in what was seen of the store.
func TestStoreSilence(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, c := range map[string]struct {
		wallGap, steadyGap, wallCall, steadyCall time.Duration
		broken                                   bool
	}{
		"one look after another":                    {30 * s, 30 * s, s, s, false},
		"just before the limit":                     {88 * s, 88 * s, 5 * s, 5 * s, false},
		"just beyond it, suspended, a quick answer": {91 * s, 30 * s, s / 10, s / 10, true},
		"just beyond it, set back, a quick answer":  {30 * s, 91 * s, s / 10, s / 10, true},
		"a slow answer":                             {30 * s, 30 * s, 30 * s, 30 * s, false},
		"paused between looks":                      {600 * s, 600 * s, s, s, true},
		"suspended between looks":                   {600 * s, 30 * s, s, s, true},
		"set back between looks":                    {30 * s, 600 * s, s, s, true},
		"set back at all":                           {-10 * s, 30 * s, s, s, true},
		"paused during a look":                      {30 * s, 30 * s, 600 * s, 600 * s, true},
		"suspended during a look":                   {30 * s, 30 * s, 600 * s, s, true},
		"set back during a look":                    {30 * s, 30 * s, s, 600 * s, true},
	} {
		began := moment{t0.Add(c.wallGap), 100*s + c.steadyGap}
		now := moment{began.wall.Add(c.wallCall), began.steady + c.steadyCall}
		e, last := &Engine{policy: tablePolicy, clock: still{moment: now}}, moment{t0, 100 * s}
		e.silences.last = last
		tr := &track{answered: last}
		if got := e.lost(tr, began, 3*probe(tablePolicy.Propagation)) > 0; got != c.broken {
			t.Errorf("%s: broken is %v", name, got)
		}
		for _, answered := range []moment{tr.answered, e.silences.last} {
			if answered.wall.After(began.wall.Add(slowAnswer)) || answered.steady > began.steady+slowAnswer || answered.steady > now.steady || answered.wall.After(now.wall) {
				t.Errorf("%s: the store is taken to have answered at %v of a call from %v to %v", name, answered, began, now)
			}
		}
	}
}

// tardy is a store that needs its time for each answer.
type tardy struct {
	*memory
	takes time.Duration
}

func (s tardy) Read(ctx context.Context, t secrets.Target) (Snapshot, error) {
	time.Sleep(s.takes)
	return s.memory.Read(ctx, t)
}

func (s tardy) Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	time.Sleep(s.takes)
	return s.memory.Write(ctx, t, k, version)
}

// TestSlowStore: a store that is slow delays a rotation, and does not stop it.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	for _, propagation := range []time.Duration{4 * time.Second, 15 * time.Second, time.Minute, 6 * time.Minute} {
		for _, takes := range []time.Duration{time.Second, 4 * time.Second, 8 * time.Second, 20 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				m, target := newMemory(), targets(1)[0]
				m.adoptedKey(target, "value")
				e, _ := engineOn(t, m, "me", nil, nil)
				e.store, e.policy.Propagation = tardy{m, takes}, propagation
				ctx, cancel := context.WithTimeout(t.Context(), 2*propagation+20*takes)
				defer cancel()
				if err := e.Settle(ctx, target, ByCommand); err != nil {
					t.Errorf("propagation %s, answers after %s: %v", propagation, takes, err)
				}
			})
		}
	}
}

// TestBusyReplica: a replica that comes back to a keyring late, because it read others all the time,
// counts a part of the gap and goes on; one that heard nothing meanwhile begins anew.
func TestBusyReplica(t *testing.T) {
	t.Parallel()
	const s, limit, gap = time.Second, 90 * time.Second, 250 * time.Second
	at := func(d time.Duration) moment { return moment{t0.Add(d), 100*s + d} }
	for name, c := range map[string]struct {
		meanwhile func(*Engine)
		lost      time.Duration
	}{
		"it read others all the time": {func(e *Engine) {
			for d := 10 * s; d < gap; d += 10 * s {
				e.silences.longest(func() moment { return at(d) }, at(d), slowAnswer, at(d).steady)
			}
		}, gap - limit},
		"it read others, with a break": {func(e *Engine) {
			for d := 10 * s; d < gap; d += 10 * s {
				if d < 100*s || d > 200*s {
					e.silences.longest(func() moment { return at(d) }, at(d), slowAnswer, at(d).steady)
				}
			}
		}, at(gap).steady},
		"it read nothing": {func(*Engine) {}, at(gap).steady},
	} {
		e := &Engine{policy: tablePolicy, clock: still{moment: at(gap)}}
		e.silences.last = at(0)
		tr := &track{answered: at(0)}
		c.meanwhile(e)
		if got := e.lost(tr, at(gap), limit); got != c.lost {
			t.Errorf("%s: %s of the time do not count, want %s", name, got, c.lost)
		}
	}
	w := watch{key: keyP, since: 10 * s}
	for _, c := range []struct {
		key             secrets.Key
		renewed         int
		lost, now, want time.Duration
	}{{keyP, 0, 0, 20 * s, 10 * s}, {keyP, 0, 5 * s, 30 * s, 15 * s}, {keyP, 0, 40 * s, 40 * s, 40 * s}, {keyC, 0, 0, 50 * s, 50 * s}, {keyC, 0, 0, 60 * s, 50 * s},
		{keyC, 1, 0, 70 * s, 70 * s}, {keyC, 1, 0, 80 * s, 70 * s}} {
		if w.see(c.key, c.renewed, c.lost, c.now); w.since != c.want {
			t.Errorf("%+v: since %s", c, w.since)
		}
	}
}

// TestUnwatched has nobody look at the store while receivers should come to accept the key.
func TestUnwatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tablePolicy.Propagation + time.Second) // the process is paused
		e.Visit(t.Context(), target)
		if m.setCalls(target) != 0 {
			t.Error("a replica that was paused did not begin to count anew")
		}
	})
}

// TestStoreFailsOnce: a store that fails breaks the count, however soon it is back.
func TestStoreFailsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(3 * time.Minute)
		m.change(func() { m.away = true })
		time.Sleep(probe(tablePolicy.Propagation) + time.Second)
		m.change(func() { m.away = false })
		time.Sleep(tablePolicy.Propagation - time.Second)
		if m.setCalls(target) != 0 {
			t.Error("the key was set, and the store had failed since it was written")
		}
		time.Sleep(time.Minute)
		if m.setCalls(target) != 1 {
			t.Error("the key was not set")
		}
	})
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for propagation, want := range map[time.Duration]time.Duration{0: 0, 80 * time.Second: 10 * time.Second, 6 * time.Minute: 30 * time.Second, 24 * time.Hour: 30 * time.Second} {
		if got := probe(propagation); got != want {
			t.Errorf("propagation %s: the store is read every %s, want %s", propagation, got, want)
		}
	}
}

func TestForgetKeepsWhatTheStoreTold(t *testing.T) {
	t.Parallel()
	tr := &track{obs: Observation{Sight: Seen, Key: keyC, At: t0, Since: t0, Previous: map[string]time.Time{"V": t0}, NextPush: t0, NextLook: t0}}
	tr.forget()
	if tr.obs.Sight != Unseen || !tr.obs.Key.IsZero() || !tr.obs.At.IsZero() || !tr.obs.Since.Equal(t0) || tr.obs.Previous["V"] != t0 || !tr.obs.NextPush.IsZero() || !tr.obs.NextLook.IsZero() {
		t.Errorf("%+v", tr.obs)
	}
	if asAPIError(errOther).Class != Doubtful {
		t.Error("an error of another kind is not in doubt")
	}
}

// TestPausesInARow: a process that is paused in several reads in a row does not take that for the
// pace of the store.
func TestPausesInARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		e.store = tardy{m, time.Hour}
		for range 4 {
			if err := e.read(t.Context(), e.track(target)); err != nil {
				t.Fatal(err)
			}
			if counted := e.clock.Steady() - e.track(target).pendingSeen.since; counted > 0 {
				t.Errorf("%s of pauses count", counted)
			}
		}
	})
}

// TestFirstReadCountsNothing, whatever the clock says at that time.
func TestFirstReadCountsNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Duration{0, time.Second, 5 * time.Minute} {
		now := moment{t0.Add(at), at}
		e := &Engine{policy: tablePolicy, clock: still{moment: now}}
		for d := time.Duration(0); d <= at; d += 10 * time.Second { // others were read all the time
			e.silences.longest(func() moment { return moment{t0.Add(d), d} }, moment{t0.Add(d), d}, slowAnswer, d)
		}
		if lost := e.lost(&track{}, now, 90*time.Second); lost != now.steady {
			t.Errorf("at %s: %s do not count", at, lost)
		}
	}
}

// TestLongestSilence at the edges of what is remembered.
func TestLongestSilence(t *testing.T) {
	t.Parallel()
	const s = time.Second
	at := func(wall, steady time.Duration) moment { return moment{t0.Add(wall), steady} }
	longest := func(q *silences, began, now moment, since time.Duration) time.Duration {
		return q.longest(func() moment { return now }, began, slowAnswer, since)
	}

	// The wall clock is set back during a call that was begun before the last answer. Nothing counts up to then; from
	// then on it does, though the clock has not come to where it was.
	q := &silences{last: at(1000*s, 100*s)}
	if got := longest(q, at(985*s, 90*s), at(10*s, 101*s), 100*s); got != allOfIt {
		t.Errorf("%s after the clock was set back", got)
	}
	if got := longest(q, at(31*s, 122*s), at(31*s, 122*s), 121*s); got > 30*s {
		t.Errorf("%s, a moment later", got)
	}

	// Silences are remembered for a day. Before that there may have been one that nobody remembers.
	q = &silences{last: at(silencesKept+s, silencesKept+s)}
	now := at(silencesKept+2*s, silencesKept+2*s)
	if got := longest(q, now, now, 2*s); got > 2*s {
		t.Errorf("%s, of all that is remembered", got)
	}
	if got := longest(q, now, now, s); got != allOfIt {
		t.Errorf("%s, of more than is remembered", got)
	}
}

// TestSilencesAreTold: those of ten seconds are remembered as one, the longest of them, and no others with it.
func TestSilencesAreTold(t *testing.T) {
	t.Parallel()
	const s = time.Second
	at := func(steady time.Duration) moment { return moment{t0.Add(steady), steady} }
	for name, c := range map[string]struct {
		before time.Duration // of the first silence that matters
		calls  []time.Duration
		since  time.Duration
		want   time.Duration // from then to the last call
	}{
		"a short one makes a long one no younger":      {60 * s, []time.Duration{101 * s, 101*s + 10*time.Millisecond}, 101 * s, 10 * time.Millisecond},
		"nor does one of another ten seconds":          {60 * s, []time.Duration{101 * s, 115 * s, 129 * s}, 101 * s, 14 * s},
		"a shorter one does not hide the one before":   {60 * s, []time.Duration{101 * s, 102 * s}, 100 * s, 41 * s},
		"a longer one is not hidden by the one before": {100 * s, []time.Duration{101 * s, 106 * s, 106*s + 10*time.Millisecond}, 100 * s, 5 * s},
	} {
		q := &silences{last: at(c.before)}
		var got time.Duration
		for _, steady := range c.calls {
			now := at(steady)
			got = q.longest(func() moment { return now }, now, slowAnswer, c.since)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	q := &silences{last: at(0)}
	for n := range 5000 {
		now := at(time.Duration(n) * 60 * time.Millisecond)
		q.longest(func() moment { return now }, now, slowAnswer, 0)
	}
	if len(q.long) > 31 {
		t.Errorf("%d silences are remembered of five minutes", len(q.long))
	}
}
