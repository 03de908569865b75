package rotator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

// memory is a store and a Tencent in memory, for tests of the daemon's loop under a fake
// clock. Errors are served once each.
type memory struct {
	mu       sync.Mutex
	rings    map[secrets.Target]Snapshot
	inForce  map[secrets.Target]secrets.Key
	sets     map[secrets.Target]int
	setErrs  []error
	lookErrs []error
	away     bool // the store is
	slow     time.Duration
	latency  time.Duration // of the store
	ahead    time.Duration // of the engine's clock
	lag      time.Duration // of what Describe tells
	changes  map[secrets.Target]time.Time
	former   map[secrets.Target]secrets.Key
	looks    int
	reads    int
	writes   int
	purges   []int64
	noPurge  bool
	onLook   func() // once, before the answer
	onSet    func() // once, after it
}

func newMemory() *memory {
	return &memory{rings: map[secrets.Target]Snapshot{}, inForce: map[secrets.Target]secrets.Key{}, sets: map[secrets.Target]int{}, changes: map[secrets.Target]time.Time{}, former: map[secrets.Target]secrets.Key{}}
}

func (m *memory) String() string { return "memory" }

func (m *memory) Read(_ context.Context, t secrets.Target) (Snapshot, error) {
	m.mu.Lock()
	latency := m.latency
	m.mu.Unlock()
	time.Sleep(latency)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return Snapshot{}, errAway
	}
	m.reads++
	s := m.rings[t]
	if s.Keyring != nil {
		s.Keyring = s.Keyring.Clone()
	}
	return s, nil
}

func (m *memory) Write(_ context.Context, t secrets.Target, k *Keyring, version int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return 0, errAway
	}
	m.writes++
	if m.rings[t].Version != version {
		return 0, ErrConflict
	}
	m.rings[t] = Snapshot{Keyring: k.Clone(), Version: version + 1, Written: time.Now()}
	return version + 1, nil
}

func (m *memory) Purge(_ context.Context, _ secrets.Target, version int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noPurge {
		return errAway
	}
	m.purges = append(m.purges, version)
	return nil
}

// clock is the engine's: it can be wrong.
type clock struct {
	SystemClock
	m *memory
}

func (c clock) Now() time.Time {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.SystemClock.Now().Add(c.m.ahead)
}

func (c clock) WithDeadline(ctx context.Context, wall time.Time, steady time.Duration) (context.Context, context.CancelFunc) {
	return c.SystemClock.WithDeadline(ctx, c.SystemClock.Now().Add(wall.Sub(c.Now())), steady)
}

// expired is what Tencent says to a request whose time is wrong. The caller holds m.mu.
func (m *memory) expired() error {
	if m.ahead.Abs() > signatureLife {
		return &APIError{Class: RefusedForNow, Code: "AuthFailure.SignatureExpire"}
	}
	return nil
}

func (m *memory) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	m.mu.Lock()
	slow, f := m.slow, m.onSet
	m.onSet = nil
	m.mu.Unlock()
	if f != nil {
		defer f()
	}
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return "", &APIError{Class: Doubtful, Code: "ClientError.NetworkError", Message: ctx.Err().Error()}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[t]++
	if err := cmp.Or(m.expired(), next(&m.setErrs)); err != nil {
		return "", err
	}
	if old := m.inForce[t]; !k.Equal(old) {
		m.former[t], m.changes[t], m.inForce[t] = old, time.Now(), k
	}
	return "req", nil
}

func (m *memory) KeyInForce(_ context.Context, t secrets.Target) (secrets.Key, error) {
	m.mu.Lock()
	f := m.onLook
	m.onLook = nil
	m.mu.Unlock()
	if f != nil {
		f()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	if err := cmp.Or(m.expired(), next(&m.lookErrs)); err != nil {
		return secrets.Key{}, err
	}
	k := m.inForce[t]
	if time.Since(m.changes[t]) < m.lag {
		k = m.former[t]
	}
	if k.IsZero() {
		return secrets.Key{}, nil
	}
	return k.Named(""), nil
}

func next(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

// refuse has the next calls of Set refused with a code.
func refuse(n int, class Class, code string) []error {
	var errs []error
	for range n {
		errs = append(errs, &APIError{Class: class, Action: "SetWhiteboardPushCallbackKey", Code: code, Message: "in words", RequestID: "req-7", Meaning: "meaning", Advice: "advice"})
	}
	return errs
}

// engineOn gives an engine with the machine's clock, and all that it logs.
func engineOn(t *testing.T, m *memory, owner string, due func(secrets.Target, time.Time) time.Time, events func(Event)) (*Engine, *locked) {
	t.Helper()
	log := new(locked)
	p := tablePolicy
	p.Owner = owner
	if due == nil {
		due = func(_ secrets.Target, at time.Time) time.Time { return at.Add(24 * time.Hour) }
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e, err := New(Options{Store: m, API: m, Clock: clock{NewSystemClock(), m}, Policy: p, Log: logger,
		Events: func(ev Event) {
			if events != nil {
				events(ev)
			}
			if ev.Err != nil {
				logger.Error(string(ev.Step), "error", ev.Err)
			}
		},
		Due: func(t secrets.Target, _ *Keyring, at time.Time) time.Time { return due(t, at) }})
	if err != nil {
		t.Fatal(err)
	}
	return e, log
}

// locked is a log that is read while it is written.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// adoptedKey puts a settled keyring in the store, with its key in force.
func (m *memory) adoptedKey(t secrets.Target, value string) secrets.Key {
	key := secrets.NewKey("first", value)
	m.inForce[t] = key
	m.rings[t] = Snapshot{Version: 1, Written: time.Now().Add(-time.Hour), Keyring: &Keyring{Target: t, RotatedAt: time.Now().Add(-time.Hour),
		Keys: []Entry{{Key: key, State: Current, ActivatedAt: time.Now().Add(-time.Hour)}}}}
	return key
}

// change alters the world while an engine runs in it.
func (m *memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// setCalls counts the requests to set a key of t.
func (m *memory) setCalls(t secrets.Target) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sets[t]
}

// signing is the key in force.
func (m *memory) signing(t secrets.Target) secrets.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inForce[t]
}

func (m *memory) keyring(t secrets.Target) *Keyring {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rings[t].Keyring
}

// signatureLife is how long Tencent honours a signed request.
const signatureLife = 5 * time.Minute

var errAway = errors.New("the store is away")

var errOther = errors.New("some other error")

func targets(n int) []secrets.Target {
	var ts []secrets.Target
	for i := range n {
		ts = append(ts, secrets.Target{SdkAppID: int64(i + 1), Service: secrets.WhiteboardPush})
	}
	return ts
}

func describe(k *Keyring) string {
	if k == nil {
		return "none"
	}
	return fmt.Sprintf("%v %+v", k.Keys, k.Rotation)
}
