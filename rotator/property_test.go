package rotator

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tiwkeyd/secrets"
)

// anySituation draws a keyring that may be stored, and anything that a replica may know or
// want beside it.
func anySituation(t *rapid.T) *situation {
	when := func(name string) time.Time {
		return t0.Add(time.Duration(rapid.IntRange(-200, 200).Draw(t, name)) * 30 * time.Second)
	}
	c := &situation{p: tablePolicy}
	c.p.OnDrift = rapid.SampledFrom([]Drift{Reassert, AdoptKey, AlarmOnly}).Draw(t, "drift")
	c.p.Propagation = time.Duration(rapid.IntRange(0, 10).Draw(t, "propagation")) * time.Minute
	c.p.PropagationSet = rapid.Bool().Draw(t, "set")
	keys := []secrets.Key{keyC, keyP, keyV, secrets.NewKey("W", "value-w"), keyF, {}}
	k := &Keyring{Target: codecTarget, RotatedAt: when("rotated")}
	for i, s := range []State{Current, Pending, Previous, Previous} {
		if rapid.Bool().Draw(t, fmt.Sprint(s, i)) {
			k.Keys = append(k.Keys, Entry{Key: keys[i], State: s, CreatedAt: when("created"), PushAfter: when("push"), ActivatedAt: when("activated"), AcceptUntil: when("accept")})
		}
	}
	k.AcceptUnsigned = len(k.Keys) == 0
	if k.Pending() != nil || rapid.Bool().Draw(t, "rotation") {
		k.Rotation = &Rotation{Reason: rapid.SampledFrom([]Reason{BySchedule, ByRevoke}).Draw(t, "reason"),
			Owner: rapid.SampledFrom([]string{"me", "other", ""}).Draw(t, "owner"), LeaseUntil: when("lease"), RetryAt: when("retry")}
	}
	if rapid.Bool().Draw(t, "overrides") {
		k.Overrides = &Overrides{Propagation: new(time.Duration(rapid.IntRange(0, 10).Draw(t, "own")) * time.Minute)}
	}
	if err := k.Validate(); err != nil {
		t.Fatalf("drew what is no keyring: %v", err)
	}
	c.s = Snapshot{Keyring: k, Version: 3, Written: when("written")}
	if rapid.IntRange(0, 9).Draw(t, "absent") == 0 {
		c.s = Snapshot{}
	}
	c.o = Observation{Sight: Sight(rapid.IntRange(0, int(Forbidden)).Draw(t, "sight")), At: earlier(when("at"), t0), NextLook: when("next look"), NextPush: when("next push"), NextPutBack: when("next put back"), Since: when("since"), CurrentSince: when("current since"),
		Refused: rapid.SampledFrom(keys).Draw(t, "refused"), Previous: map[string]time.Time{"V": when("previous")}}
	if c.o.Sight == Seen {
		c.o.Key = rapid.SampledFrom(keys).Draw(t, "in force")
	}
	c.w = Wish{Due: when("due"), Asked: rapid.SampledFrom([]Reason{"", BySignal, ByRevoke}).Draw(t, "asked")}
	return c
}

