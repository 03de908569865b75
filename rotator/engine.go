package rotator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"time"

	"tiwkeyd/secrets"
)

// Engine carries out, for any number of targets, what Decide says.
type Engine struct {
	store  Store
	api    CallbackAPI
	clock  Clock
	random io.Reader
	policy Policy
	due    func(secrets.Target, *Keyring, time.Time) time.Time
	log    *slog.Logger
	events func(Event)

	lookRate  float64
	stageRate float64
	gone      func(secrets.Target)
	share     func(replicas, place int)

	wake  chan struct{}
	slots chan struct{} // one for each visit under way

	progress progress
	longer   sync.Once // outdone was told

	mu       sync.Mutex
	tracks   map[secrets.Target]*track
	served   int             // how many of them Run looks after, or will
	arrived  []*track        // of these, what Run has not taken in yet
	silences silences        // of the store, whichever target it was asked about
	peers    map[string]peer // who carry rotations out, by Owner
	replicas int             // how many there are with this one, and
	place    int             // which of them it is, as Options.Share was told

	pace pace
	told time.Duration // the interval that was last logged
}

// maxVisits is how many targets of a lane are dealt with at the same time.
const maxVisits = 32

// Options are an Engine's parts. Store, API, Policy and Due are required.
type Options struct {
	Store  Store
	API    CallbackAPI
	Policy Policy
	// Due is when the key of t, in force since rotatedAt, is to be replaced; zero: never. A schedule of
	// its keyring's own counts, if it can be used.
	Due func(t secrets.Target, k *Keyring, rotatedAt time.Time) time.Time
	// LookRate bounds how many settled targets are looked at in a second, by stretching
	// Policy.Reconcile; 0: unbounded.
	LookRate float64
	// StageRate is how many keys Tencent sets in a second. No more rotations that nobody asked for are
	// under way than can be set in time; 0: any number.
	StageRate float64
	// Share hears how many replicas share the work, as far as this one has noticed, and which of them
	// it is (from 0), whenever that changes. It must not call the engine. nil: none.
	Share  func(replicas, place int)
	Clock  Clock                // nil: SystemClock
	Random io.Reader            // nil: crypto/rand
	Log    *slog.Logger         // nil: none
	Gone   func(secrets.Target) // nil: none; hears of a target of ServeFound that is served no longer, as its keyring is gone
	Events func(Event)          // nil: none; called from the engine's goroutines
}

// New gives an Engine. A Policy without an Owner gets a random one.
func New(o Options) (*Engine, error) {
	e := &Engine{clock: o.Clock, random: o.Random, tracks: map[secrets.Target]*track{}, wake: make(chan struct{}, 1), slots: make(chan struct{}, 2*maxVisits),
		progress: progress{visits: map[*track]time.Duration{}}}
	if e.clock == nil {
		e.clock = NewSystemClock()
	}
	if e.random == nil {
		e.random = rand.Reader
	}
	if o.Policy.Owner == "" {
		id, err := secrets.NewID(e.random)
		if err != nil {
			return nil, fmt.Errorf("name this replica: %w", err)
		}
		o.Policy.Owner = id
	}
	e.configure(o, false)
	return e, nil
}

// Reconfigure gives the engine other parts, while Run does not run: all but Clock, Random and the
// Owner's name, which stay. Demands stay, too, and go first. Of the targets, those are to
// be dropped that are not served again. same says that store and Tencent are where they were. Then what
// was seen there stays, or receivers would be given their time anew at each reload; only the pauses after
// failures end, as what was wrong may have been mended. Else all that was seen is void.
func (e *Engine) Reconfigure(o Options, same bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o.Policy.Owner = e.policy.Owner
	e.configure(o, same)
	for t, tr := range e.tracks {
		if !same {
			tr = &track{target: t, rank: tr.rank, ask: tr.ask}
			e.tracks[t] = tr
		}
		if tr.ask != "" {
			tr.asks = tr.heard + 1
		}
		tr.lookFails, tr.pushFails, tr.obs.NextLook, tr.obs.NextPush = 0, 0, time.Time{}, time.Time{}
		if tr.obs.Sight == Forbidden {
			tr.forget() // that may have been mended
		}
	}
	e.share(e.replicas, e.place)
}

