package sim

import (
	"context"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// tencent is the API, and the key that callbacks are signed with.
type tencent struct {
	inForce   secrets.Key
	before    []secrets.Key // those that were in force earlier
	foreign   bool          // somebody else set it
	inFlight  []flight
	forbidden bool // the credential may not ask which key is in force
	barred    bool // the service has expired
}

// flight is a request that is still on its way.
type flight struct {
	from           string
	key            secrets.Key
	arrive, signed time.Time
	epoch          int
}

// sign has callbacks signed with another key from now on.
func (t *tencent) sign(k secrets.Key) {
	if !k.Equal(t.inForce) {
		t.before = append(t.before, t.inForce)
		t.before = t.before[max(0, len(t.before)-50):]
		t.inForce = k
	}
}

// arrival takes the next request that arrives until a time, nil if there is none.
func (t *tencent) arrival(until time.Time) *flight {
	first := -1
	for i, f := range t.inFlight {
		if !f.arrive.After(until) && (first < 0 || f.arrive.Before(t.inFlight[first].arrive)) {
			first = i
		}
	}
	if first < 0 {
		return nil
	}
	f := t.inFlight[first]
	t.inFlight = append(t.inFlight[:first], t.inFlight[first+1:]...)
	return &f
}

// signedWith reports whether a key is in force, or was a while ago.
func (t *tencent) signedWith(k secrets.Key) bool {
	for _, b := range t.before {
		if b.Equal(k) {
			return true
		}
	}
	return t.inForce.Equal(k)
}

// api is Tencent as one replica reaches it.
type api struct{ r *replica }

// expired reports whether a request signed now would be refused for its time.
func (a api) expired() bool { return (a.r.skew + a.r.jump).Abs() > signatureLife }

func refusal(class rotator.Class, code string) error {
	return &rotator.APIError{Class: class, Action: "Set", Code: code}
}

func (a api) SetKey(ctx context.Context, _ secrets.Target, k secrets.Key) (string, error) {
	w := a.r.w
	if k.IsZero() {
		w.fail("I4: an empty key is sent")
	}
	w.rests(a.r)
	a.r.interlude()
	// What the real client does last: the deadline by this machine's clocks, then it is signed and sent.
	if !w.Mutant.ignoresDeadlines() && clock(a).passed(ctx) {
		return "", refusal(rotator.RefusedForNow, "ClientError.NotSent")
	}
	if a.expired() {
		return "", refusal(rotator.RefusedForNow, "AuthFailure.SignatureExpire")
	}
	if w.tencent.barred {
		return "", refusal(rotator.Refused, "ResourceUnavailable.ServiceExpired")
	}
	id, err := a.set(k)
	return id, w.Mutant.answer(err)
}

// rests checks that each request rests on a write of its own: else the keyring does not count it. Of the
// mutants only one is to be found by that: the others have to do harm.
func (w *World) rests(r *replica) {
	k := r.wrote
	r.wrote = nil
	if w.Mutant != "" && w.Mutant != RevisionByContent {
		return
	}
	if k == nil || w.sent == k {
		w.fail("I3: %s sends a key with no write of its own", r.name)
	}
	w.sent = k
}

// set is what Tencent and the way to it make of a request that is in order.
func (a api) set(k secrets.Key) (string, error) {
	w, signed := a.r.w, a.r.now()
	switch {
	case w.mishap(9):
		return "", refusal(rotator.RefusedForNow, "RequestLimitExceeded")
	case w.mishap(9):
		return "", refusal(rotator.Refused, "UnauthorizedOperation.SdkAppId")
	case w.mishap(9):
		return "", refusal(rotator.Doubtful, "ClientError.NetworkError")
	case w.mishap(9):
		w.apply(k, a.r.epoch)
		return "", refusal(rotator.Doubtful, "InternalError")
	case w.mishap(9): // it arrives as late as its signature allows
		w.tencent.inFlight = append(w.tencent.inFlight, flight{a.r.name, k, w.now.Add(time.Duration(w.draw(420)) * time.Second), signed, a.r.epoch})
		a.r.interlude()
		return "", refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	w.apply(k, a.r.epoch)
	a.r.interlude()
	return "id", nil
}

func (a api) KeyInForce(context.Context, secrets.Target) (secrets.Key, error) {
	w := a.r.w
	t := &w.tencent
	a.r.interlude()
	switch {
	case a.expired():
		return secrets.Key{}, refusal(rotator.RefusedForNow, "AuthFailure.SignatureExpire")
	case t.forbidden && w.vault.snapshot().Keyring != nil: // else somebody grants it, to have the key adopted
		return secrets.Key{}, &rotator.APIError{Class: rotator.Refused, Code: "AuthFailure.UnauthorizedOperation", Forbidden: true}
	case t.barred:
		return secrets.Key{}, refusal(rotator.Refused, "ResourceUnavailable.ServiceExpired")
	case w.mishap(6):
		return secrets.Key{}, refusal(rotator.Doubtful, "ClientError.NetworkError")
	}
	seen := w.Mutant.sees(a.r)
	a.r.interlude() // the answer grows old on its way
	if seen.IsZero() {
		return secrets.Key{}, nil
	}
	return secrets.NewKey("", seen.Reveal()), nil
}
