package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

var viewTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// TestProgress feeds a rotation's events to both kinds of display.
func TestProgress(t *testing.T) {
	key := secrets.NewKey("abc", "CANARY-value")
	ev := func(step rotator.Step, phase rotator.Kind) rotator.Event {
		return rotator.Event{Target: testTarget, Step: step, Kind: phase, Key: key, Reason: rotator.ByCommand}
	}
	wait := ev(rotator.StepWait, rotator.Idle)
	wait.Why, wait.Until = "receivers come to accept the pending key", viewTime.Add(90*time.Second)
	failed := ev(rotator.StepPush, rotator.Error)
	failed.Err = &rotator.APIError{Class: rotator.RefusedForNow, Code: "RequestLimitExceeded"}
	settled := ev(rotator.StepWait, rotator.Idle)
	settled.Hold = rotator.Rest
	events := []rotator.Event{ev(rotator.StepStage, rotator.Begin), ev(rotator.StepStage, rotator.Done), wait, wait, failed, ev(rotator.StepPush, rotator.Done), ev(rotator.StepCommit, rotator.Done), settled}

	var plain, live bytes.Buffer
	for out, isLive := range map[*bytes.Buffer]bool{&plain: false, &live: true} {
		p := newProgress(out)
		p.live, p.now = isLive, func() time.Time { return viewTime }
		for _, e := range events {
			p.event(e)
		}
	}
	want := "1400000001/whiteboard-push  key abc: written as pending (command), receivers come to accept it\n" +
		"1400000001/whiteboard-push  waiting: receivers come to accept the pending key (until 05:07:37)\n" +
		"1400000001/whiteboard-push  push failed: " + failed.Err.Error() + "; going on\n" +
		"1400000001/whiteboard-push  key abc: set at Tencent\n" +
		"1400000001/whiteboard-push  key abc: in force, and current\n"
	if plain.String() != want {
		t.Errorf("a pipe gets\n%q\nwant\n%q", plain.String(), want)
	}
	for _, piece := range []string{"\r\x1b[K1400000001/whiteboard-push  waiting: receivers come to accept the pending key  1m30s left", "in force, and current\n"} {
		if !strings.Contains(live.String(), piece) {
			t.Errorf("a terminal gets %q, without %q", live.String(), piece)
		}
	}
	if strings.Contains(plain.String()+live.String(), "CANARY") {
		t.Error("a key shows")
	}
}

// TestNarrate has every step in words.
func TestNarrate(t *testing.T) {
	for _, step := range []rotator.Step{rotator.StepAdopt, rotator.StepStage, rotator.StepHasten, rotator.StepClaim, rotator.StepPush, rotator.StepReassert,
		rotator.StepCommit, rotator.StepRollback, rotator.StepRetire} {
		if text, _ := narrate(rotator.Event{Step: step, Kind: rotator.Done}); text == "" {
			t.Errorf("%s has no words", step)
		}
	}
	if text, _ := narrate(rotator.Event{Step: rotator.StepPush, Kind: rotator.Error, Err: errors.New("x")}); text != "push failed: x" {
		t.Errorf("%q", text)
	}
	if text, _ := narrate(rotator.Event{Step: rotator.StepObserve, Kind: rotator.Done}); text != "" {
		t.Errorf("a look is news: %q", text)
	}
}

func TestDemoView(t *testing.T) {
	current, pending, previous := secrets.NewKey("cur", "CANARY-c"), secrets.NewKey("pen", "CANARY-p"), secrets.NewKey("pre", "CANARY-v")
	s := demoState{elapsed: 12 * time.Second, signing: current, verified: map[string]int64{"cur": 41}, callbacks: 44, refused: 3, rate: 200, rotations: 5, rolledBack: 2,
		fault: "HTTP 502, nothing is set", news: []string{"something happened"}, now: viewTime,
		keyring: &rotator.Keyring{Target: demoTarget, Keys: []rotator.Entry{{Key: current, State: rotator.Current},
			{Key: pending, State: rotator.Pending, PushAfter: viewTime.Add(700 * time.Millisecond)}, {Key: previous, State: rotator.Previous, AcceptUntil: viewTime.Add(4 * time.Second)}}}}
	var out bytes.Buffer
	s.draw(&out)
	for _, want := range []string{"Tencent signs with   \x1b[1mcur", "● cur  current   verified 41", "pen  pending   verified 0       set in 0.7s", "dropped in 4.0s",
		"41 verified at 200/s", "\x1b[1;31mrefused = 3", "5 done, 2 rolled back", "HTTP 502", "something happened"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%q", want, out.String())
		}
	}
	if got := s.plain(); got != "signs=cur accepted=cur,pen,pre verified=41 refused=3 rotations=5 rolled_back=2" {
		t.Errorf("%q", got)
	}
	if strings.Contains(out.String()+s.plain(), "CANARY") {
		t.Error("a key shows")
	}
	demoState{}.draw(&out)
	if got := (demoState{}).plain(); !strings.Contains(got, "signs=none") {
		t.Errorf("%q", got)
	}
}