// configure takes o's parts but Clock and Random.
func (e *Engine) configure(o Options, same bool) {
	e.store, e.api, e.policy, e.due, e.gone = o.Store, o.API, o.Policy, o.Due, o.Gone
	e.lookRate, e.stageRate, e.share, e.log, e.events = o.LookRate, o.StageRate, o.Share, o.Log, o.Events
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.events == nil {
		e.events = func(Event) {}
	}
	if e.share == nil {
		e.share = func(int, int) {}
	}
	e.longer = sync.Once{}
	if !same {
		e.silences, e.pace = silences{}, pace{room: math.Inf(1)} // as much as there may be
		e.peers, e.replicas, e.place = map[string]peer{}, 1, 0
	}
}

// track is what the engine remembers of a target between visits. All of it can be lost:
// it saves requests and is never needed for safety.
type track struct {
	target secrets.Target
	rank   uint32
	served bool // guarded by Engine.mu: Run is to look after it
	found  bool // guarded by Engine.mu: it is served because its keyring was found
	held   bool // guarded by Engine.mu: Run has it, or is to take it in

	obs    Observation
	looked moment // when the look that obs tells of was begun
	ask    Reason // guarded by Engine.mu: a new key is asked for
	asks   int    // guarded by Engine.mu: how often it was
	heard  int    // the value of asks that the last visit took account of

	snap        Snapshot      // as last read or written
	answered    moment        // when that call was answered, for all that is known
	took        time.Duration // how long it took
	wait        time.Duration // how long receivers get for the key that they may not know yet
	room        bool          // guarded by Engine.mu: its rotation may begin
	hold        Hold          // what it waits for since its last visit
	called      bool          // its turn to be looked at has come
	latest      time.Time     // that the wall clock told, of what is remembered here
	pending     secrets.Key   // the last pending key seen
	pendingSeen watch         // of the pending key, for obs.Since
	currentSeen watch         // of the current key, for obs.CurrentSince
	// previousSeen is since when each previous key was seen as such, by id, for obs.Previous.
	previousSeen map[string]replaced
	set          secrets.Key // what Tencent last said it had set, until it is seen in force
	over         secrets.Key // the current key, of which a request to set it is over, but not yet written down so
	sure         secrets.Key // what Tencent last said it had set, and
	surely       moment      // when the request for it was begun
	lastErr      error       // why the last visit got stuck, nil if it did not
	failure      Failure     // the last refusal of a push
	contest      contest

	storeFails, lookFails, pushFails int
	purge                            int64 // versions below are still to be destroyed
	warned                           string

	standing *Standing // as it was last made known; nil: not yet; written under Engine.mu
}

func (e *Engine) track(t secrets.Target) *track {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.trackLocked(t)
}

func (e *Engine) trackLocked(t secrets.Target) *track {
	tr := e.tracks[t]
	if tr == nil {
		tr = &track{target: t, rank: e.rank(t)}
		e.tracks[t] = tr
	}
	return tr
}

// maxSteps bounds a visit: a correct one takes fewer than ten.
const maxSteps = 40

// Visit does for t whatever can be done now, step by step, and returns when to come again.
// It returns early when ctx ends, after the step that comes next: who stops engines all the time must
// not keep them from every step. At most one Visit of a target may run at a time.
func (e *Engine) Visit(ctx context.Context, t secrets.Target) time.Time {
	tr := e.track(t)
	if ctx.Err() != nil {
		return e.clock.Now()
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return e.clock.Now()
	}
	e.progress.mark(tr, e.clock.Steady())
	defer e.progress.end(tr)
	defer e.leave(tr)
	defer tr.lighten()
	stopped := ctx
	ctx, release := outlive(ctx, stopLimit)
	defer release()
	a, w, err := Action{Step: StepObserve}, Wish{}, e.open(ctx, tr)
	for n := range maxSteps {
		switch {
		case err != nil:
			return e.storeFailed(tr, a.Step, err)
		case n > 0 && stopped.Err() != nil, tr.snap.Keyring == nil && e.removed(tr):
			return e.clock.Now()
		}
		a, w = e.decide(tr)
		if tr.hold = a.Hold; a.Step == StepWait {
			e.emit(tr, a, Idle, nil)
			return e.nextVisit(tr, a.Until, a.Watch)
		}
		err = e.carryOut(ctx, tr, a, w)
	}
	e.log.Error("a target does not settle; it is left alone for a while", "target", t)
	return e.nextVisit(tr, e.clock.Now().Add(e.policy.Timing.RetryMax), false)
}

