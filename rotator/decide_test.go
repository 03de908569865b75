package rotator

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

// The table speaks in letters: C current, P pending, V previous, W another previous, F foreign.
var (
	keyC, keyP, keyV, keyF = secrets.NewKey("C", "value-c"), secrets.NewKey("P", "value-p"), secrets.NewKey("V", "value-v"), secrets.NewKey("", "value-f")
	t0                     = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

func minute(n int) time.Time { return t0.Add(time.Duration(n) * time.Minute) }

var tablePolicy = Policy{Propagation: 6 * time.Minute, Grace: time.Hour, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
	KeyLength: 64, OnDrift: Reassert, Owner: "me", Timing: StandardTiming()}

// situation is a keyring and what is known, changed by each row of the table.
type situation struct {
	s Snapshot
	o Observation
	w Wish
	p Policy
}

// settled has C in force since long, and was looked at just now.
func settled() *situation {
	return &situation{p: tablePolicy,
		s: Snapshot{Version: 5, Written: minute(-600), Keyring: &Keyring{Target: codecTarget, RotatedAt: minute(-600),
			Keys: []Entry{{Key: keyC, State: Current, CreatedAt: minute(-600), ActivatedAt: minute(-600), Confirmed: true}}}},
		o: Observation{Sight: Seen, Key: keyC, At: t0}, w: Wish{Due: minute(100)}}
}

// pending adds P, which every receiver accepts by now, and a rotation that is ours.
func pending() *situation {
	c := settled()
	c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyP, State: Pending, CreatedAt: minute(-7), PushAfter: minute(-1)})
	c.s.Keyring.Rotation = &Rotation{ID: "r", Reason: BySchedule, StartedAt: minute(-7), Owner: "me", LeaseUntil: minute(1)}
	c.o.Since = minute(-7)
	return c
}

// previous adds V, whose time is over.
func previous() *situation {
	c := settled()
	c.s.Written = minute(-61)
	c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, ActivatedAt: minute(-900), AcceptUntil: minute(-1)})
	return c
}

func (c *situation) with(change func(*situation)) *situation { change(c); return c }

// first is an application that never had a key.
func first() *situation {
	return settled().with(func(c *situation) {
		c.s.Keyring.Keys, c.s.Keyring.AcceptUnsigned, c.s.Keyring.RotatedAt = nil, true, time.Time{}
		c.o.Key, c.w.Due = secrets.Key{}, time.Unix(0, 0)
	})
}

func (c situation) facts() *facts {
	f := derive(c.s, c.o, t0, c.w, &c.p)
	return &f
}

