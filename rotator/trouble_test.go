package rotator

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// hourly is a schedule that comes every two hours.
func hourly(_ secrets.Target, at time.Time) time.Time { return at.Add(2 * time.Hour) }

// TestClockSetWrong has the machine's clock be far off for a while: nothing is done by it, and
// nothing that was written by it holds the target up afterwards.
func TestClockSetWrong(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"8 h ahead": 8 * time.Hour, "a year ahead": 365 * 24 * time.Hour, "a year behind": -365 * 24 * time.Hour, "6 min ahead": 6 * time.Minute} {
		for when, wait := range map[string]time.Duration{"at start": 0, "while settled": time.Hour, "while a key is pending": 2*time.Hour + 2*time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				m, target := newMemory(), targets(1)[0]
				m.adoptedKey(target, "value")
				m.rings[target].Keyring.RotatedAt = time.Now()
				e, _ := engineOn(t, m, "me", hourly, nil)
				if wait == 0 {
					m.ahead = ahead
				}
				stop := running(e, targets(1))
				defer stop()
				time.Sleep(wait)
				m.change(func() { m.ahead = ahead })
				time.Sleep(5 * time.Minute)
				m.change(func() { m.ahead = 0 })
				sets := m.setCalls(target)
				e.Ask(BySignal, target)
				time.Sleep(15 * time.Minute)
				if got := m.setCalls(target) - sets; got != 1 {
					t.Errorf("%s %s: %d Set calls after the clock was right, asked for: %s", name, when, got, describe(m.keyring(target)))
				}
				time.Sleep(6 * time.Hour)
				k := m.keyring(target)
				if got := m.setCalls(target) - sets; got < 3 || got > 5 || len(k.Keys) > 2+int(tablePolicy.Grace/time.Hour) {
					t.Errorf("%s %s: %d Set calls in the six hours after it: %s", name, when, got, describe(k))
				}
			})
		}
	}
}

// TestBadTimesInTheKeyring are what a version without these guards may have left.
func TestBadTimesInTheKeyring(t *testing.T) {
	t.Parallel()
	far := time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, spoil := range map[string]func(*Keyring){
		"rotated": func(k *Keyring) { k.RotatedAt = far },
		"retry":   func(k *Keyring) { k.Rotation = &Rotation{ID: "r", RetryAt: far, LastError: &Failure{}} },
		"pending": func(k *Keyring) {
			k.Keys = append(k.Keys, Entry{Key: secrets.NewKey("p", "value-p"), State: Pending, PushAfter: far})
			k.Rotation = &Rotation{ID: "r", Owner: "other", LeaseUntil: far, RetryAt: far}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			spoil(m.rings[target].Keyring)
			e, _ := engineOn(t, m, "me", hourly, nil)
			stop := running(e, targets(1))
			time.Sleep(3 * time.Hour)
			stop()
			if k := m.keyring(target); m.setCalls(target) == 0 || k.RotatedAt.Equal(far) || k.Rotation != nil && k.Rotation.RetryAt.Equal(far) {
				t.Errorf("%s: it does not settle: %s", name, describe(k))
			}
		})
	}
}

// TestRestoredStore puts an older store back under a running engine that still had versions
// to destroy: what is there now is not among them.
func TestRestoredStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.noPurge = true
		e, _ := engineOn(t, m, "me", hourly, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(2 * time.Hour)
		backup, err := m.Read(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Hour)
		m.change(func() {
			backup.Keyring.Keys[0].Key = m.rings[target].Keyring.CallbackKey()
			m.rings[target], m.noPurge = backup, false
		})
		time.Sleep(time.Hour)
		m.change(func() {
			for _, v := range m.purges {
				if now := m.rings[target].Version; v > now {
					t.Errorf("versions below %d were to be destroyed, and version %d is there", v, now)
				}
			}
		})
	})
}

// TestKeyringLost has the keyring deleted after Tencent's key changed: what is adopted is what
// Tencent tells then, not what was once seen.
func TestKeyringLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(time.Minute)
		other := secrets.NewKey("", "value-of-somebody-else")
		m.change(func() { m.inForce[target], m.rings[target] = other, Snapshot{Version: 9} })
		time.Sleep(tablePolicy.Reconcile + time.Second)
		if k := m.keyring(target); k == nil || k.Lookup(other) == nil {
			t.Errorf("the key in force is not accepted: %s", describe(k))
		}
	})
}

