package observe

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	canary      = "CANARY-key-in-force-before"
	storeTime   = 3 * time.Millisecond
	apiTime     = 200 * time.Millisecond
	propagation = 6 * time.Minute
	setAPI      = "SetWhiteboardPushCallbackKey"
	describeAPI = "DescribeWhiteboardPushCallback"
)

var (
	one = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}
	two = secrets.Target{SdkAppID: 1400000002, Service: secrets.WhiteboardPush}
)

// world is a store and a Tencent in memory. Each call takes its time; errors are served once
// each.
type world struct {
	mu       sync.Mutex
	rings    map[secrets.Target]rotator.Snapshot
	inForce  map[secrets.Target]secrets.Key
	storeErr error // while it is there
	writeErr error // the same, of writes alone
	setErrs  []error
	lookErr  error         // of each look, while it is there
	block    chan struct{} // reads wait for its end, whatever their context says
}

func newWorld() *world {
	return &world{rings: map[secrets.Target]rotator.Snapshot{}, inForce: map[secrets.Target]secrets.Key{one: secrets.NewKey("", canary), two: secrets.NewKey("", canary+"2")}}
}

func (w *world) String() string { return "memory" }

func (w *world) Read(_ context.Context, t secrets.Target) (rotator.Snapshot, error) {
	time.Sleep(storeTime)
	w.mu.Lock()
	block := w.block
	w.mu.Unlock()
	if block != nil {
		<-block
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.rings[t]
	if s.Keyring != nil {
		s.Keyring = s.Keyring.Clone()
	}
	return s, w.storeErr
}

func (w *world) Write(_ context.Context, t secrets.Target, k *rotator.Keyring, version int64) (int64, error) {
	time.Sleep(storeTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.storeErr, w.writeErr); err != nil {
		return 0, err
	}
	if w.rings[t].Version != version {
		return 0, rotator.ErrConflict
	}
	w.rings[t] = rotator.Snapshot{Keyring: k.Clone(), Version: version + 1, Written: time.Now()}
	return version + 1, nil
}

func (w *world) Purge(context.Context, secrets.Target, int64) error {
	time.Sleep(storeTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.storeErr
}

func (w *world) SetKey(_ context.Context, t secrets.Target, k secrets.Key) (string, error) {
	time.Sleep(apiTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.setErrs) > 0 {
		err := w.setErrs[0]
		w.setErrs = w.setErrs[1:]
		return "", err
	}
	w.inForce[t] = k
	return "request", nil
}

func (w *world) KeyInForce(_ context.Context, t secrets.Target) (secrets.Key, error) {
	time.Sleep(apiTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	return secrets.NewKey("", w.inForce[t].Reveal()), w.lookErr
}

// change alters the world while an engine runs in it.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func policy(owner string) rotator.Policy {
	return rotator.Policy{Propagation: propagation, Grace: 24 * time.Hour, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
		KeyLength: 64, OnDrift: rotator.AlarmOnly, Owner: owner, Timing: rotator.StandardTiming()}
}

// rig is a monitor over an engine in a world.
type rig struct {
	*Monitor
	t      *testing.T
	w      *world
	engine *rotator.Engine
}

// newRig has an engine whose schedule is every 24 hours from the last rotation on, and which
// does not run yet.
func newRig(t *testing.T, w *world, targets ...secrets.Target) *rig {
	m := New(Build{Version: "v1.2.3", Revision: "abc", Go: "go1"})
	return &rig{Monitor: m, t: t, w: w, engine: watched(t, m, w, targets...)}
}

func watched(t *testing.T, m *Monitor, w *world, targets ...secrets.Target) *rotator.Engine {
	t.Helper()
	p := policy("me")
	e, err := rotator.New(rotator.Options{Store: m.Store(w), API: m.API(w), Policy: p, Events: m.Event,
		Due: func(_ secrets.Target, _ *rotator.Keyring, at time.Time) time.Time {
			if at.IsZero() {
				return time.Unix(0, 0)
			}
			return at.Add(24 * time.Hour)
		}})
	if err != nil {
		t.Fatal(err)
	}
	m.Serve(Served{Engine: e, Targets: targets, Policy: p, Limits: func() map[string]tencent.Limit {
		return map[string]tencent.Limit{setAPI: {Allowed: 6.5, Exceeded: 2}}
	}})
	return e
}

// run starts the engine, and gives what stops it and waits for its end.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.engine.Run(ctx, r.served.Targets) })
	return func() { cancel(); group.Wait() }
}

// scrape is what /metrics gives, of ours.
func (m *Monitor) scrape(t *testing.T) string {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "tiwkeyd_") {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if strings.Contains(b.String(), "CANARY") {
		t.Error("a key is in the metrics")
	}
	return b.String()
}

// values are all series with their values.
func (r *rig) values() map[string]string {
	r.t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(r.scrape(r.t)) {
		if i := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") {
			got[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return got
}

func (r *rig) value(series string) string { r.t.Helper(); return r.values()[series] }

// expect compares series with their values; "" is no such series.
func (r *rig) expect(when string, want map[string]string) {
	r.t.Helper()
	got := r.values()
	for series, value := range want {
		a, errA := strconv.ParseFloat(got[series], 64)
		b, errB := strconv.ParseFloat(value, 64)
		if got[series] != value && (errA != nil || errB != nil || a-b > 1e-6 || b-a > 1e-6) {
			r.t.Errorf("%s: %s is %q, want %q", when, series, got[series], value)
		}
	}
}

func of(t secrets.Target, metric string, more ...string) string {
	labels := `target="` + t.String() + `"`
	for i := 0; i < len(more); i += 2 {
		l := more[i] + `="` + more[i+1] + `"`
		if more[i] < "target" {
			labels = l + "," + labels
		} else {
			labels += "," + l
		}
	}
	return "tiwkeyd_" + metric + "{" + labels + "}"
}

func rotations(t secrets.Target, reason, result string) string {
	return `tiwkeyd_rotations_total{reason="` + reason + `",result="` + result + `",target="` + t.String() + `"}`
}

func answered(class rotator.Class, code string) error {
	return &rotator.APIError{Class: class, Action: setAPI, Target: one, Code: code, Message: "in words"}
}

var errAway = errors.New("the store is away:\n\tno route")

// keyring is what is in the store now.
func (w *world) keyring(t secrets.Target) *rotator.Keyring {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rings[t].Keyring.Clone()
}

// change alters what is served while an engine runs.
func (r *rig) change(f func(*Served)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.served)
}

func (r *rig) lastError(t secrets.Target) time.Time { return r.look().memory[t].lastError }