func TestDecide(t *testing.T) {
	t.Parallel()
	type row struct {
		name string
		c    *situation
		want Step
		till time.Time
	}
	set := func(c *situation, f func(*situation)) *situation { return c.with(f) }
	told := func(c *situation, own *time.Duration) *situation {
		c.p.PropagationSet, c.s.Keyring.Overrides = true, &Overrides{Paused: true, Propagation: own}
		return c
	}
	for _, r := range []row{
		{"no keyring, not looked", set(settled(), func(c *situation) { c.s.Keyring, c.o = nil, Observation{} }), StepObserve, time.Time{}},
		{"no keyring, looked", set(settled(), func(c *situation) { c.s.Keyring = nil }), StepAdopt, time.Time{}},
		{"no keyring, unsigned", set(settled(), func(c *situation) { c.s.Keyring, c.o.Key = nil, secrets.Key{} }), StepAdopt, time.Time{}},
		{"no keyring, forbidden to look: never adopted blindly", set(settled(), func(c *situation) { c.s.Keyring, c.o.Sight, c.o.NextLook = nil, Forbidden, minute(5) }), StepWait, minute(5)},

		{"the keyring says nothing of its receivers", told(settled(), nil), StepRaise, time.Time{}},
		{"it says that they need less", told(settled(), new(time.Minute)), StepRaise, time.Time{}},
		{"it says that they need as long", told(settled(), new(6*time.Minute)), StepWait, minute(10)},
		{"it says that they need longer", told(settled(), new(time.Hour)), StepWait, minute(10)},
		{"it says nothing, and a key is due", told(set(settled(), func(c *situation) { c.w.Due = minute(0) }), nil), StepRaise, time.Time{}},
		{"it says nothing, and a key is pending", told(pending(), nil), StepRaise, time.Time{}},
		{"it says nothing, and a key is to be revoked", told(set(pending(), func(c *situation) { c.w.Asked = ByRevoke }), nil), StepRaise, time.Time{}},
		{"it says nothing, and was changed by hand", told(set(settled(), func(c *situation) { c.s.Keyring.Edited = true }), nil), StepRestore, time.Time{}},
		{"it says nothing, and nobody set it here", set(settled(), func(c *situation) { c.s.Keyring.Overrides = nil }), StepWait, minute(10)},

		{"settled", settled(), StepWait, minute(10)},
		{"settled, not looked", set(settled(), func(c *situation) { c.o = Observation{} }), StepObserve, minute(100)},
		{"settled, forgotten a moment ago", set(settled(), func(c *situation) { c.o = Observation{At: t0} }), StepObserve, minute(100)},
		{"settled, time to look", set(settled(), func(c *situation) { c.o.At = minute(-10) }), StepObserve, minute(100)},
		{"settled, due before the next look", set(settled(), func(c *situation) { c.w.Due = minute(3) }), StepWait, minute(3)},
		{"settled, no schedule", set(settled(), func(c *situation) { c.w.Due = time.Time{} }), StepWait, minute(10)},
		{"settled, no answer", set(settled(), func(c *situation) { c.o.Sight, c.o.NextLook = Unanswered, minute(2) }), StepWait, minute(2)},
		{"settled, no answer, again", set(settled(), func(c *situation) { c.o.Sight, c.o.NextLook = Unanswered, minute(0) }), StepObserve, minute(100)},
		{"settled, barred", set(settled(), func(c *situation) { c.o.Sight, c.o.NextLook = Barred, minute(40) }), StepWait, minute(40)},
		{"settled, forbidden", set(settled(), func(c *situation) { c.o.Sight, c.o.NextLook = Forbidden, minute(5) }), StepWait, minute(10)},

		{"due", set(settled(), func(c *situation) { c.w.Due = minute(0) }), StepStage, time.Time{}},
		{"asked", set(settled(), func(c *situation) { c.w.Asked = BySignal }), StepStage, time.Time{}},
		{"due, not looked", set(settled(), func(c *situation) { c.w.Due, c.o = minute(0), Observation{} }), StepObserve, time.Time{}},
		{"due, no answer", set(settled(), func(c *situation) { c.w.Due, c.o.Sight, c.o.NextLook = minute(0), Unanswered, minute(1) }), StepWait, minute(1)},
		{"due, barred", set(settled(), func(c *situation) { c.w.Due, c.o.Sight, c.o.NextLook = minute(0), Barred, minute(1) }), StepWait, minute(1)},
		{"due, forbidden to look", set(settled(), func(c *situation) { c.w.Due, c.o.Sight = minute(0), Forbidden }), StepStage, time.Time{}},
		{"first key", first(), StepStage, time.Time{}},
		{"no key yet, a key was seen once, and the look forgotten", set(first(), func(c *situation) { c.w.Due, c.o.Sight, c.o.Key = minute(100), Unseen, keyF }), StepObserve, minute(100)},
		{"no current key, and an old one whose time is over", set(first(), func(c *situation) {
			c.s.Keyring.Keys, c.w.Due = []Entry{{Key: keyV, State: Previous, ActivatedAt: minute(-900), AcceptUntil: minute(-100)}}, time.Time{}
		}), StepWait, minute(10)},
		{"the pending key was seen in force, and the look forgotten", set(pending(), func(c *situation) { c.o.Sight, c.o.Key = Unseen, keyP }), StepObserve, time.Time{}},
		{"failed before, too early", set(settled(), func(c *situation) { c.w.Due, c.s.Keyring.Rotation = minute(-5), &Rotation{RetryAt: minute(4)} }), StepWait, minute(4)},
		{"failed before, asked", set(settled(), func(c *situation) { c.w.Asked, c.s.Keyring.Rotation = ByCommand, &Rotation{RetryAt: minute(4)} }), StepStage, time.Time{}},
		{"failed before, time to retry", set(settled(), func(c *situation) { c.s.Keyring.Rotation = &Rotation{RetryAt: minute(0)} }), StepStage, time.Time{}},

		{"foreign key", set(settled(), func(c *situation) { c.o.Key = keyF }), StepReassert, time.Time{}},
		{"foreign key goes before what is due", set(settled(), func(c *situation) { c.o.Key, c.w.Due = keyF, minute(0) }), StepReassert, time.Time{}},
		{"foreign key, asked for a new one", set(settled(), func(c *situation) { c.o.Key, c.w.Asked = keyF, ByCommand }), StepStage, time.Time{}},
		{"foreign key, to be adopted, and a key is revoked", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift, c.w.Asked = keyF, AdoptKey, ByRevoke }), StepStage, time.Time{}},
		{"foreign key that could not be put right, and a key is revoked", set(settled(), func(c *situation) { c.o.Key, c.o.NextPush, c.w.Asked = keyF, minute(5), ByRevoke }), StepStage, time.Time{}},
		{"foreign key, after a failure", set(settled(), func(c *situation) { c.o.Key, c.o.NextPush = keyF, minute(1) }), StepWait, minute(1)},
		{"foreign key, contested", set(settled(), func(c *situation) { c.o.Key, c.o.NextPutBack = keyF, minute(5) }), StepWait, minute(5)},
		{"foreign key, contested, time to put ours back", set(settled(), func(c *situation) { c.o.Key, c.o.NextPutBack = keyF, minute(0) }), StepReassert, time.Time{}},
		{"foreign key, contested, asked for a new one", set(settled(), func(c *situation) { c.o.Key, c.o.NextPutBack, c.w.Asked = keyF, minute(5), ByCommand }), StepStage, time.Time{}},
		{"foreign key, contested, and a key is revoked", set(settled(), func(c *situation) { c.o.Key, c.o.NextPutBack, c.w.Asked = keyF, minute(5), ByRevoke }), StepStage, time.Time{}},
		{"foreign key, adopt, contested", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift, c.o.NextPutBack = keyF, AdoptKey, minute(5) }), StepAdopt, time.Time{}},
		{"foreign key, adopt", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift = keyF, AdoptKey }), StepAdopt, time.Time{}},
		{"foreign key, alarm", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift = keyF, AlarmOnly }), StepWait, minute(10)},
		{"foreign key, alarm, due", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift, c.w.Due = keyF, AlarmOnly, minute(0) }), StepStage, time.Time{}},
		{"key deleted", set(settled(), func(c *situation) { c.o.Key = secrets.Key{} }), StepReassert, time.Time{}},
		{"key deleted, adopt", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift = secrets.Key{}, AdoptKey }), StepReassert, time.Time{}},
		{"key deleted, alarm", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift = secrets.Key{}, AlarmOnly }), StepWait, minute(10)},
		{"previous key in force: never dropped, put right", set(previous(), func(c *situation) { c.o.Key = keyV }), StepReassert, time.Time{}},
		{"previous key in force, alarm: put right all the same", set(previous(), func(c *situation) { c.o.Key, c.p.OnDrift = keyV, AlarmOnly }), StepReassert, time.Time{}},
		{"current key adopted a moment ago", set(previous(), func(c *situation) { c.o.Key, c.s.Keyring.Keys[0].PushAfter, c.s.Written = keyV, minute(3), minute(-6) }), StepWait, minute(3)},
		{"current key adopted a moment ago, asked for a new one", set(previous(), func(c *situation) {
			c.o.Key, c.s.Keyring.Keys[0].PushAfter, c.s.Written, c.w.Asked = keyV, minute(3), minute(-6), ByRevoke
		}), StepStage, time.Time{}},
		{"current key adopted with a clock far ahead", set(previous(), func(c *situation) {
			c.o.Key, c.s.Keyring.Keys[0].PushAfter, c.s.Written = keyV, minute(9999), minute(-6)
		}), StepWait, minute(3)},
		{"current key adopted, found by this replica not long enough", set(previous(), func(c *situation) {
			c.o.Key, c.o.CurrentSince = keyV, minute(-4)
			c.s.Keyring.Keys[0].CreatedAt, c.s.Keyring.Keys[0].ActivatedAt, c.s.Keyring.Keys[0].PushAfter = minute(-61), minute(-61), minute(-52)
		}), StepWait, minute(5)},
		{"current key adopted, found long enough", set(previous(), func(c *situation) {
			c.o.Key, c.o.CurrentSince = keyV, minute(-9)
			c.s.Keyring.Keys[0].CreatedAt, c.s.Keyring.Keys[0].ActivatedAt, c.s.Keyring.Keys[0].PushAfter = minute(-61), minute(-61), minute(-52)
		}), StepReassert, time.Time{}},
		{"a key where there was none", set(first(), func(c *situation) { c.o.Key = keyF }), StepAdopt, time.Time{}},

		{"pending, a foreign key, and a key is revoked: that goes first", set(pending(), func(c *situation) {
			c.o.Key, c.o.Since, c.w.Asked, c.s.Keyring.Keys[1].PushAfter = keyF, minute(-1), ByRevoke, minute(3)
		}), StepHasten, time.Time{}},
		{"pending, a foreign key to be left alone, and an old key's time is over", set(pending(), func(c *situation) {
			c.o.Key, c.p.OnDrift, c.o.Since, c.s.Keyring.Keys[1].PushAfter = keyF, AlarmOnly, minute(-1), minute(3)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, ActivatedAt: minute(-900), AcceptUntil: minute(-1)})
		}), StepWait, minute(9)},
		{"retire", previous(), StepRetire, time.Time{}},
		{"retire: before its time", set(previous(), func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil = minute(2) }), StepWait, minute(2)},
		{"retire: long before its time", set(previous(), func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil, c.s.Written = minute(20), minute(-10) }), StepWait, minute(10)},
		{"retire: the look is older than its end", set(previous(), func(c *situation) { c.o.At = minute(-2) }), StepObserve, minute(100)},
		{"retire: foreign key in force", set(previous(), func(c *situation) { c.o.Key, c.p.OnDrift = keyF, AlarmOnly }), StepWait, minute(10)},
		{"retire: not looked", set(previous(), func(c *situation) { c.o = Observation{} }), StepObserve, minute(100)},
		{"retire: no answer", set(previous(), func(c *situation) { c.o.Sight, c.o.NextLook = Unanswered, minute(1) }), StepWait, minute(1)},
		{"retire: barred", set(previous(), func(c *situation) { c.o.Sight, c.o.NextLook = Barred, minute(1) }), StepWait, minute(1)},
		{"retire: forbidden to look, set it instead", set(previous(), func(c *situation) { c.o.Sight = Forbidden }), StepReassert, time.Time{}},
		{"retire: forbidden, looked too early", set(previous(), func(c *situation) { c.o.Sight, c.o.At = Forbidden, minute(-2) }), StepObserve, minute(100)},
		{"retire: forbidden, contested", set(previous(), func(c *situation) { c.o.Sight, c.o.NextPutBack = Forbidden, minute(1) }), StepReassert, time.Time{}},
		{"retire: forbidden, after a failure", set(previous(), func(c *situation) { c.o.Sight, c.o.NextPush = Forbidden, minute(1) }), StepWait, minute(1)},
		{"retire: replaced a moment ago by the store's clock", set(previous(), func(c *situation) { c.s.Written = minute(-3) }), StepWait, minute(7)},
		{"retire: but seen replaced long ago", set(previous(), func(c *situation) { c.s.Written, c.o.Previous = minute(-3), map[string]time.Time{"V": minute(-10)} }), StepRetire, time.Time{}},
		{"retire: seen replaced not long enough", set(previous(), func(c *situation) { c.s.Written, c.o.Previous = minute(-3), map[string]time.Time{"V": minute(-8)} }), StepWait, minute(2)},
		{"retire waits, what is due does not", set(previous(), func(c *situation) { c.s.Written, c.w.Due = minute(-3), minute(0) }), StepStage, time.Time{}},

		{"pending, ready", pending(), StepPush, time.Time{}},
		{"pending in force", set(pending(), func(c *situation) { c.o.Key = keyP }), StepCommit, time.Time{}},
		{"pending in force before its time", set(pending(), func(c *situation) { c.o.Key, c.s.Keyring.Keys[1].PushAfter = keyP, minute(3) }), StepCommit, time.Time{}},
		{"pending in force, another's", set(pending(), func(c *situation) { c.o.Key, c.s.Keyring.Rotation.Owner = keyP, "other" }), StepCommit, time.Time{}},
		{"pending, before its time", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter = minute(3) }), StepWait, minute(3)},
		{"pending, found by this replica not long enough", set(pending(), func(c *situation) { c.o.Since = minute(-4) }), StepWait, minute(2)},
		{"pending, on resume", set(pending(), func(c *situation) { c.o = Observation{Since: minute(-7)} }), StepObserve, time.Time{}},
		{"pending, on resume before its time", set(pending(), func(c *situation) { c.o, c.s.Keyring.Keys[1].PushAfter = Observation{Since: minute(-7)}, minute(3) }), StepObserve, time.Time{}},
		{"pending, no answer", set(pending(), func(c *situation) { c.o.Sight, c.o.NextLook = Unanswered, minute(1) }), StepWait, minute(1)},
		{"pending, no answer, again", set(pending(), func(c *situation) { c.o.Sight = Unanswered }), StepObserve, time.Time{}},
		{"pending, barred: Set gives its own answer", set(pending(), func(c *situation) { c.o.Sight = Barred }), StepPush, time.Time{}},
		{"pending, forbidden to look", set(pending(), func(c *situation) { c.o.Sight = Forbidden }), StepPush, time.Time{}},
		{"pending, to be retried", set(pending(), func(c *situation) { c.s.Keyring.Rotation.RetryAt = minute(2) }), StepWait, minute(2)},
		{"pending, to be retried, by memory", set(pending(), func(c *situation) { c.o.NextPush = minute(2) }), StepWait, minute(2)},
		{"pending, foreign key in force", set(pending(), func(c *situation) { c.o.Key = keyF }), StepPush, time.Time{}},
		{"pending, contested", set(pending(), func(c *situation) { c.o.Key, c.o.NextPutBack = keyF, minute(5) }), StepPush, time.Time{}},
		{"pending not ready, contested", set(pending(), func(c *situation) {
			c.o.Key, c.o.NextPutBack, c.s.Keyring.Keys[1].PushAfter = keyF, minute(5), minute(3)
		}), StepWait, minute(3)},
		{"revoked by a clock ahead, contested", set(pending(), func(c *situation) {
			c.o.Key, c.o.NextPutBack, c.s.Keyring.Keys[1].PushAfter, c.s.Keyring.Rotation.Reason = keyF, minute(5), minute(1), ByRevoke
		}), StepWait, minute(1)},
		{"pending not ready, foreign key in force", set(pending(), func(c *situation) { c.o.Key, c.s.Keyring.Keys[1].PushAfter = keyF, minute(3) }), StepReassert, time.Time{}},
		{"pending not ready, a key to retire", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter = minute(3)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: minute(-1)})
		}), StepRetire, time.Time{}},
		{"pending not ready, a key to retire later", set(pending(), func(c *situation) {
			c.s.Written, c.s.Keyring.Keys[1].PushAfter = minute(-1), minute(3)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: minute(-1)})
		}), StepWait, minute(3)},
		{"pending, refused", set(pending(), func(c *situation) { c.o.Refused = keyP }), StepRollback, time.Time{}},
		{"pending, an earlier key was refused", set(pending(), func(c *situation) { c.o.Refused = keyV }), StepPush, time.Time{}},
		{"pending, tried long enough", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter, c.s.Keyring.Rotation.LastError = minute(-60), &Failure{}
		}), StepRollback, time.Time{}},
		{"pending since long, never tried", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter = minute(-600) }), StepPush, time.Time{}},
		{"pending, tried almost long enough", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter, c.s.Keyring.Rotation.LastError = minute(-59), &Failure{}
		}), StepPush, time.Time{}},
		{"pending, tried long enough, but not looked", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter, c.o.Sight = minute(-60), Unseen }), StepObserve, time.Time{}},
		{"pending, tried long enough, in force after all", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter, c.o.Key = minute(-60), keyP }), StepCommit, time.Time{}},
		{"pending, tried long enough, no answer", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter, c.o.Sight, c.s.Keyring.Rotation.LastError = minute(-60), Unanswered, &Failure{}
		}), StepRollback, time.Time{}},
		{"pending, another's", set(pending(), func(c *situation) { c.s.Keyring.Rotation.Owner = "other" }), StepWait, minute(1)},
		{"pending, another's that went away", set(pending(), func(c *situation) { c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = "other", minute(0) }), StepClaim, time.Time{}},

		{"a clock far ahead wrote when to push", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter = minute(9999) }), StepPush, time.Time{}},
		{"a clock far ahead wrote the lease", set(pending(), func(c *situation) {
			c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = "other", minute(9999)
		}), StepClaim, time.Time{}},
		{"a clock far ahead wrote when to go on", set(pending(), func(c *situation) { c.s.Keyring.Rotation.RetryAt = minute(9999) }), StepPush, time.Time{}},
		{"a clock far ahead wrote when to try again", set(settled(), func(c *situation) { c.s.Keyring.Rotation = &Rotation{RetryAt: minute(9999)} }), StepStage, time.Time{}},
		{"a clock far ahead wrote how long a key is accepted", set(previous(), func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil, c.s.Written = minute(9999), minute(-63) }), StepRetire, time.Time{}},
		{"not long enough by the store's clock", set(previous(), func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil, c.s.Written = minute(9999), minute(-62) }), StepWait, minute(1)},
		{"no keyring, looked long ago", set(settled(), func(c *situation) { c.s.Keyring, c.o.At = nil, minute(-3) }), StepObserve, time.Time{}},
		{"foreign key, adopt, looked long ago", set(settled(), func(c *situation) { c.o.Key, c.p.OnDrift, c.o.At = keyF, AdoptKey, minute(-3) }), StepObserve, time.Time{}},
		{"asked, looked long ago", set(settled(), func(c *situation) { c.w.Asked, c.o.At = BySignal, minute(-21) }), StepObserve, time.Time{}},

		{"previous key in force, adopt: put right all the same", set(previous(), func(c *situation) { c.o.Key, c.p.OnDrift = keyV, AdoptKey }), StepReassert, time.Time{}},
		{"revoking already, asked again: hastened once", set(pending(), func(c *situation) { c.w.Asked, c.s.Keyring.Rotation.Reason = ByRevoke, ByRevoke }), StepPush, time.Time{}},
		{"pending, written a moment ago", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter = minute(6) }), StepWait, minute(6)},
		{"pending, written a moment ago by a clock somewhat ahead", set(pending(), func(c *situation) { c.s.Keyring.Keys[1].PushAfter = minute(8) }), StepWait, minute(8)},
		{"pending, another's, leased through its longest pause", set(pending(), func(c *situation) {
			c.p.Propagation, c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = 0, "other", minute(8)
		}), StepWait, minute(8)},
		{"pending, another's, leased through a long propagation", set(pending(), func(c *situation) {
			c.p.Propagation, c.o.Since, c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = 30*time.Minute, minute(-30), "other", minute(20)
		}), StepWait, minute(20)},
		{"pending, to be retried after the longest pause", set(pending(), func(c *situation) { c.s.Keyring.Rotation.RetryAt = minute(6) }), StepWait, minute(6)},
		{"asked, looked two reconciles ago", set(settled(), func(c *situation) { c.w.Asked, c.o.At = BySignal, minute(-20) }), StepStage, time.Time{}},
		{"what is to be retired goes before what is due", set(previous(), func(c *situation) { c.w.Due = minute(0) }), StepRetire, time.Time{}},
		{"settled, forbidden, due before the next look", set(settled(), func(c *situation) {
			c.o.Sight, c.o.At, c.o.NextLook, c.w.Due = Forbidden, minute(-10), minute(5), minute(3)
		}), StepWait, minute(3)},
		{"retire: the one whose time was over first", set(previous(), func(c *situation) {
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: secrets.NewKey("W", "value-w"), State: Previous, AcceptUntil: minute(-5)})
			c.o.At = minute(-3)
		}), StepRetire, time.Time{}},
		{"retire: forbidden, and there is no current key: nothing is set", set(previous(), func(c *situation) {
			c.s.Keyring.Keys, c.s.Keyring.AcceptUnsigned = c.s.Keyring.Keys[1:], true
			c.o.Sight, c.o.NextLook = Forbidden, minute(5)
		}), StepWait, minute(5)},
		{"pending not ready, a key to retire, looked before its end", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].PushAfter, c.o.At, c.s.Written = minute(3), minute(-2), minute(-61)
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: keyV, State: Previous, AcceptUntil: minute(-1)})
		}), StepObserve, time.Time{}},
		{"retire: a grace that is shorter than a rollback's", set(previous(), func(c *situation) {
			c.p.Grace, c.s.Keyring.Keys[1].AcceptUntil, c.s.Written = time.Minute, minute(9999), minute(-12)
		}), StepWait, minute(1)},
		{"retire: the store tells no time, and nothing was seen", set(previous(), func(c *situation) { c.s.Written = time.Time{} }), StepWait, minute(10)},
		{"retire: the store tells no time, seen not long enough", set(previous(), func(c *situation) {
			c.s.Written, c.o.Previous = time.Time{}, map[string]time.Time{"V": minute(-8)}
		}), StepWait, minute(2)},
		{"retire: written long ago, seen a moment ago", set(previous(), func(c *situation) { c.o.Previous = map[string]time.Time{"V": minute(-1)} }), StepRetire, time.Time{}},

		{"settled, barred for less than a reconcile", set(settled(), func(c *situation) { c.o.Sight, c.o.NextLook = Barred, minute(4) }), StepWait, minute(4)},
		{"current key adopted a moment ago, and the store tells no time", set(previous(), func(c *situation) {
			c.o.Key, c.o.CurrentSince, c.s.Written = keyV, minute(-10), time.Time{}
			c.s.Keyring.Keys[0].CreatedAt, c.s.Keyring.Keys[0].PushAfter = minute(-3), minute(3)
		}), StepWait, minute(3)},
		{"pending, written a moment ago by a clock ahead", set(pending(), func(c *situation) {
			c.s.Keyring.Keys[1].CreatedAt, c.s.Keyring.Keys[1].PushAfter = minute(2), minute(8)
		}), StepWait, minute(8)},
		{"pending, another's, leased through its longest pause, no propagation", set(pending(), func(c *situation) {
			c.p.Propagation, c.s.Keyring.Keys[1].CreatedAt = 0, minute(-1)
			c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = "other", minute(8)
		}), StepWait, minute(8)},
		{"pending, another's, leased by a clock ahead", set(pending(), func(c *situation) {
			c.s.Keyring.Rotation.Owner, c.s.Keyring.Rotation.LeaseUntil = "other", minute(11)
		}), StepWait, minute(11)},
		{"retire: replaced a moment ago, due before that is proven", set(previous(), func(c *situation) { c.s.Written, c.w.Due = t0, minute(3) }), StepWait, minute(3)},
		{"retire: replaced a moment ago, one before the other", set(previous(), func(c *situation) {
			c.s.Written = time.Time{}
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: secrets.NewKey("W", "value-w"), State: Previous, AcceptUntil: minute(-1)})
			c.o.Previous = map[string]time.Time{"V": minute(-8), "W": minute(-5)}
		}), StepWait, minute(2)},
		{"retire: the one whose time was over first, whichever stands first", set(previous(), func(c *situation) {
			c.s.Keyring.Keys = append(c.s.Keyring.Keys, Entry{Key: secrets.NewKey("W", "value-w"), State: Previous, AcceptUntil: minute(-1)})
			c.s.Keyring.Keys[1].AcceptUntil, c.o.At = minute(-5), minute(-3)
		}), StepRetire, time.Time{}},
		{"retire: forbidden, and the current key was adopted a moment ago", set(previous(), func(c *situation) {
			c.o.Sight, c.o.CurrentSince = Forbidden, minute(-4)
			c.s.Keyring.Keys[0].CreatedAt, c.s.Keyring.Keys[0].ActivatedAt, c.s.Keyring.Keys[0].PushAfter = minute(-61), minute(-61), minute(-52)
		}), StepWait, minute(5)},

		{"revoke", set(pending(), func(c *situation) { c.w.Asked = ByRevoke }), StepHasten, time.Time{}},
		{"revoke, not ready", set(pending(), func(c *situation) { c.w.Asked, c.s.Keyring.Keys[1].PushAfter = ByRevoke, minute(3) }), StepHasten, time.Time{}},
		{"revoking waits for nobody", set(pending(), func(c *situation) { c.s.Keyring.Rotation.Reason, c.o.Since = ByRevoke, t0 }), StepPush, time.Time{}},
	} {
		before := fmt.Sprintf("%+v %+v", r.c.s.Keyring, r.c.o)
		a := Decide(r.c.s, r.c.o, t0, r.c.w, &r.c.p)
		if a.Step != r.want || !a.Until.Equal(r.till) {
			t.Errorf("%s: %s until %s (%s), want %s until %s", r.name, a.Step, a.Until.Sub(t0), a.Why, r.want, r.till.Sub(t0))
		}
		if idle := a.Step == StepObserve && !a.Until.IsZero(); a.Idle != idle {
			t.Errorf("%s: that it can wait: %t", r.name, a.Idle)
		}
		if a.Why == "" {
			t.Errorf("%s: there is no reason", r.name)
		}
		if after := fmt.Sprintf("%+v %+v", r.c.s.Keyring, r.c.o); after != before {
			t.Errorf("%s: Decide changed what it was given", r.name)
		}
	}
}