// lighten drops what only a write needs, before which the keyring is read again.
func (tr *track) lighten() {
	if k := tr.snap.Keyring; k != nil && len(k.Retired)+len(k.Revoked) > 0 {
		k = k.Clone()
		k.Retired, k.Revoked = nil, nil
		tr.snap.Keyring = k
	}
}

// open begins a visit with a read of the keyring: nothing is decided from memory.
func (e *Engine) open(ctx context.Context, tr *track) error {
	tr.lastErr, tr.hold = nil, Moment
	e.tellInterval()
	e.appease(tr)
	if e.hear(tr) {
		tr.obs.NextLook = time.Time{} // who asks need not wait
	}
	if err := e.read(ctx, tr); err != nil {
		return err
	}
	e.purge(ctx, tr)
	return nil
}

func (e *Engine) decide(tr *track) (Action, Wish) {
	e.take(tr)
	w, now := e.wish(tr), e.moment()
	tr.date(now)
	p := e.policy
	p.Reconcile = e.Interval()
	rules := p.Of(tr.snap.Keyring)
	e.outdone(tr.target, rules.Propagation)
	return Decide(tr.snap, tr.obs, now.wall, w, rules), w
}

// carryOut does a step that was decided on. Its error is the store's.
func (e *Engine) carryOut(ctx context.Context, tr *track, a Action, w Wish) error {
	e.emit(tr, a, Begin, nil)
	err := e.do(WithUrgency(ctx, e.urgency(tr, a, w)), tr, a, w)
	switch {
	case err == nil:
		e.emit(tr, a, Done, nil)
		return nil
	case errors.Is(err, errStale), errors.Is(err, ErrConflict) && !errors.Is(err, ErrAnotherLife):
		e.log.Debug("the keyring is read again", "target", tr.target, "step", a.Step, "because", err)
		return e.read(ctx, tr)
	}
	tr.lastErr = err
	e.emit(tr, a, Error, err)
	var api *APIError
	if errors.As(err, &api) {
		return nil
	}
	return err
}

// nextVisit is the given time, or sooner while receivers come to know a key: only what is read
// meanwhile counts for them.
func (e *Engine) nextVisit(tr *track, at time.Time, watch bool) time.Time {
	k, now := tr.snap.Keyring, e.clock.Now()
	pending := k != nil && k.Pending() != nil && k.Rotation.Reason != ByRevoke
	wait := e.policy.Of(k).waitFor(k)
	if wait <= 0 || (!pending && !watch) {
		return at
	}
	if pending && now.After(k.Pending().CreatedAt.Add(3*wait)) && now.Before(tr.obs.Since.Add(wait)) {
		e.warnOnce(tr, "unsteady", "the new key waits: the keyring was not read without a break for as long as receivers may need to read it",
			"key", k.Pending().Key.ID(), "propagation", wait.String(), "unbroken_since", tr.obs.Since)
	}
	return sooner(at, now.Add(probe(wait)))
}

// forget voids what is known of Tencent's side; what was seen of the store's stays.
func (tr *track) forget() {
	tr.looked = moment{}
	tr.obs = Observation{Sight: Unseen, Since: tr.obs.Since, CurrentSince: tr.obs.CurrentSince, SetAt: tr.obs.SetAt, Previous: tr.obs.Previous}
}

// errStale says that the store took too long for a key to be set.
var errStale = errors.New("the store took too long to confirm it")

// wish is whether a new key is wanted for a target.
func (e *Engine) wish(tr *track) Wish {
	w := Wish{InLine: e.standsInLine(tr)}
	w.Asked, _ = e.unheard(tr)
	if k, now := tr.snap.Keyring, e.clock.Now(); k != nil {
		w.Due, w.Paused = e.dueAt(tr.target, k, tr.snap.rotatedAt(now, &e.policy)), k.paused()
		due := e.policy.begins(k, w, now)
		w.Full = w.Asked == "" && k.Pending() == nil && !due.IsZero() && !now.Before(due) && !e.room(tr)
	}
	return w
}
