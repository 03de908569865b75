package rotator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestPace: of a wave no more keys are pending than can be set in time, whatever is asked for goes
// first, and all get their key.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, rate = 300, 1.0
		m, e, ts, _ := fleet(t, n, 0, nil)
		e.stageRate = rate
		due := time.Now().Add(time.Hour)
		e.due = func(_ secrets.Target, _ *Keyring, at time.Time) time.Time {
			if at.Before(due) {
				return due
			}
			return time.Time{}
		}
		e.policy.Propagation = time.Minute
		stop := running(e, ts)
		defer stop()
		time.Sleep(time.Until(due) + time.Second)
		pendings := func() (pending, done int) {
			for _, target := range ts {
				switch k := m.keyring(target); {
				case k.Pending() != nil:
					pending++
				case !k.RotatedAt.Before(due):
					done++
				}
			}
			return pending, done
		}
		if pending, _ := pendings(); pending < 5 || pending > 7 {
			t.Errorf("%d keys are pending after a second", pending)
		}
		most := int(rate * (e.policy.Propagation + paceBurst).Seconds())
		reads := 0
		m.change(func() { reads = m.reads })
		time.Sleep(time.Second)
		m.change(func() { reads = m.reads - reads })
		if reads > most {
			t.Errorf("%d reads in a second, by rotations that were put off", reads)
		}
		asked := ts[n-1]
		for _, target := range ts {
			if m.keyring(target).Pending() == nil {
				asked = target
			}
		}
		e.Ask(ByCommand, asked)
		time.Sleep(time.Second)
		if m.keyring(asked).Pending() == nil {
			t.Error("what is asked for is put off")
		}
		for range 20 {
			time.Sleep(time.Minute)
			if pending, _ := pendings(); pending > most+2 {
				t.Errorf("%d keys are pending", pending)
			}
		}
		if pending, done := pendings(); done != n || pending != 0 {
			t.Errorf("after all: %d done, %d pending", done, pending)
		}
		e.Drop(ts...)
	})
}

// TestRoom: rotations begin at this replica's share of the limit, a few at once; who does not need its room
// gives it back.
func TestRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		e.stageRate = 2
		n := int64(0)
		begun := func(tries int) (begun int) {
			for range tries {
				n++
				tr := e.track(secrets.Target{SdkAppID: n, Service: secrets.WhiteboardPush})
				if e.room(tr) {
					begun++
					tr.room = false // it is used
				}
				e.leave(tr)
			}
			return begun
		}
		check := func(what string, want int) {
			t.Helper()
			if got := begun(want + 10); got != want {
				t.Errorf("%s: %d begin, want %d", what, got, want)
			}
		}
		check("of one moment", 10)
		time.Sleep(3 * time.Second)
		check("after three seconds", 6)
		time.Sleep(time.Hour)
		check("after an hour", 10)
		e.replicas = 4
		time.Sleep(4 * time.Second)
		check("one of four replicas, after four seconds", 2)
		time.Sleep(time.Hour)
		check("one of four replicas, after an hour", 2)
		e.stageRate = 0.001
		time.Sleep(24 * time.Hour)
		check("however slow the limit", 1)
		if e.stageRate = 0; !e.room(e.track(codecTarget)) {
			t.Error("without a limit it waits")
		}
	})
}

// TestProceed: what is put off goes on in order as there is room, or after it has waited for long enough; while keys
// wait too long for their turn nothing more begins.
func TestProceed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		e.stageRate = 1
		var l lanes
		for i := range int64(20) {
			tr := e.track(secrets.Target{SdkAppID: i + 1, Service: secrets.WhiteboardPush})
			tr.hold = Room
			e.add(&l, visit{tr, time.Now().Add(time.Hour)})
		}
		went := func(what string, want int, next time.Duration) {
			t.Helper()
			at := e.proceed(&l)
			if got := len(l.lane[0].queue); got != want || at.IsZero() != (next == 0) || (next != 0 && time.Until(at).Round(time.Microsecond) != next) {
				t.Errorf("%s: %d go on, want %d; the next in %s", what, got, want, time.Until(at))
			}
			for _, v := range l.lane[0].queue {
				v.tr.room = false // it is used
			}
			l.lane[0].queue = nil
		}
		went("at first", 5, time.Second+time.Millisecond)
		went("at once after", 0, time.Second+time.Millisecond)
		time.Sleep(time.Second)
		went("a second later", 1, time.Second+time.Millisecond)
		time.Sleep(time.Second)
		l.lane[1].queue = queue{{at: time.Now().Add(-paceSlack - 1)}}
		went("while a key waits for too long", 0, 0)
		l.lane[1].queue[0].at = time.Now().Add(-paceSlack)
		went("while a key waits", 1, time.Second+time.Millisecond)
		if l.hurry(time.Now()); l.putOff[0].at.After(time.Now()) {
			t.Error("the clock was set back, and it waits by the old one")
		}
		went("after long enough", 13, 0)
		l.putOff = []visit{{e.track(codecTarget), time.Now().Add(time.Hour)}}
		time.Sleep(time.Second)
		e.proceed(&l)
		if e.leave(e.track(codecTarget)); e.pace.room != 1 || e.track(codecTarget).room {
			t.Errorf("room that a visit did not need is not given back: %v", e.pace.room)
		}
		if e.leave(e.track(codecTarget)); e.pace.room != 1 {
			t.Error("room is given back twice")
		}
	})
}

