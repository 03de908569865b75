package rotator

import (
	"context"
	"errors"
	"time"

	"tiwkeyd/secrets"
)

// scenario is what a search is about: who takes part, and what may go wrong.
type scenario struct {
	policy    Policy           // of the engines
	lag       time.Duration    // how late a receiver may see a change of the keyring
	ahead     [2]time.Duration // of each replica's clock
	empty     bool             // there is no keyring yet
	unsigned  bool             // and no key
	forbidden bool             // the credential may not ask which key is in force
	budget    budget
	jumps     []time.Duration // for how long nobody may run
	fold      time.Duration   // how long a spell may be in which replicas wait and nothing begins to go wrong
	powers

	// Faults that are built in, to see that they would be found.
	lawless bool                     // a check-and-set always succeeds
	trust   bool                     // a lost check-and-set is taken for one's own write
	says    func(error) error        // what becomes of Tencent's answer to a set
	sees    func(*world) secrets.Key // what a look tells
	unsaid  bool                     // it is not written down which keys were sent in doubt, and which were not confirmed
}

// budget is how much may still go wrong: altogether, and of each kind. A pause, of one
// replica, does not count as a mishap.
type budget struct {
	all, crash, store, tencent, drift, jump, pause int8

	// Of powers, which do not count as mishaps either: old answers of the store, answers of Tencent that tell
	// of an older key, things that somebody does to the keyring, and reloads.
	stale, lie, hand, reload int8
}

func (b *budget) spend(kind *int8) { *kind--; b.all-- }

// world is one state of everything: a value that is never changed once it was reached.
type world struct {
	now      time.Time
	views    []view // of the keyring that a receiver may have, the newest last
	late     *request
	inForce  secrets.Key
	foreign  bool   // somebody else set it
	was      uint64 // the keys that were in force, by number
	flight   *flight
	drawn    byte // keys and names, so far
	left     budget
	replicas [2]*replica
	lag      time.Duration // how late receivers are now
	past     []view        // the versions before the newest that the store still has, where that counts
	enroll   time.Time     // when a keyring that was deleted is made anew by hand
	anew     bool          // it was deleted with its metadata
}

// view is a version of the keyring, when it became readable, and until when a receiver may have it: the newest has no end.
type view struct {
	ring        *Keyring // nil: it was deleted
	version     int64
	from, until time.Time
	made        time.Time   // zero: then, too
	hidden      secrets.Key // which accept does not have, though keys has it
	void        bool        // receivers that have it refuse callbacks by somebody else's fault
}

// flight is a request to Tencent that may arrive yet.
type flight struct {
	key   secrets.Key
	until time.Time
}

// stage is where a replica stands.
type stage int

const (
	idle     stage = iota // until next
	calling               // a request is on its way, and has had no effect yet
	answered              // it had, but the replica does not know yet
	between               // it knows, and has not decided what comes next
)

// replica is an engine's memory and what it is at. A call that is under way is resumed by
// having the engine begin the same piece of a visit again, with the answers so far.
type replica struct {
	conf    int8      // its settings
	reload  time.Time // when it reloads them, where all do so all the time
	stage   stage
	paused  time.Time // since then, until it does something
	next    time.Time
	tr      track  // at the beginning of the piece
	action  Action // "" is the read that opens a visit
	wish    Wish
	began   time.Time
	seed    byte
	answers []answer
	request request
}

// request is a call that the engine makes.
type request struct {
	call     call
	ring     *Keyring
	version  int64
	key      secrets.Key
	deadline time.Time
}

type call int

const (
	noCall call = iota
	readCall
	writeCall
	lookCall
	setCall
)

// answer is what the engine is told of a request, and when.
type answer struct {
	at      time.Time
	snap    Snapshot
	version int64
	key     secrets.Key
	err     error
}

// wire is all that an engine sees of a world: the answers recorded for it. The first request
// that has none is kept, and it and all that follow fail: the engine's memory is then thrown away.
type wire struct {
	now      time.Time
	ahead    time.Duration
	answers  []answer
	used     int
	open     request
	deadline time.Time
	seed     byte
	anew     bool // names differ from those of the life before
}

var errUnanswered = errors.New("there is no answer yet")

func (w *wire) ask(r request) answer {
	if w.open.call == noCall && w.used < len(w.answers) {
		a := w.answers[w.used]
		w.used++
		w.now = a.at
		return a
	}
	if w.open.call == noCall {
		w.open = r
	}
	return answer{err: errUnanswered}
}

func (w *wire) String() string { return "the searched store" }

func (w *wire) Read(context.Context, secrets.Target) (Snapshot, error) {
	a := w.ask(request{call: readCall})
	return a.snap, a.err
}

func (w *wire) Write(_ context.Context, _ secrets.Target, k *Keyring, version int64) (int64, error) {
	a := w.ask(request{call: writeCall, ring: k, version: version})
	return a.version, a.err
}

