package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	tiw "tiwkeyd/tencent"
)

// fleet is a world of many targets and several daemons, each with its own Run loop, under the
// fake clock of testing/synctest: how the work and the limit are shared at that size. What single
// interleavings can do to one target is World's subject.
type fleet struct {
	policy  rotator.Policy
	targets []secrets.Target

	mu      sync.Mutex
	random  *rand.Rand
	calm    bool
	spread  time.Duration // by which calls to Tencent differ on their way there
	skew    time.Duration // by which clocks are wrong, at most
	rings   map[secrets.Target]*ring
	vault   vault // of which only the outages matter here
	windows map[string][]time.Time
	members []*member
	fault   string // the first violation

	unpaced bool // a mutant: the daemons know of no rate that bounds what is staged

	calls, limited, mishaps    int
	pending, most, staged      int // keys, the most of them at one time, and those that were staged until too many were
	reads, writes, conflicts   int
	commits, rollbacks, visits int
	lateness                   map[secrets.Target]time.Duration // the worst, from when a key was ready to when it was in force
	stages                     map[string]int                   // by replica
}

// ring is one target as the world has it.
type ring struct {
	versions []version
	inForce  secrets.Key
	former   []secrets.Key // that were in force
}

const limit = 20 // calls a second of one API, for all replicas together

func newFleet(seed uint64, n int) *fleet {
	f := &fleet{random: rand.New(rand.NewPCG(seed, 1)), rings: map[secrets.Target]*ring{}, windows: map[string][]time.Time{},
		spread: 40 * time.Millisecond, skew: 200 * time.Millisecond, lateness: map[secrets.Target]time.Duration{}, stages: map[string]int{}}
	f.policy = rotator.Policy{Propagation: 6 * time.Minute, Grace: 30 * time.Minute, AttemptLimit: time.Hour, Reconcile: 10 * time.Minute,
		KeyLength: 32, OnDrift: rotator.Reassert, Timing: rotator.StandardTiming()}
	at := time.Now().Add(-time.Hour)
	for i := range n {
		t := secrets.Target{SdkAppID: int64(i + 1), Service: secrets.WhiteboardPush}
		key := secrets.NewKey("before", fmt.Sprint("key-from-before-", i))
		k := &rotator.Keyring{Target: t, RotatedAt: at, Keys: []rotator.Entry{{Key: key, State: rotator.Current, CreatedAt: at, ActivatedAt: at}}}
		f.targets = append(f.targets, t)
		f.rings[t] = &ring{versions: []version{{k: k, number: 1, from: at}}, inForce: key}
	}
	return f
}

// crowd is how many keys one daemon may have pending at one time, with those that wait for something else
// than their turn, and take no room. The caller holds f.mu.
func (f *fleet) crowd() int {
	return int(limit * (f.policy.Propagation + time.Minute).Seconds() * 5 / 4)
}

// count counts the keys that are pending. The caller holds f.mu.
func (f *fleet) count(was, is *rotator.Keyring) {
	switch {
	case was.Pending() == nil && is.Pending() != nil:
		f.pending++
		if f.most <= f.crowd() {
			f.staged++
		}
	case was.Pending() != nil && is.Pending() == nil:
		f.pending--
	}
	f.most = max(f.most, f.pending)
}

// mishap reports whether something goes wrong here, once in so many. The caller holds f.mu.
func (f *fleet) mishap(oneIn int) bool {
	if f.calm || f.random.IntN(oneIn) != 0 {
		return false
	}
	f.mishaps++
	return true
}

func (f *fleet) fail(format string, args ...any) {
	if f.fault == "" {
		f.fault = time.Now().Format("15:04:05 ") + fmt.Sprintf(format, args...)
	}
}

// check is I1 for one target. The caller holds f.mu.
func (f *fleet) check(t secrets.Target) {
	r := f.rings[t]
	oldest := f.vault.oldestView(time.Now(), &f.policy)
	for i := len(r.versions) - 1; i >= 0; i-- {
		if v := r.versions[i]; v.k.Lookup(r.inForce) == nil {
			f.fail("I1: %s: Tencent signs with %s, and a receiver may see %v", t, r.inForce, v.k.Accept())
			return
		} else if !v.from.After(oldest) {
			r.versions = r.versions[i:]
			return
		}
	}
}

// apply has Tencent sign with another key. The caller holds f.mu.
func (f *fleet) apply(t secrets.Target, k secrets.Key) {
	if k.IsZero() {
		f.fail("I4: %s: an empty key was set", t)
	}
	r := f.rings[t]
	r.inForce, r.former = k, append(r.former, k)
	f.check(t)
}

// overLimit is Tencent's: so many calls of an API in any second. The caller holds f.mu.
func (f *fleet) overLimit(api string) bool {
	now := time.Now()
	w := f.windows[api]
	for len(w) > 0 && now.Sub(w[0]) >= time.Second {
		w = w[1:]
	}
	f.calls++
	over := len(w) >= limit
	if over {
		f.limited++
	} else {
		w = append(w, now)
	}
	f.windows[api] = w
	return over
}

