package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// TestLogEvent: a step is one line; what the engine logs itself is not told twice.
func TestLogEvent(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 5, 1, 3, 0, 0, 0, time.UTC)
	key, api := secrets.NewKey("id", "CANARY"), &rotator.APIError{Action: "Set", Target: testTarget, Code: "Odd", RequestID: "req"}
	for _, c := range []struct {
		ev   rotator.Event
		want string
	}{
		{rotator.Event{Step: rotator.StepPush, Kind: rotator.Begin, Why: "its time has come", Key: key, Rotation: "r", Reason: rotator.BySchedule},
			"level=DEBUG msg=\"push begins\" target=1400000001/whiteboard-push why=\"its time has come\" key=id rotation=r reason=schedule\n"},
		{rotator.Event{Step: rotator.StepPush, Kind: rotator.Done, Key: key}, "level=INFO msg=\"push done\" target=1400000001/whiteboard-push why=\"\" key=id\n"},
		{rotator.Event{Step: rotator.StepObserve, Kind: rotator.Done}, "level=DEBUG msg=observe target=1400000001/whiteboard-push why=\"\" key=none\n"},
		{rotator.Event{Step: rotator.StepWait, Kind: rotator.Idle, Why: "settled", Key: key, Until: until},
			"level=DEBUG msg=wait target=1400000001/whiteboard-push why=settled key=id until=2026-05-01T03:00:00.000Z\n"},
		{rotator.Event{Step: rotator.StepPush, Kind: rotator.Error, Key: key, Err: api},
			"level=ERROR msg=\"push failed\" target=1400000001/whiteboard-push why=\"\" key=id error=\"Set for 1400000001/whiteboard-push: doubtful: Odd; RequestId req\" code=Odd request_id=req\n"},
		{rotator.Event{Step: rotator.StepPush, Kind: rotator.Error, Err: errors.New("the store is away"), Until: until}, ""},
	} {
		var out bytes.Buffer
		c.ev.Target = testTarget
		logEvent(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})), c.ev)
		if out.String() != c.want {
			t.Errorf("%s %s:\n%s, want\n%s", c.ev.Step, c.ev.Kind, &out, c.want)
		}
	}
}

// TestTracesAreNotSent: whoever set OTEL_… variables is told in one line, which quotes no value: one of them is a
// credential.
func TestTracesAreNotSent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS=authorization=CANARY-of-traces"}
	for _, args := range [][]string{{"run"}, {"proxy", "--listen", "127.0.0.1:0", "--metrics", "", "--upstream", "http://127.0.0.1:1"}} {
		p := r.start(args, env...)
		r.awaitOutput(p, "tiwkeyd sends no traces")
		_ = p.cmd.Process.Kill()
		<-p.done
		if out := p.String(); strings.Count(out, "OTEL_") != 3 || strings.Contains(out, "CANARY") {
			t.Errorf("%v:\n%s", args, out)
		}
	}
}