// TestDecideHolds: a rotation that nobody asked for waits for room, and a look that can wait for its turn; nothing
// else does. At rest it says so.
func TestDecideHolds(t *testing.T) {
	t.Parallel()
	held := func(c *situation) *situation {
		return c.with(func(c *situation) { c.w.Full, c.w.InLine = true, true })
	}
	due := func(c *situation) { c.w.Due = minute(-1) }
	for name, c := range map[string]struct {
		c    *situation
		want Step
		hold Hold
		till time.Time
	}{
		"at rest":                      {held(settled()), StepWait, Rest, minute(10)},
		"due":                          {held(settled()).with(due), StepWait, Room, minute(10)},
		"due, and there is room":       {settled().with(due), StepStage, Moment, time.Time{}},
		"asked for":                    {held(settled()).with(func(c *situation) { c.w.Asked = ByCommand }), StepStage, Moment, time.Time{}},
		"due, not looked":              {held(settled()).with(due).with(func(c *situation) { c.o = Observation{} }), StepObserve, Moment, time.Time{}},
		"not looked":                   {held(settled()).with(func(c *situation) { c.o = Observation{} }), StepWait, Turn, minute(100)},
		"not looked, never due":        {held(settled()).with(func(c *situation) { c.o, c.w.Due = Observation{}, time.Time{} }), StepWait, Turn, time.Time{}},
		"time to look":                 {held(settled()).with(func(c *situation) { c.o.At = minute(-10) }), StepWait, Turn, minute(100)},
		"an old key is to go":          {held(previous()).with(func(c *situation) { c.o.At = minute(-2) }), StepWait, Turn, minute(100)},
		"an old key goes":              {held(previous()), StepRetire, Moment, time.Time{}},
		"a key is to be set":           {held(pending()), StepPush, Moment, time.Time{}},
		"a key is pending, not looked": {held(pending()).with(func(c *situation) { c.o = Observation{Since: minute(-7)} }), StepObserve, Moment, time.Time{}},
		"receivers come to accept it":  {held(pending()).with(func(c *situation) { c.o.Since = minute(-5) }), StepWait, Moment, minute(1)},
		"a foreign key is in force":    {held(settled()).with(func(c *situation) { c.o.Key = keyF }), StepReassert, Moment, time.Time{}},
	} {
		if a := Decide(c.c.s, c.c.o, t0, c.c.w, &c.c.p); a.Step != c.want || a.Hold != c.hold || !a.Until.Equal(c.till) {
			t.Errorf("%s: %s for %d until %s (%s), want %s for %d until %s", name, a.Step, a.Hold, a.Until, a.Why, c.want, c.hold, c.till)
		}
	}
}

