package rotator

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// now is the world's time as this replica's machine tells it.
func (r *replica) now() time.Time { return r.w.now.Add(r.skew + r.jump) }

// simClock is a replica's clock.
type simClock struct{ r *replica }

func (c simClock) Now() time.Time                                 { return c.r.now() }
func (c simClock) Steady() time.Duration                          { return c.r.w.now.Sub(simStart) }
func (c simClock) After(time.Duration) (<-chan time.Time, func()) { panic("nobody sleeps in here") }

type deadlineKey struct{}

func (c simClock) WithDeadline(ctx context.Context, at time.Time) (context.Context, context.CancelFunc) {
	return context.WithValue(ctx, deadlineKey{}, at), func() {}
}

type simRandom struct{ rnd *rand.Rand }

func (r simRandom) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.rnd.Uint32())
	}
	return len(p), nil
}

// simStore is Vault as one replica reaches it.
type simStore struct{ r *replica }

var errAway = errors.New("the store is away")

func (s simStore) String() string { return "simulated" }

func (s simStore) Read(context.Context, Target) (Snapshot, error) {
	s.r.interlude()
	w := s.r.w
	if w.down || (!w.calm && w.chance(60)) {
		return Snapshot{}, errAway
	}
	back := 0
	if !w.calm && w.chance(40) && len(w.versions) > 1 && w.now.Sub(w.versions[len(w.versions)-1].from) < 20*time.Second {
		back = 1 // a node that does not know the newest version yet
	}
	snap := w.snapshot(back)
	s.r.interlude() // the answer takes its time
	return snap, nil
}

func (w *world) snapshot(back int) Snapshot {
	n := len(w.versions) - 1 - back
	if n < 0 {
		return Snapshot{}
	}
	v := w.versions[n]
	return Snapshot{Keyring: v.k.Clone(), Version: v.number, Written: v.from}
}

func (s simStore) Write(_ context.Context, _ Target, k *Keyring, cas int64) (int64, error) {
	w := s.r.w
	if _, err := k.Encode(); err != nil {
		w.fail("a keyring that cannot be written: %v", err)
	}
	s.r.interlude() // held up on its way
	if w.down || (!w.calm && w.chance(40)) {
		return 0, errAway
	}
	if current := w.snapshot(0).Version; current != cas {
		return 0, ErrConflict
	}
	w.versions = append(w.versions, version{k.Clone(), cas + 1, w.now})
	w.say("%s writes version %d: %v", s.r.name, cas+1, k.Accept())
	w.check()
	s.r.interlude()
	if !w.calm && w.chance(40) {
		return 0, errAway // the answer is lost
	}
	return cas + 1, nil
}

func (s simStore) Purge(context.Context, Target, int64) error { return nil }

// simAPI is Tencent as one replica reaches it.
type simAPI struct{ r *replica }

// expired reports whether a request signed now would be refused for its time.
func (a simAPI) expired() bool { return (a.r.skew + a.r.jump).Abs() > signatureLife }

func apiErr(class Class, code string) error { return &APIError{Class: class, Code: code} }

func (a simAPI) SetKey(ctx context.Context, _ Target, k Key) (string, error) {
	w := a.r.w
	if k.IsZero() {
		w.fail("I4: an empty key is sent")
	}
	a.r.interlude()
	// What the real client does last: the deadline by this machine's clock, then it is signed and sent.
	if deadline, ok := ctx.Value(deadlineKey{}).(time.Time); !ok || !a.r.now().Before(deadline) {
		return "", apiErr(RefusedForNow, "ClientError.NotSent")
	}
	signed := a.r.now()
	if a.expired() {
		return "", apiErr(RefusedForNow, "AuthFailure.SignatureExpire")
	}
	if w.barred {
		return "", apiErr(Refused, "ResourceUnavailable.ServiceExpired")
	}
	if w.calm {
		w.apply(k)
		return "id", nil
	}
	switch w.rnd.IntN(9) {
	case 0:
		return "", apiErr(RefusedForNow, "RequestLimitExceeded")
	case 1:
		return "", apiErr(Refused, "UnauthorizedOperation.SdkAppId")
	case 2:
		return "", apiErr(Doubtful, "ClientError.NetworkError")
	case 3:
		w.apply(k)
		return "", apiErr(Doubtful, "InternalError")
	case 4: // it arrives as late as its signature allows
		w.inFlight = append(w.inFlight, flight{k, w.now.Add(time.Duration(w.rnd.IntN(420)) * time.Second), signed})
		a.r.interlude()
		return "", apiErr(Doubtful, "ClientError.NetworkError")
	}
	w.apply(k)
	a.r.interlude()
	return "id", nil
}

func (a simAPI) KeyInForce(context.Context, Target) (Key, error) {
	w := a.r.w
	a.r.interlude()
	switch {
	case a.expired():
		return Key{}, apiErr(RefusedForNow, "AuthFailure.SignatureExpire")
	case w.forbidden && len(w.versions) > 0:
		return Key{}, &APIError{Class: Refused, Code: "AuthFailure.UnauthorizedOperation", Forbidden: true}
	case w.barred:
		return Key{}, apiErr(Refused, "ResourceUnavailable.ServiceExpired")
	case !w.calm && w.chance(6):
		return Key{}, apiErr(Doubtful, "ClientError.NetworkError")
	}
	seen := w.inForce
	a.r.interlude() // the answer grows old on its way
	if seen.IsZero() {
		return Key{}, nil
	}
	return seen.named(""), nil
}
