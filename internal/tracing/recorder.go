package tracing

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Recorder makes spans of an engine's events.
type Recorder struct {
	exporter sdk.SpanExporter
	provider *sdk.TracerProvider
	tracer   trace.Tracer

	mu      sync.Mutex
	targets map[secrets.Target]*underWay
}

// underWay is what is not a span yet of a target.
type underWay struct {
	begin rotator.Event // of the step under way; zero: none is
	idle  rotator.Event // since when nothing but a wait goes on; zero: it does not
	code  string        // of the rotation's last error
}

// Event hears an engine's news.
func (r *Recorder) Event(ev rotator.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.targets[ev.Target]
	if u == nil {
		u = &underWay{}
		r.targets[ev.Target] = u
	}
	switch ev.Kind {
	case rotator.Idle:
		switch {
		case !ev.InHand:
			u.idle = rotator.Event{}
		case u.idle.Time.IsZero(): // it is told again at every look into the store
			u.idle = ev
		}
	case rotator.Begin:
		if !u.idle.Time.IsZero() {
			r.step(u.idle, u.idle, ev.Time, "")
		}
		u.begin, u.idle = ev, rotator.Event{}
	case rotator.Done, rotator.Error:
		r.ended(u, ev)
	}
}

// ended makes a span of a step, and of the whole rotation if that was its end. A store that
// fails is told of without a step, or once more after it.
func (r *Recorder) ended(u *underWay, ev rotator.Event) {
	begin := u.begin
	u.begin = rotator.Event{}
	if begin.Time.IsZero() {
		return
	}
	of := begin // after a commit the keyring has no rotation any more
	if ev.InHand {
		of = ev // and before a stage it has none yet
	}
	if !of.InHand {
		return
	}
	code := codeOf(ev.Err)
	if ev.Step == rotator.StepStage {
		u.code = ""
	}
	if code != "" {
		u.code = code
	}
	r.step(of, begin, ev.Time, code)
	if ev.Kind == rotator.Done && (ev.Step == rotator.StepCommit || ev.Step == rotator.StepRollback) {
		r.root(of, ev, u.code)
	}
}

// codeOf is an error's code: Tencent's, or one word for the store's. Its text stays here.
func codeOf(err error) string {
	var api *rotator.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &api):
		return api.Code
	}
	return "Store"
}

// step sends the span of one step, or of a wait.
func (r *Recorder) step(of, begin rotator.Event, end time.Time, code string) {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), rootOf(of.Rotation))
	_, span := r.tracer.Start(ctx, string(begin.Step), trace.WithTimestamp(begin.Time), trace.WithAttributes(about(of)...),
		trace.WithAttributes(attribute.String("tiwkeyd.why", begin.Why)))
	fail(span, code)
	span.End(trace.WithTimestamp(end))
}

// root sends the span of a whole rotation.
func (r *Recorder) root(of, end rotator.Event, code string) {
	result := "committed"
	if end.Step == rotator.StepRollback {
		result = "rolled_back"
	}
	ctx := context.WithValue(context.Background(), rootKey{}, of.Rotation)
	_, span := r.tracer.Start(ctx, "rotation", trace.WithTimestamp(of.Started), trace.WithAttributes(about(of)...), trace.WithAttributes(attribute.String("tiwkeyd.result", result)))
	if end.Step == rotator.StepRollback {
		if code == "" {
			code = "AttemptLimit"
		}
		fail(span, code)
	}
	span.End(trace.WithTimestamp(end.Time))
}

func about(ev rotator.Event) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("tiwkeyd.target", ev.Target.String()), attribute.String("tiwkeyd.rotation_id", ev.Rotation),
		attribute.String("tiwkeyd.reason", string(ev.Reason)), attribute.String("tiwkeyd.key_id", ev.Key.ID()),
	}
}

func fail(span trace.Span, code string) {
	if code != "" {
		span.SetAttributes(attribute.String("error.type", code))
		span.SetStatus(codes.Error, code)
	}
}