// TestPhases: each phase is told, and a key that is ready is one to be set.
func TestPhases(t *testing.T) {
	t.Parallel()
	for want, c := range map[Phase]*situation{
		Unadopted: settled().with(func(c *situation) { c.s.Keyring = nil }), Unsigned: first(), Settled: settled(),
		Waiting: pending().with(func(c *situation) { c.o.Since = minute(-5) }), Pushing: pending(),
		RolledBack: settled().with(func(c *situation) { c.s.Keyring.Rotation = &Rotation{} }),
	} {
		if got := c.facts().phase; got != want || !slices.Contains(Phases(), got) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, s := range []Standing{{Read: true, Phase: Waiting, ReadyAt: t0}, {Read: true, Phase: Settled}, {}} {
		before, at := s.PhaseAt(t0.Add(-1)), s.PhaseAt(t0)
		if want := cmp.Or(s.Phase, Unread); before != want || (at == Pushing) != (s.Phase == Waiting) {
			t.Errorf("%s: %s, then %s", s.Phase, before, at)
		}
	}
}

// TestDecideTellsWhose: an operator has to know whether a hand that is not ours was at work.
func TestDecideTellsWhose(t *testing.T) {
	t.Parallel()
	for why, key := range map[string]secrets.Key{"a late request brought an older key back": keyV, "a foreign key, or none, is in force": keyF} {
		c := previous()
		c.o.Key = key
		if a := Decide(c.s, c.o, t0, c.w, &c.p); a.Why != why {
			t.Errorf("%s: %q, want %q", key, a.Why, why)
		}
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	c := previous().with(func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil = minute(30) })
	if n := testing.AllocsPerRun(100, func() { Decide(c.s, c.o, t0, c.w, &c.p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecideSettled(b *testing.B) {
	c := previous().with(func(c *situation) { c.s.Keyring.Keys[1].AcceptUntil = minute(30) })
	b.ReportAllocs()
	for b.Loop() {
		Decide(c.s, c.o, t0, c.w, &c.p)
	}
}
