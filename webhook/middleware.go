package webhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/time/rate"
)

const (
	// DefaultMaxBody is the longest body that is read, in bytes. Tencent's are below ten
	// thousand.
	DefaultMaxBody = 1 << 20

	// DefaultBodyTimeout is how long a body may take to come.
	DefaultBodyTimeout = 10 * time.Second

	// DefaultRereadTimeout is how long a callback that no held key explains waits for the keys
	// to be read once more.
	DefaultRereadTimeout = 5 * time.Second
)

// Options are a Middleware's settings. Only Keys must be given.
type Options struct {
	Keys          KeySource
	MaxBody       int64         // 0: DefaultMaxBody
	BodyTimeout   time.Duration // 0: DefaultBodyTimeout
	RereadTimeout time.Duration // 0: DefaultRereadTimeout

	// Replays, if given, has the very same callback not handled twice: it is answered as one
	// that went well, without the handler. A callback whose handler fails (panics, or answers
	// other than 2xx) is not remembered.
	Replays *ReplayGuard

	// AllowUnsigned has callbacks without Sign pass while the keyring says that the
	// application has no key yet. They can come from anybody.
	AllowUnsigned bool

	// Leeway has a callback pass so long after its ExpireTime, for a clock that is fast.
	Leeway time.Duration

	Log     *slog.Logger     // refusals, at most some a second; nil: none
	Observe func(Result)     // called after each request, for metrics; nil: none
	Now     func() time.Time // nil: time.Now
}

// Result is what became of one request.
type Result struct {
	Reason    Reason // "" if the callback was handled
	SdkAppID  int64  // 0 if the body was not understood
	KeyID     string
	EventType string // from a callback that verified, else ""
	Reread    bool   // no held key explained it at first
	Status    int    // of the answer; 0: the handler panicked
}

// verifier is a Middleware's part that does not depend on the handler.
type verifier struct {
	Options
	often rate.Sometimes // keeps a flood of refusals from becoming a flood of log lines
}

// Middleware verifies every request as a callback before a handler sees it, and answers what
// is refused: 400, 401, 408, 413, or 503 where the keys could not be read. The handler finds the
// body unread, and the Event in the request's context. Where it writes nothing, the answer is
// 200 with {"error_code":0}, as Tencent suggests.
func Middleware(o Options) func(http.Handler) http.Handler {
	if o.Keys == nil {
		panic("webhook: Options.Keys is missing")
	}
	o.MaxBody = orElse(o.MaxBody, DefaultMaxBody)
	o.BodyTimeout = orElse(o.BodyTimeout, DefaultBodyTimeout)
	o.RereadTimeout = orElse(o.RereadTimeout, DefaultRereadTimeout)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Result) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &verifier{Options: o, often: rate.Sometimes{First: 20, Interval: 200 * time.Millisecond}}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v.serve(w, r, next) })
	}
}

func orElse[T ~int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

func (v *verifier) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	var result Result
	defer func() { v.Observe(result) }()
	if r.Method != http.MethodPost {
		result.Reason, result.Status = Malformed, http.StatusMethodNotAllowed
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a callback is a POST request", http.StatusMethodNotAllowed)
		return
	}
	body, err := v.read(w, r)
	var event *Event
	if err == nil {
		event, err = v.judge(r.Context(), body, &result)
	}
	var seen digest
	if err == nil && v.Replays != nil {
		if seen = digestOf(body); !v.Replays.admit(seen, event.ExpireTime, v.Now()) {
			err = refuse(Replayed, "the very same callback was handled before")
		}
	}
	if err != nil {
		result.Reason = ReasonOf(err)
		result.Status = result.Reason.status()
		v.answer(w, r, &result, err)
		return
	}
	answer := &recorder{ResponseWriter: w}
	if v.Replays != nil {
		defer func() {
			if !answer.ok() {
				v.Replays.forget(seen)
			}
		}()
	}
	r = r.WithContext(context.WithValue(r.Context(), eventKey{}, event))
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = newBody(body), int64(len(body)), nil, nil
	next.ServeHTTP(answer, r)
	answer.finish()
	result.Status = answer.status
}