// TestDecideIsSafe checks, for whatever may be in the store and known, what invariant I1 asks
// of one decision.
func TestDecideIsSafe(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := anySituation(t)
		k, before := c.s.Keyring, fmt.Sprintf("%+v", c)
		a := Decide(c.s, c.o, t0, c.w, &c.p)
		if fmt.Sprintf("%+v", c) != before || !reflect.DeepEqual(a, Decide(c.s, c.o, t0, c.w, &c.p)) {
			t.Fatalf("Decide is not pure: %+v", a)
		}
		raised := k == nil || k.Edited || !c.p.PropagationSet || (k.Overrides != nil && *k.Overrides.Propagation >= c.p.Propagation)
		fail := func(what string) { t.Fatalf("%s (%s): %s\n%+v\n%+v", a.Step, a.Why, what, k, c.o) }
		if (a.Step == StepRaise) == raised {
			fail("how late receivers may be is written down where it is, or not where it is not")
		}
		switch a.Step {
		case StepRaise:
			if n := k.raised(&c.p); Decide(Snapshot{Keyring: n}, c.o, t0, c.w, c.p.Of(n)).Step == StepRaise {
				fail("it goes on for ever")
			}
		case StepWait:
			if !a.Until.After(t0) {
				fail("a wait for what has passed never ends")
			}
		case StepPush:
			e := k.Pending()
			switch {
			case e == nil:
				fail("there is nothing to push")
			case e.PushAfter.After(t0) && !e.PushAfter.After(t0.Add(c.p.propagation(e)+c.p.Timing.Skew)):
				fail("receivers do not accept it yet")
			case k.Rotation.Reason != ByRevoke && c.o.Since.Add(c.p.propagation(e)).After(t0):
				fail("it was not in the store for long enough")
			case c.o.Refused.Equal(e.Key), c.o.NextPush.After(t0), k.Rotation.RetryAt.After(t0) && !k.Rotation.RetryAt.After(t0.Add(jittered(c.p.Timing.RetryMax)+c.p.Timing.Skew)):
				fail("it was refused, or is to be tried later")
			}
		case StepReassert:
			if e := k.Current(); e == nil || (e.PushAfter.After(t0) && c.s.Written.Add(c.p.propagation(e)+c.p.Timing.Skew).After(t0)) ||
				(e.PushAfter.After(e.ActivatedAt) && c.o.CurrentSince.Add(c.p.propagation(e)).After(t0)) {
				fail("receivers do not know it yet")
			}
		case StepRetire:
			n, gone := c.facts().retired()
			if len(gone) == 0 {
				fail("there is nothing to retire, and it would go on for ever")
			}
			for _, key := range gone {
				e := k.Lookup(key)
				until := earlier(e.AcceptUntil, c.facts().previousSince(e).Add(c.p.Grace+c.p.Timing.Skew))
				if e.State != Previous || until.After(t0) || until.After(c.o.At) {
					fail("a key is retired before its time: " + key.ID())
				}
			}
			if c.o.Sight != Seen || !c.o.Key.Equal(n.CallbackKey()) || n.CallbackKey().IsZero() && !c.o.Key.IsZero() {
				fail("the current key was not seen in force")
			}
		case StepCommit:
			if c.o.Sight != Seen || !c.o.Key.Equal(k.Pending().Key) {
				fail("it is not in force")
			}
		case StepStage:
			if k.Pending() != nil {
				fail("there is a pending key already")
			}
		}
	})
}

// TestTransitionsKeepKeys checks that no step but the retirement, and the commit of a
// revocation, takes a key out of the accepted set.
func TestTransitionsKeepKeys(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := anySituation(t)
		k := c.s.Keyring
		if k == nil {
			return
		}
		p := c.p.Of(k)
		next := map[string]*Keyring{
			"raised": k.raised(p), "adopted": k.adopted(k.Target, keyF, "F", t0, p), "failed": k.failed(Failure{Code: "x", At: t0}, BySchedule, t0, p),
		}
		if k.Pending() == nil {
			next["staged"] = k.staged(secrets.NewKey("N", "value-n"), "r", BySchedule, t0, p)
		} else {
			next["hastened"], next["claimed"] = k.hastened(t0, p), k.claimed(t0, p)
			next["rolled back"] = k.rolledBack(Failure{Code: "x", At: t0}, t0, t0, p)
			if k.Rotation.Reason != ByRevoke {
				next["committed"] = k.committed(true, t0, p)
			}
		}
		for name, n := range next {
			for _, key := range k.Accept() {
				if n.Lookup(key) == nil {
					t.Fatalf("%s drops %s", name, key)
				}
			}
			if err := n.Validate(); err != nil {
				t.Fatalf("%s gives no keyring: %v", name, err)
			}
			text, err := n.Encode()
			if err != nil {
				t.Fatalf("%s cannot be written: %v", name, err)
			}
			again, err := DecodeKeyring(n.Target, text)
			if err != nil {
				t.Fatalf("%s cannot be read: %v", name, err)
			}
			if twice, _ := again.Encode(); string(twice) != string(text) {
				t.Fatalf("%s reads as another keyring", name)
			}
		}
	})
}

// TestRotationWithoutABeginning: a rotation of which nobody knows when it was begun ends in a history that can be read.
// A property found that it could not.
func TestRotationWithoutABeginning(t *testing.T) {
	t.Parallel()
	c := pending()
	c.s.Keyring.Rotation.StartedAt = time.Time{}
	p := c.p.Of(c.s.Keyring)
	for name, k := range map[string]*Keyring{"committed": c.s.Keyring.committed(true, t0, p), "rolled back": c.s.Keyring.rolledBack(Failure{Code: "x", At: t0}, t0, t0, p)} {
		text, err := k.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeKeyring(k.Target, text); err != nil || len(k.History) != 1 {
			t.Errorf("%s: %v; history: %v", name, err, k.History)
		}
	}
}