// member is a daemon.
type member struct {
	f      *fleet
	name   string
	skew   time.Duration
	due    time.Time // when all are due, once; zero: by fleetSchedule
	engine *rotator.Engine
	limits map[string]*tiw.Limiter // by API
	stop   context.CancelFunc
	ended  chan struct{}

	// guarded by fleet.mu
	dead   bool      // killed: nothing of it reaches anybody any more
	cut    bool      // neither Vault nor Tencent can be reached
	frozen time.Time // it is paused until then
}

// hop is a way to somewhere or back: it takes time, and the daemon may be cut off, paused or dead.
func (m *member) hop(ctx context.Context, least, spread time.Duration) error {
	f := m.f
	f.mu.Lock()
	d := least + time.Duration(f.random.Int64N(int64(spread)))
	if f.mishap(200_000) {
		m.frozen = time.Now().Add(time.Duration(f.random.IntN(1200)) * time.Second)
	}
	d = max(d, time.Until(m.frozen))
	f.mu.Unlock()
	time.Sleep(d)
	f.mu.Lock()
	gone := m.dead || m.cut
	f.mu.Unlock()
	if gone {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
		return errAway
	}
	return nil
}

func (m *member) String() string { return "simulated" }

func (m *member) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	if err := m.hop(ctx, time.Millisecond, 4*time.Millisecond); err != nil {
		return rotator.Snapshot{}, err
	}
	f := m.f
	f.mu.Lock()
	f.reads++
	away := f.vault.down || f.mishap(5000)
	v := f.rings[t].versions
	last := v[len(v)-1]
	f.mu.Unlock()
	if away {
		return rotator.Snapshot{}, errAway
	}
	s := rotator.Snapshot{Keyring: last.k.Clone(), Version: last.number, Written: last.from}
	return s, m.hop(ctx, time.Millisecond, 4*time.Millisecond)
}

func (m *member) Write(ctx context.Context, t secrets.Target, k *rotator.Keyring, cas int64) (int64, error) {
	if err := m.hop(ctx, time.Millisecond, 8*time.Millisecond); err != nil {
		return 0, err
	}
	f := m.f
	f.mu.Lock()
	f.writes++
	r := f.rings[t]
	last := r.versions[len(r.versions)-1]
	err := error(nil)
	switch {
	case f.vault.down || f.mishap(5000):
		err = errAway
	case last.number != cas:
		f.conflicts++
		err = rotator.ErrConflict
	default:
		if !k.CallbackKey().Equal(last.k.CallbackKey()) && !slices.ContainsFunc(r.former, k.CallbackKey().Equal) {
			f.fail("I5: %s: %s became the current key and was never in force", t, k.CallbackKey())
		}
		f.count(last.k, k)
		r.versions = append(r.versions, version{k: k.Clone(), number: cas + 1, from: time.Now()})
		f.check(t)
		if f.mishap(5000) { // the answer is lost
			err = errAway
		}
	}
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return cas + 1, m.hop(ctx, time.Millisecond, 4*time.Millisecond)
}

func (m *member) Purge(context.Context, secrets.Target, int64) error { return nil }

// reach is the way of a call to Tencent, within the limit of this replica. It gives its place there.
func (m *member) reach(ctx context.Context, api string) (time.Time, error) {
	place, err := m.limits[api].Wait(ctx)
	if err != nil {
		return place, refusal(rotator.RefusedForNow, "ClientError")
	}
	if err := m.hop(ctx, 20*time.Millisecond, m.f.spread); err != nil {
		return place, refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	switch f := m.f; {
	case f.overLimit(api):
		m.limits[api].Exceeded(place)
		return place, refusal(rotator.RefusedForNow, "RequestLimitExceeded")
	case f.mishap(2000):
		return place, refusal(rotator.Doubtful, "InternalError")
	}
	return place, nil
}

// back is the way of an answer.
func (m *member) back(ctx context.Context, api string, place time.Time) error {
	if m.hop(ctx, 10*time.Millisecond, m.f.spread/2) != nil {
		return refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	m.limits[api].Answered(place)
	return nil
}

func (m *member) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	place, err := m.reach(ctx, "set")
	if err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", refusal(rotator.RefusedForNow, "ClientError")
	}
	f := m.f
	f.mu.Lock()
	switch {
	case f.mishap(2000):
		f.mu.Unlock()
		return "", refusal(rotator.Refused, "UnauthorizedOperation.SdkAppId")
	case f.mishap(1000): // it arrives as late as its signature allows
		late := time.Duration(f.random.IntN(300)) * time.Second
		f.mu.Unlock()
		time.AfterFunc(late, func() { f.mu.Lock(); defer f.mu.Unlock(); f.apply(t, k) })
		return "", refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	f.apply(t, k)
	lost := f.mishap(1000)
	f.mu.Unlock()
	if lost {
		return "", refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	if err := m.back(ctx, "set", place); err != nil {
		return "", err
	}
	return "id", nil
}

func (m *member) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	place, err := m.reach(ctx, "describe")
	if err != nil {
		return secrets.Key{}, err
	}
	m.f.mu.Lock()
	k := m.f.rings[t].inForce
	m.f.mu.Unlock()
	if err := m.back(ctx, "describe", place); err != nil {
		return secrets.Key{}, err
	}
	return secrets.NewKey("", k.Reveal()), nil
}
