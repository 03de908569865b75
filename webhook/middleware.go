package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// Result is what became of one request.
type Result struct {
	Reason    Reason // "" if the callback was handled
	SdkAppID  int64  // 0 if the body was not understood
	KeyID     string
	EventType string // from a callback that verified, else ""
	Reread    bool   // no held key explained it at first
	Status    int    // of the answer; 0: the handler panicked
}

// Middleware is NewVerifier(o).Handler.
func Middleware(o Options) func(http.Handler) http.Handler { return NewVerifier(o).Handler }

// Handler verifies every request as a callback before next sees it, and answers what is
// refused: 400, 401, 405 (not a POST request), 408, 413, or 503 where the keys could not be
// read. next finds the body unread, and the Event in the request's context, which does not end
// when the sender goes away: a callback may not be sent again. Where next writes nothing, the
// answer is 200 with {"error_code":0}, as Tencent suggests. A server's WriteTimeout has to have
// room for BodyTimeout, RereadTimeout and next.
func (v *Verifier) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { v.serve(w, r, next) })
}

func (v *Verifier) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	came := v.Now()
	var result Result
	defer func() { v.Observe(result) }()
	deadline := time.Now().Add(v.BodyTimeout)
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(deadline) // not every ResponseWriter can
	if r.Method != http.MethodPost {
		result.Reason, result.Status = Malformed, http.StatusMethodNotAllowed
		// Its body, if it has one, is not waited for to use the connection again.
		_ = conn.SetReadDeadline(time.Now())
		w.Header().Set("Connection", "close")
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a callback is a POST request", http.StatusMethodNotAllowed)
		return
	}
	ctx := context.WithoutCancel(r.Context())
	body, free, err := v.read(ctx, w, r, deadline)
	defer free()
	var event *Event
	if err == nil {
		event, err = v.judge(ctx, body, came, &result)
	}
	var seen *sighting
	if err == nil && v.Replays != nil {
		seen, err = v.admit(ctx, body, event.ExpireTime)
	}
	if err != nil {
		result.Reason = ReasonOf(err)
		result.Status = result.Reason.status()
		v.answer(w, r, &result, err)
		return
	}
	answer := &recorder{ResponseWriter: w}
	if seen != nil {
		defer func() { v.Replays.end(seen, answer.ok()) }()
	}
	r = r.WithContext(context.WithValue(ctx, eventKey{}, event))
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = newBody(body), int64(len(body)), nil, nil
	next.ServeHTTP(answer, r)
	answer.finish()
	result.Status = answer.status
}

// unsignedMemory is how long a callback without ExpireTime is known again; all of Tencent's tries take a minute and a half.
const unsignedMemory = 10 * time.Minute

// admit asks the ReplayGuard. A callback is judged by the time it came, and its body and the
// keys may come later: so long after it has expired, another copy may still be let pass.
func (v *Verifier) admit(ctx context.Context, body []byte, expireTime int64) (*sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, v.RereadTimeout)
	defer cancel()
	if expireTime == 0 { // an unsigned one may have none
		expireTime = v.Now().Add(unsignedMemory).Unix()
	}
	late := v.Leeway + v.BodyTimeout + v.RereadTimeout + time.Second
	switch seen, err := v.Replays.admit(ctx, digestOf(body), expireTime, v.Now().Add(-late)); {
	case err != nil:
		return nil, refuse(Undecided, "the very same callback is being handled, for longer than %s", v.RereadTimeout)
	case seen == nil:
		return nil, refuse(Replayed, "the very same callback was handled before")
	default:
		return seen, nil
	}
}

// read takes the body from the connection, no more of it than the limit, and no longer than
// until the deadline. free gives its room back.
func (v *Verifier) read(ctx context.Context, w http.ResponseWriter, r *http.Request, deadline time.Time) (body []byte, free func(), err error) {
	free = func() {}
	reserve := func(room int64) error {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		if v.room.Acquire(ctx, room) != nil {
			return errNoRoom
		}
		before := free
		free = func() { before(); v.room.Release(room) }
		return nil
	}
	body, err = readAll(http.MaxBytesReader(w, r.Body, v.MaxBody), r.ContentLength, v.MaxBody, reserve)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, free, nil // and net/http has taken the deadline back at the body's end
	case errors.As(err, &tooLarge):
		return nil, free, refuse(TooLarge, "the body has more than %d bytes", v.MaxBody)
	case errors.Is(err, errNoRoom):
		w.Header().Set("Connection", "close")
		return nil, free, refuse(Undecided, "there was no room for a body this long: others take %d bytes", v.MaxMemory)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, free, refuse(Incomplete, "the body did not come within %s", v.BodyTimeout)
	}
	return nil, free, refuse(Incomplete, "the body broke off")
}

var errNoRoom = errors.New("no room")

// SmallBody is the length up to which a body takes no part in Options.MaxMemory, in bytes, so
// that a flood of long ones does not stand in the way of it.
const SmallBody = 32 << 10

// readAll makes room for what was announced only when a good part of it has come, so that
// promises cost nothing, and then once, so that a long body costs its length and no more.
func readAll(r io.Reader, announced, limit int64, reserve func(int64) error) ([]byte, error) {
	body := make([]byte, 0, min(1024, limit+1))
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
		room := min(int64(2*cap(body)), limit+1, SmallBody+1)
		if cap(body) > SmallBody {
			room = limit + 1
			if announced >= int64(len(body)) && announced < limit {
				room = announced + 1
			}
			if err := reserve(room); err != nil {
				return nil, err
			}
		}
		body = append(make([]byte, 0, max(room, int64(len(body))+1)), body...)
	}
}

// answer tells the sender in a word what the log tells in full.
func (v *Verifier) answer(w http.ResponseWriter, r *http.Request, result *Result, err error) {
	v.often[result.Reason].tell(v.Log, result.Reason, "detail", short(err.Error()), "status", result.Status, "sdk_app_id", result.SdkAppID, "from", short(r.RemoteAddr))
	switch result.Reason {
	case Replayed:
		writeDone(w)
		return
	case Undecided:
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Connection", "close") // who sends what is no callback holds no connection
	http.Error(w, result.Reason.answer(), result.Status)
}