// read takes the body from the connection, no more of it than the limit, and no longer than
// the timeout.
func (v *verifier) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(v.BodyTimeout)) // not every ResponseWriter can
	body, err := readAll(http.MaxBytesReader(w, r.Body, v.MaxBody), r.ContentLength, v.MaxBody)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		// Or the handler's context would end with the deadline.
		_ = conn.SetReadDeadline(time.Time{})
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, refuse(TooLarge, "the body has more than %d bytes", v.MaxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, refuse(Incomplete, "the body did not come within %s", v.BodyTimeout)
	}
	return nil, refuse(Incomplete, "the body broke off")
}

// readAll makes room for what was announced only when a good part of it has come, so that
// promises cost nothing, and then once, so that a long body costs its length and no more.
func readAll(r io.Reader, announced, limit int64) ([]byte, error) {
	const small = 64 << 10
	body := make([]byte, 0, 1024)
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		if len(body) < cap(body) {
			continue
		}
		room := int64(2 * cap(body))
		if room > small {
			room = limit + 1
			if announced >= int64(len(body)) && announced < limit {
				room = announced + 1
			}
		}
		body = append(make([]byte, 0, max(room, int64(len(body))+1)), body...)
	}
}

// judge verifies a body, with keys that are read once more if those held do not explain it.
func (v *verifier) judge(ctx context.Context, body []byte, result *Result) (*Event, error) {
	c, err := Parse(body)
	if err != nil {
		return nil, err
	}
	result.SdkAppID = c.SdkAppID
	keys, served := v.Keys.Keys(c.SdkAppID)
	if !served {
		return nil, refuse(WrongApplication, "SdkAppId %d is not served here", c.SdkAppID)
	}
	now := v.Now().Add(-v.Leeway)
	id, err := v.verify(&c, keys, now)
	if v.mayBeNew(err) {
		result.Reread = true
		id, err = v.again(ctx, &c, now)
	}
	if err != nil {
		return nil, err
	}
	result.KeyID, result.EventType = id, c.EventType
	return &Event{Callback: c, KeyID: id, Body: body, Data: c.data()}, nil
}

// verify is Callback.Verify, and lets unsigned callbacks pass where that is wanted.
func (v *verifier) verify(c *Callback, keys Keys, now time.Time) (id string, err error) {
	id, err = c.Verify(keys, now)
	if ReasonOf(err) == Unsigned && v.AllowUnsigned && keys.AcceptUnsigned {
		return "", nil
	}
	return id, err
}

// mayBeNew reports whether keys that are not held yet could make a difference.
func (v *verifier) mayBeNew(err error) bool {
	reason := ReasonOf(err)
	return reason == BadSignature || (reason == Unsigned && v.AllowUnsigned)
}

// again verifies with keys that were read after the callback came in. The time by which it is
// judged is when it came. If they cannot be read, nobody knows whether it is genuine.
func (v *verifier) again(ctx context.Context, c *Callback, now time.Time) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, v.RereadTimeout)
	defer cancel()
	for {
		keys, readErr := v.Keys.Reread(ctx, c.SdkAppID)
		keyID, err := v.verify(c, keys, now)
		if err == nil || readErr == nil {
			return keyID, err
		}
		if ctx.Err() != nil {
			r := refuse(Undecided, "%s, and newer keys could not be read: %s", err, readErr)
			r.cause = readErr
			return "", r
		}
	}
}

// answer tells the sender in a word what the log tells in full.
func (v *verifier) answer(w http.ResponseWriter, r *http.Request, result *Result, err error) {
	v.often.Do(func() {
		v.Log.Warn("callback not handed on", "reason", string(result.Reason), "detail", err.Error(), "status", result.Status, "sdk_app_id", result.SdkAppID, "from", r.RemoteAddr)
	})
	switch result.Reason {
	case Replayed:
		writeDone(w)
		return
	case Undecided:
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, string(result.Reason), result.Status)
}
