package rotator

import (
	"context"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

func TestUrgency(t *testing.T) {
	t.Parallel()
	now := NewSystemClock().Now()
	settled := &Keyring{Keys: []Entry{{Key: secrets.NewKey("c", "c"), State: Current}}}
	pending := func(reason Reason, since time.Duration) *Keyring {
		return &Keyring{Keys: []Entry{{Key: secrets.NewKey("c", "c"), State: Current}, {Key: secrets.NewKey("p", "p"), State: Pending, PushAfter: now.Add(-since)}}, Rotation: &Rotation{Reason: reason}}
	}
	e, _ := engineOn(t, newMemory(), "me", nil, nil)
	for i, r := range []struct {
		k    *Keyring
		a    Action
		w    Wish
		want Urgency
	}{
		{settled, Action{Step: StepObserve, Idle: true}, Wish{Asked: ByRevoke}, Looking},
		{nil, Action{Step: StepObserve}, Wish{}, Routine},
		{settled, Action{Step: StepObserve}, Wish{Due: now}, Routine},
		{settled, Action{Step: StepObserve}, Wish{Due: now.Add(-2 * time.Hour)}, Overdue},
		{settled, Action{Step: StepObserve}, Wish{Due: now, Asked: ByCommand}, Requested},
		{settled, Action{Step: StepObserve}, Wish{Due: now, Asked: ByRevoke}, Alarm},
		{settled, Action{Step: StepReassert}, Wish{}, Routine}, // before an old key goes
		{pending(BySchedule, time.Minute), Action{Step: StepPush}, Wish{}, Routine},
		{pending(ByAdopt, 2*time.Hour), Action{Step: StepPush}, Wish{}, Overdue},
		{pending(BySignal, time.Minute), Action{Step: StepPush}, Wish{}, Requested},
		{pending(ByRevoke, time.Minute), Action{Step: StepPush}, Wish{}, Alarm},
		{pending(BySchedule, time.Minute), Action{Step: StepHasten}, Wish{Asked: ByRevoke}, Alarm},
	} {
		tr := &track{snap: Snapshot{Keyring: r.k}}
		if got := e.urgency(tr, r.a, r.w); got != r.want {
			t.Errorf("%d: %s, want %s", i, got, r.want)
		}
	}
	for _, r := range []struct {
		inForce secrets.Key
		want    Urgency
	}{{secrets.Key{}, Alarm}, {keyF, Alarm}, {settled.CallbackKey(), Routine}} {
		tr := &track{snap: Snapshot{Keyring: settled}, obs: Observation{Sight: Seen, Key: r.inForce}}
		if got := e.urgency(tr, Action{Step: StepReassert}, Wish{}); got != r.want {
			t.Errorf("%s is in force: %s, want %s", r.inForce, got, r.want)
		}
	}
	if u := UrgencyOf(context.Background()); u != Routine {
		t.Errorf("of nothing: %s", u)
	}
	if u := UrgencyOf(WithUrgency(context.Background(), Alarm)); u != Alarm {
		t.Errorf("of an alarm: %s", u)
	}
}