// TestRevokeBesideALook has a key revoked while another replica, which read the keyring
// before, asks Tencent: the new key is not taken for a foreign one.
func TestRevokeBesideALook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		leaked := m.adoptedKey(target, "value-leaked")
		m.latency = time.Millisecond
		daemon, _ := engineOn(t, m, "daemon", nil, nil)
		command, _ := engineOn(t, m, "command", nil, nil)
		m.onLook = func() {
			if err := command.Settle(context.Background(), target, ByRevoke); err != nil {
				t.Error(err)
			}
		}
		stop := running(daemon, targets(1))
		time.Sleep(time.Minute)
		stop()
		if k := m.keyring(target); m.signing(target).Equal(leaked) || k.Lookup(m.signing(target)) == nil || k.Lookup(leaked) != nil {
			t.Errorf("the leaked key is in force again: %s", describe(k))
		}
	})
}

// TestAskedWhileBarred has the application barred for long, and then not any more: who asks
// need not wait for the next look.
func TestAskedWhileBarred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.lookErrs = refuse(1000, Refused, "ResourceUnavailable.ServiceExpired")
		e, _ := engineOn(t, m, "me", hourly, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(72 * time.Hour)
		looks := 0
		m.change(func() { looks = m.looks })
		if k := m.keyring(target); k.Rotation == nil || !k.Rotation.LastError.Refused || m.setCalls(target) != 0 || looks > 40 {
			t.Errorf("barred: %d looks, %s", looks, describe(k))
		}
		m.change(func() { m.lookErrs = nil })
		e.Ask(BySignal, target)
		time.Sleep(tablePolicy.Propagation + time.Second)
		if m.setCalls(target) != 1 {
			t.Errorf("asked for: %s", describe(m.keyring(target)))
		}
	})
}

// TestDescribeLags has Tencent tell the old key for a while after it set the new one.
func TestDescribeLags(t *testing.T) {
	t.Parallel()
	for lag, most := range map[time.Duration]int{20 * time.Second: 4, 3 * time.Minute: 8} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.lag = lag
			e, _ := engineOn(t, m, "me", nil, nil)
			e.Ask(BySignal, target)
			stop := running(e, targets(1))
			time.Sleep(tablePolicy.Propagation + 3*lag)
			stop()
			if k := m.keyring(target); k.Rotation != nil || m.setCalls(target) > most {
				t.Errorf("lag %s: %d Set calls, %s", lag, m.setCalls(target), describe(k))
			}
		})
	}
	// It never tells: the rotation is given up, and the key that was set stays accepted.
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.lag = 1000 * time.Hour
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		e.Ask(BySignal, target)
		time.Sleep(tablePolicy.Propagation + tablePolicy.AttemptLimit + 10*time.Minute)
		if k := m.keyring(target); k.Pending() != nil || k.Rotation == nil || k.Rotation.LastError.Code != "NotInForce" || k.Lookup(m.signing(target)) == nil {
			t.Errorf("%s", describe(k))
		}
	})
}

// TestPendingThroughDownTime: a key that was never tried is not given up for its age.
func TestPendingThroughDownTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		e, _ := engineOn(t, m, "me", nil, nil)
		if err := e.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		key := m.keyring(target).Pending().Key
		time.Sleep(5 * time.Hour)
		e, _ = engineOn(t, m, "next", nil, nil)
		stop := running(e, targets(1))
		time.Sleep(tablePolicy.Propagation + time.Second)
		stop()
		if !m.signing(target).Equal(key) {
			t.Errorf("%s", describe(m.keyring(target)))
		}
	})
}

// TestManyTargetsSlowStore has more targets than one look at all of them in three probes
// allows: each still gets its key.
func TestManyTargetsSlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(3000)
		for _, target := range ts {
			m.adoptedKey(target, "value-"+target.String())
		}
		m.latency = 2 * time.Second
		e, _ := engineOn(t, m, "me", nil, nil)
		e.Ask(BySignal, ts...)
		stop := running(e, ts)
		time.Sleep(40 * time.Minute)
		stop()
		for _, target := range ts {
			if m.setCalls(target) != 1 {
				t.Fatalf("%s: %d Set calls, %s", target, m.setCalls(target), describe(m.keyring(target)))
			}
		}
	})
}

// TestRotateManyAtOnce settles more targets than are visited at a time.
func TestRotateManyAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, ts := newMemory(), targets(5*maxVisits)
		e, _ := engineOn(t, m, "me", nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), tablePolicy.Propagation+time.Minute)
		defer cancel()
		var group sync.WaitGroup
		for _, target := range ts {
			group.Go(func() {
				if err := e.Settle(ctx, target, ByCommand); err != nil {
					t.Errorf("%s: %v", target, err)
				}
			})
		}
		group.Wait()
	})
}

