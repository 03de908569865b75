package webhook

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

const (
	// DefaultMaxBody is the longest body that is read, in bytes. Tencent's are below ten
	// thousand.
	DefaultMaxBody = 1 << 20

	// DefaultMaxMemory is the room for bodies longer than SmallBody, in bytes.
	DefaultMaxMemory = 64 << 20

	// DefaultBodyTimeout is how long a body may take to come.
	DefaultBodyTimeout = 10 * time.Second

	// DefaultRereadTimeout is how long a callback that no held key explains waits for the keys
	// to be read once more.
	DefaultRereadTimeout = 5 * time.Second
)

// Options are a Verifier's settings. Only Keys must be given.
type Options struct {
	Keys          KeySource
	RereadTimeout time.Duration // 0: DefaultRereadTimeout

	// MaxBody is the longest body that is read; 0 means DefaultMaxBody. MaxMemory is what all
	// bodies longer than SmallBody may take together; 0 means DefaultMaxMemory. Who comes when
	// there is no room waits, for as long as a body may take. Callbacks that wait for the keys to
	// be read once more take a quarter of MaxMemory at most, whatever their length. One that finds
	// no room to wait is answered 503 at once, and the keys are read all the same.
	MaxBody, MaxMemory int64

	// MaxWaiting is how many callbacks may wait for the keys to be read once more; 0 means as many
	// as there is memory for. Each holds a connection: leave some to those that need not wait.
	MaxWaiting int

	// BodyTimeout is how long a body may take to come; 0 means DefaultBodyTimeout. It needs
	// a http.ResponseWriter that http.ResponseController can set deadlines on, as the
	// standard library's are and those that wrap one in a type with Unwrap.
	BodyTimeout time.Duration

	// Replays, if given, has the very same callback not handled twice: it is answered as one
	// that went well, without the handler. A callback whose handler fails (panics, or answers
	// other than 2xx) is not remembered; one that comes while the first is being handled waits
	// for the outcome.
	Replays *ReplayGuard

	// AllowUnsigned has callbacks without Sign pass while the keyring says that the
	// application has no key yet. They can come from anybody.
	AllowUnsigned bool

	// Leeway has a callback pass so long after its ExpireTime, for a clock that is fast.
	Leeway time.Duration

	Log     *slog.Logger     // refusals, at most some a second of each kind, with how many were left out; nil: none
	Observe func(Result)     // called after each request, for metrics; nil: none
	Now     func() time.Time // nil: time.Now
}

// Verifier verifies callbacks with keys that are read again before one is refused. Handler is
// for net/http, Verify for callbacks that come in some other way.
type Verifier struct {
	Options
	room  *semaphore.Weighted
	waits *waits
	often map[Reason]*often // keeps a flood of refusals from becoming a flood of log lines
}

// NewVerifier gives a Verifier. Options without Keys are a mistake, and panic.
func NewVerifier(o Options) *Verifier {
	if o.Keys == nil {
		panic("webhook: Options.Keys is missing")
	}
	o.MaxBody = orElse(o.MaxBody, DefaultMaxBody)
	o.MaxMemory = max(orElse(o.MaxMemory, DefaultMaxMemory), o.MaxBody+1)
	o.BodyTimeout = orElse(o.BodyTimeout, DefaultBodyTimeout)
	o.RereadTimeout = orElse(o.RereadTimeout, DefaultRereadTimeout)
	o.Leeway = max(0, o.Leeway)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Result) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &Verifier{Options: o, room: semaphore.NewWeighted(o.MaxMemory), waits: newWaits(&o), often: map[Reason]*often{}}
	for _, r := range Reasons() {
		v.often[r] = &often{rate: rate.NewLimiter(rate.Every(200*time.Millisecond), 20)}
	}
	return v
}

func orElse[T ~int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Verify tells what a body is of, as a callback that came in at this moment. Its error is a
// *Refusal. The ReplayGuard is not asked, because Verify does not learn how the handling ends.
func (v *Verifier) Verify(ctx context.Context, body []byte) (*Event, error) {
	return v.judge(ctx, body, v.Now(), &Result{})
}

// judge verifies a body that came at a time, with keys that are read once more if those held
// do not explain it.
func (v *Verifier) judge(ctx context.Context, body []byte, came time.Time, result *Result) (*Event, error) {
	c, err := Parse(body)
	if err != nil {
		return nil, err
	}
	result.SdkAppID = c.SdkAppID
	keys, served := v.Keys.Keys(c.SdkAppID)
	if !served {
		// Neither the answer nor its time tells which are: only the log does.
		keys = Keys{SdkAppID: c.SdkAppID}
	}
	at := came.Add(-v.Leeway)
	id, err := v.verify(&c, keys, at)
	if v.mayBeNew(err) {
		result.Reread = served
		id, err = v.again(ctx, &c, body, at)
	}
	if !served && ReasonOf(err) != Undecided {
		err = refuse(WrongApplication, "SdkAppId %d is not served here", c.SdkAppID)
	}
	if err != nil {
		return nil, err
	}
	result.KeyID, result.EventType = id, c.EventType
	return &Event{Callback: c, KeyID: id, Body: body}, nil
}

// verify is Callback.Verify, and lets unsigned callbacks pass where that is wanted.
func (v *Verifier) verify(c *Callback, keys Keys, at time.Time) (id string, err error) {
	id, err = c.Verify(keys, at)
	if ReasonOf(err) == Unsigned && v.AllowUnsigned && keys.AcceptUnsigned {
		return "", nil
	}
	return id, err
}

// mayBeNew reports whether keys that are not held yet could make a difference.
func (v *Verifier) mayBeNew(err error) bool {
	reason := ReasonOf(err)
	return reason == BadSignature || (reason == Unsigned && v.AllowUnsigned)
}

// again verifies with keys that were read after the callback came in. If they cannot be read,
// nobody knows whether it is genuine.
func (v *Verifier) again(ctx context.Context, c *Callback, body []byte, at time.Time) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, v.RereadTimeout)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	if leave, err := v.waits.enter(body); err == nil {
		defer leave()
	} else {
		giveUp(err) // it only asks: the sender's next try finds the keys
	}
	keys, readErr := v.Keys.Reread(ctx, c.SdkAppID, func(k Keys) bool {
		_, err := v.verify(c, k, at)
		return err == nil
	})
	id, err := v.verify(c, keys, at)
	if err != nil && readErr != nil {
		r := refuse(Undecided, "%s, and newer keys could not be read: %s", err, readErr)
		r.cause = readErr
		return "", r
	}
	return id, err
}