// TestLanes: a visit that is to set a key has workers of its own, and what is asked for goes first.
func TestLanes(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(time.Minute)
	ready := func(by time.Duration) *Keyring {
		k := pending().s.Keyring
		k.Keys[1].CreatedAt, k.Keys[1].PushAfter = at.Add(by-tablePolicy.Propagation), at.Add(by)
		return k
	}
	for name, c := range map[string]struct {
		k    *Keyring
		ask  Reason
		lane int
		at   time.Time
	}{
		"settled":                        {settled().s.Keyring, "", 0, at},
		"no keyring":                     {nil, "", 0, at},
		"a key to be read":               {ready(time.Second), "", 0, at},
		"a key to be set":                {ready(0), "", 1, at},
		"a key to be set, and it leaked": {ready(0), ByRevoke, 1, ahead(ByRevoke)},
		"asked for":                      {settled().s.Keyring, ByCommand, 0, ahead(ByCommand)},
	} {
		e, _ := engineOn(t, newMemory(), "me", nil, nil)
		tr := e.track(codecTarget)
		if tr.snap.Keyring = c.k; c.ask != "" {
			e.Ask(c.ask, codecTarget)
		}
		var l lanes
		e.add(&l, visit{tr, at})
		if q := l.lane[c.lane].queue; len(q) != 1 || !q[0].at.Equal(c.at) || len(l.lane[1-c.lane].queue) != 0 {
			t.Errorf("%s: %+v", name, l)
		}
		l = lanes{putOff: []visit{{tr, at}, {e.track(secrets.Target{SdkAppID: 2, Service: secrets.WhiteboardPush}), at}}}
		e.track(secrets.Target{SdkAppID: 2, Service: secrets.WhiteboardPush}).hold = Room
		tr.hold = Room
		if e.expedite(&l); len(l.putOff) != 2 && c.ask == "" || c.ask != "" && (len(l.putOff) != 1 || len(l.lane[c.lane].queue) != 1) {
			t.Errorf("%s, put off: %+v", name, l)
		}
	}
}

// unread is a store that cannot read some keyrings.
type unread struct {
	*memory
	bad map[secrets.Target]bool
}

func (s *unread) Read(ctx context.Context, t secrets.Target) (Snapshot, error) {
	s.mu.Lock()
	bad := s.bad[t]
	s.mu.Unlock()
	if bad {
		return Snapshot{}, errOther
	}
	return s.memory.Read(ctx, t)
}

// TestPaceIsShared: neither pending keys whose keyrings cannot be read any more nor those that are
// pending for half a day keep the others from being replaced.
func TestPaceIsShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		override   *time.Duration
		unreadable bool
	}{"unreadable": {nil, true}, "half a day": {new(12 * time.Hour), false}} {
		synctest.Test(t, func(t *testing.T) {
			const n, blocked, rate = 300, 130, 1.0
			m, e, ts, _ := fleet(t, n, 0, nil)
			e.stageRate = rate
			e.policy.Propagation = time.Minute
			due := time.Now().Add(time.Hour)
			e.due = func(t secrets.Target, _ *Keyring, at time.Time) time.Time {
				first := due
				if t.SdkAppID > blocked {
					first = due.Add(time.Minute)
				}
				if at.Before(first) {
					return first
				}
				return time.Time{}
			}
			s := &unread{memory: m}
			e.store = s
			for _, target := range ts[:blocked] {
				snap := m.rings[target]
				snap.Keyring = snap.Keyring.With(Overrides{Propagation: c.override})
				m.rings[target] = snap
			}
			stop := running(e, ts)
			defer stop()
			time.Sleep(time.Until(due) + 30*time.Second)
			m.change(func() {
				s.bad = map[secrets.Target]bool{}
				for _, target := range ts[:blocked] {
					s.bad[target] = c.unreadable
				}
			})
			time.Sleep(time.Hour)
			for _, target := range ts[blocked:] {
				if m.setCalls(target) != 1 {
					t.Fatalf("%s: %s: %d Set calls", name, target, m.setCalls(target))
				}
			}
		})
	}
}

// TestRoomIsTakenOnce: a target that asks again in one visit takes no more of the room.
func TestRoomIsTakenOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, e, ts, _ := fleet(t, 2, 0, nil)
		e.stageRate = 1
		first, second := e.track(ts[0]), e.track(ts[1])
		time.Sleep(time.Minute) // there is all the room there can be
		for range 10 * int(paceBurst.Seconds()) {
			if !e.room(first) {
				t.Fatal("it had room and has none")
			}
		}
		if !e.room(second) {
			t.Error("one target took the room of all")
		}
	})
}
