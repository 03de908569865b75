package tracing

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// receiver is a collector: it takes spans by OTLP/HTTP.
type receiver struct {
	*httptest.Server
	t     *testing.T
	mu    sync.Mutex
	raw   strings.Builder
	spans []*otlp.Span
	about map[string]string // the resource's attributes
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, about: map[string]string{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	var got collector.ExportTraceServiceRequest
	if err != nil || q.URL.Path != "/v1/traces" || proto.Unmarshal(body, &got) != nil {
		r.t.Errorf("%s: not an export: %v", q.URL, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.raw.Write(body)
	for _, rs := range got.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			r.about[a.Key] = a.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
}

func attributes(s *otlp.Span) map[string]string {
	m := map[string]string{}
	for _, a := range s.Attributes {
		m[a.Key] = a.Value.GetStringValue()
	}
	return m
}

var (
	target = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}
	key    = secrets.NewKey("key-id", "CANARY-value")
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// at gives an event some seconds after the start.
func at(seconds int, step rotator.Step, phase rotator.Kind, inHand bool) rotator.Event {
	ev := rotator.Event{Time: start.Add(time.Duration(seconds) * time.Second), Target: target, Step: step, Kind: phase, Why: "why of " + string(step), Key: key}
	if inHand {
		ev.Rotation, ev.Reason, ev.Started, ev.InHand = "rotation-1", rotator.BySignal, start.Add(time.Second), true
	}
	return ev
}

func recorder(t *testing.T) *Recorder {
	t.Helper()
	r, err := Start(t.Context(), "v1", quiet)
	if err != nil || r == nil {
		t.Fatalf("%v, %v", r, err)
	}
	return r
}

// TestRotation is one trace: the root with the result, a child for each step and wait. The
// second half is done by another process, and is of the same trace.
func TestRotation(t *testing.T) {
	c := newReceiver(t)
	r := recorder(t)
	lost := at(7, rotator.StepPush, rotator.Error, true)
	lost.Err = &rotator.APIError{Code: "InternalError", Message: "CANARY"}
	for _, ev := range []rotator.Event{
		at(0, rotator.StepObserve, rotator.Begin, false), at(0, rotator.StepObserve, rotator.Done, false), // before it, and not of it
		at(1, rotator.StepStage, rotator.Begin, false), at(2, rotator.StepStage, rotator.Done, true),
		at(2, rotator.StepWait, rotator.Idle, true), at(4, rotator.StepWait, rotator.Idle, true),
		at(6, rotator.StepPush, rotator.Begin, true), lost,
	} {
		r.Event(ev)
	}
	r.Close()
	r = recorder(t)
	for _, ev := range []rotator.Event{
		at(8, rotator.StepObserve, rotator.Begin, true), at(9, rotator.StepObserve, rotator.Done, true),
		at(9, rotator.StepCommit, rotator.Begin, true), at(10, rotator.StepCommit, rotator.Done, false),
		at(10, rotator.StepWait, rotator.Idle, false), at(20, rotator.StepObserve, rotator.Begin, false), at(21, rotator.StepObserve, rotator.Done, false),
	} {
		r.Event(ev)
	}
	r.Close()

	root := c.spans[len(c.spans)-1]
	var names []string
	for _, s := range c.spans {
		a := attributes(s)
		names = append(names, s.Name+" "+time.Duration(s.EndTimeUnixNano-s.StartTimeUnixNano).String())
		if string(s.TraceId) != string(root.TraceId) || (s != root && string(s.ParentSpanId) != string(root.SpanId)) {
			t.Errorf("%s is not of the trace", s.Name)
		}
		if a["tiwkeyd.target"] != target.String() || a["tiwkeyd.rotation_id"] != "rotation-1" || a["tiwkeyd.reason"] != "signal" || a["tiwkeyd.key_id"] != "key-id" {
			t.Errorf("%s: %v", s.Name, a)
		}
		if s != root && a["tiwkeyd.why"] != "why of "+s.Name {
			t.Errorf("%s: %v", s.Name, a)
		}
		failed := s.Name == "push"
		if (s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR) != failed || (a["error.type"] == "InternalError") != failed {
			t.Errorf("%s: %v, %v", s.Name, s.Status, a)
		}
	}
	if got, want := strings.Join(names, ", "), "stage 1s, wait 4s, push 1s, observe 1s, commit 1s, rotation 9s"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if a := attributes(root); len(root.ParentSpanId) != 0 || a["tiwkeyd.result"] != "committed" || !time.Unix(0, int64(root.StartTimeUnixNano)).Equal(start.Add(time.Second)) {
		t.Errorf("the root: %v, parent %x", a, root.ParentSpanId)
	}
	if c.about["service.name"] != "tiwkeyd" || c.about["service.version"] != "v1" {
		t.Errorf("%v", c.about)
	}
	if strings.Contains(c.raw.String(), "CANARY") {
		t.Error("a key's value was sent")
	}
}

// TestRolledBack names what Tencent said, and a store that failed.
func TestRolledBack(t *testing.T) {
	c := newReceiver(t)
	t.Setenv("OTEL_SERVICE_NAME", "another")
	r := recorder(t)
	refused := at(2, rotator.StepPush, rotator.Error, true)
	refused.Err = &rotator.APIError{Code: "AuthFailure"}
	away := at(4, rotator.StepRollback, rotator.Error, true)
	away.Err = io.ErrUnexpectedEOF
	again := rotator.Event{Time: away.Time, Target: target, Step: rotator.StepRollback, Kind: rotator.Error, Err: away.Err, Until: away.Time}
	after := at(6, rotator.StepRollback, rotator.Done, true)
	after.InHand = false
	for _, ev := range []rotator.Event{at(1, rotator.StepPush, rotator.Begin, true), refused, at(3, rotator.StepRollback, rotator.Begin, true), away, again,
		at(5, rotator.StepRollback, rotator.Begin, true), after} {
		r.Event(ev)
	}
	// What comes after it with the same id is not of it any more.
	look := at(7, rotator.StepObserve, rotator.Begin, true)
	look.InHand = false
	r.Event(look)
	look.Kind = rotator.Done
	r.Event(look)
	r.Close()
	var got []string
	for _, s := range c.spans {
		got = append(got, s.Name+" "+attributes(s)["error.type"]+" "+attributes(s)["tiwkeyd.result"])
	}
	if s := strings.Join(got, ", "); s != "push AuthFailure , rollback Store , rollback  , rotation Store rolled_back" {
		t.Error(s)
	}
	if c.about["service.name"] != "another" {
		t.Errorf("%v", c.about)
	}
}

// TestNone: without an endpoint there is nothing, and no goroutine.
func TestNone(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	if r, err := Start(t.Context(), "v1", quiet); r != nil || err != nil {
		t.Errorf("%v, %v", r, err)
	}
	goleak.VerifyNone(t)
}

// TestAway: a collector that does not answer holds up neither the engine nor the end.
func TestAway(t *testing.T) {
	block := make(chan struct{})
	c := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	t.Cleanup(func() { close(block); c.Close() })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	r := recorder(t)
	for range 5000 {
		r.Event(at(1, rotator.StepPush, rotator.Begin, true))
		r.Event(at(2, rotator.StepPush, rotator.Done, true))
	}
	r.Close() // it ends, or this test never does
}