// TestAnswersAtOnce has the store answer many at the same time, by a real clock: none of them
// is taken for a break.
func TestAnswersAtOnce(t *testing.T) {
	t.Parallel()
	e, _ := engineOn(t, newMemory(), "me", nil, nil)
	e.silences.longest(e.moment, e.moment(), slowAnswer, 0)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20_000 {
				now := e.moment()
				if took := e.silences.longest(e.moment, now, slowAnswer, now.steady); took == allOfIt {
					t.Error("a break")
					return
				}
			}
		})
	}
	group.Wait()
}

// TestShorterPropagation has a replica that was told of quicker receivers than the one that
// wrote the key: it waits as long as that one would.
func TestShorterPropagation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		slow, _ := engineOn(t, m, "slow", nil, nil)
		slow.policy.Propagation = 30 * time.Minute
		if err := slow.Begin(t.Context(), target, ByCommand); err != nil {
			t.Fatal(err)
		}
		quick, _ := engineOn(t, m, "quick", nil, nil)
		stop := running(quick, targets(1))
		defer stop()
		time.Sleep(30*time.Minute - time.Second)
		if m.setCalls(target) != 0 {
			t.Error("it was set before receivers accept it")
		}
		time.Sleep(10 * time.Minute)
		if m.setCalls(target) != 1 {
			t.Errorf("it was never set: %s", describe(m.keyring(target)))
		}
	})
}

// TestClockSetBackDuringALook has the clock corrected while Tencent is asked, which finds a
// foreign key: it is put right at once, not when the clock has caught up.
func TestClockSetBackDuringALook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		ours := m.adoptedKey(target, "value")
		m.latency = time.Millisecond
		m.inForce[target] = secrets.NewKey("", "value-of-somebody-else")
		m.ahead = 4 * time.Hour
		m.onLook = func() { m.change(func() { m.ahead = 0 }) }
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(time.Minute)
		if !m.signing(target).Equal(ours) {
			t.Error("the foreign key is still in force")
		}
	})
}

// TestClockSetRight has a machine start with its clock eight hours ahead and a foreign key in
// force: it is put right when the clock is, though all that was planned is for hours later.
func TestClockSetRight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		ours := m.adoptedKey(target, "value")
		m.latency = time.Millisecond
		m.inForce[target] = secrets.NewKey("", "value-of-somebody-else")
		m.ahead = 8 * time.Hour
		e, _ := engineOn(t, m, "me", nil, nil)
		stop := running(e, targets(1))
		defer stop()
		time.Sleep(3 * time.Minute)
		m.change(func() { m.ahead = 0 })
		time.Sleep(2 * longestSleep)
		if !m.signing(target).Equal(ours) {
			t.Error("the foreign key is still in force")
		}
	})
}

// TestReassertLags has Tencent tell a foreign key for long after ours was set again: it is
// not set over and over.
func TestReassertLags(t *testing.T) {
	t.Parallel()
	for lag, most := range map[time.Duration]int{5 * time.Second: 3, 1000 * time.Hour: 25} {
		synctest.Test(t, func(t *testing.T) {
			m, target := newMemory(), targets(1)[0]
			m.adoptedKey(target, "value")
			m.latency = time.Millisecond
			m.lag = lag
			m.inForce[target] = secrets.NewKey("", "value-of-somebody-else")
			e, log := engineOn(t, m, "me", nil, nil)
			stop := running(e, targets(1))
			time.Sleep(time.Hour)
			stop()
			if n := m.setCalls(target); n == 0 || n > most {
				t.Errorf("lag %s: %d Set calls in an hour", lag, n)
			}
			if strings.Contains(log.String(), "does not settle") {
				t.Errorf("lag %s: it goes round and round", lag)
			}
		})
	}
}

// TestAskedDuringALook asks for a rotation while Tencent refuses to tell anything: what was
// asked for stays.
func TestAskedDuringALook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, target := newMemory(), targets(1)[0]
		m.adoptedKey(target, "value")
		m.lookErrs = refuse(1, Refused, "ResourceUnavailable.ServiceExpired")
		e, _ := engineOn(t, m, "me", func(secrets.Target, time.Time) time.Time { return time.Unix(0, 0) }, nil)
		m.onLook = func() { e.Ask(BySignal, target) }
		stop := running(e, targets(1))
		time.Sleep(tablePolicy.Propagation + time.Minute)
		stop()
		if k := m.keyring(target); m.setCalls(target) != 1 {
			t.Errorf("what was asked for was lost: %s", describe(k))
		}
	})
}