func (w *wire) Purge(context.Context, secrets.Target, int64) error { return nil }

func (w *wire) SetKey(_ context.Context, _ secrets.Target, k secrets.Key) (string, error) {
	return "", w.ask(request{call: setCall, key: k, deadline: w.deadline}).err
}

func (w *wire) KeyInForce(context.Context, secrets.Target) (secrets.Key, error) {
	a := w.ask(request{call: lookCall})
	return a.key, a.err
}

func (w *wire) Now() time.Time                                 { return w.now.Add(w.ahead) }
func (w *wire) Steady() time.Duration                          { return w.now.Sub(dawn) }
func (w *wire) After(time.Duration) (<-chan time.Time, func()) { panic("nobody sleeps in here") }
func (w *wire) WithDeadline(ctx context.Context, at time.Time, _ time.Duration) (context.Context, context.CancelFunc) {
	w.deadline = at
	return ctx, func() {}
}

// Bytes of its seed are a key's random ones; jitter draws four, and there is none.
type seeded struct{ *wire }

func (s seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
		if len(p) > 4 {
			p[i] = s.seed
		}
	}
	if len(p) == idLength+idLength/4 && s.anew {
		p[1]++
	}
	return len(p), nil
}

// dawn is when every world begins.
var dawn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// explorer has two engines, into which any replica's memory can be put.
type explorer struct {
	*scenario
	engines [2]*Engine
	tracks  [2]*track
	wires   [2]*wire
	conf    [2]int8 // the settings that they have now
}

func newExplorer(s *scenario) *explorer {
	x := &explorer{scenario: s}
	for i := range x.engines {
		w := &wire{ahead: s.ahead[i]}
		x.wires[i] = w
		e, err := New(x.options(i, 0))
		if err != nil {
			panic(err)
		}
		x.engines[i], x.tracks[i] = e, e.track(codecTarget)
	}
	return x
}

// options are the parts of a replica's engine, with the settings of a number.
func (x *explorer) options(i int, conf int8) Options {
	w, p := x.wires[i], *x.settings(conf)
	p.Owner = owners[i]
	return Options{Store: w, API: w, Clock: w, Random: seeded{w}, Policy: p, Due: func(_ secrets.Target, _ *Keyring, at time.Time) time.Time {
		if at.After(dawn.Add(-time.Minute)) {
			return time.Time{} // one rotation, and never again
		}
		return dawn
	}}
}

var owners = [2]string{"A", "B"}

// proceed has a replica go on with the answers it has, until it makes a request that has
// none or has nothing more to do. With pause it stops once it has to decide. It reports
// whether it came to that.
func (x *explorer) proceed(w *world, i int, r *replica, pause bool) (decides bool) {
	e, tr, wire, ctx := x.engine(i, r), x.tracks[i], x.wires[i], context.Background()
	r.paused = time.Time{}
	for {
		if r.stage == between {
			wire.now = w.now
			r.recall(e, tr)
		} else {
			*wire = wire.again(r)
			r.recall(e, tr)
			var err error
			step := r.action.Step
			if step == "" {
				step = StepObserve
				err = e.open(ctx, tr)
			} else {
				err = e.carryOut(ctx, tr, r.action, r.wish)
			}
			if wire.open.call != noCall {
				r.stage, r.request = calling, wire.open
				return decides
			}
			if err != nil {
				r.rest(e, tr, e.storeFailed(tr, step, err).Add(-wire.ahead))
				return decides
			}
			decides = true
			if pause {
				r.keep(e, tr)
				r.stage, r.paused = between, w.now
				w.left.pause--
				return decides
			}
		}
		if x.removed(w, r, tr) {
			return decides
		}
		a, wish := e.decide(tr)
		if a.Step == StepWait {
			r.rest(e, tr, e.nextVisit(tr, a.Until, a.Watch).Add(-wire.ahead))
			return decides
		}
		r.keep(e, tr)
		r.stage, r.action, r.wish, r.began = calling, a, wish, w.now
		if a.Step == StepStage || a.Step == StepAdopt {
			w.drawn++
			r.seed = w.drawn
		}
	}
}

func (w *wire) again(r *replica) wire {
	k := r.tr.snap.Keyring
	return wire{now: r.began, ahead: w.ahead, answers: r.answers, seed: r.seed, anew: k != nil && k.Life == enrolled}
}

// keep takes the engine's memory over, for the next piece.
func (r *replica) keep(e *Engine, tr *track) {
	r.tr = *tr
	r.answers, r.request, r.action, r.wish = nil, request{}, Action{}, Wish{}
}

// recall gives the engine its memory back. With one target the store was last heard when its
// keyring was.
func (r *replica) recall(e *Engine, tr *track) {
	*tr, e.silences.last, e.silences.long = r.tr, r.tr.answered, nil
}

func (r *replica) rest(e *Engine, tr *track, next time.Time) {
	r.keep(e, tr)
	r.stage, r.next = idle, next
}
