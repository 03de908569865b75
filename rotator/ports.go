package rotator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tiwkeyd/secrets"
)

// Store keeps one Keyring per Target. It is the only state there is.
//
// Implementations are safe for concurrent use by goroutines and, through Write's
// check-and-set, by processes. They never log or return a key's value.
type Store interface {
	// Read returns the target's keyring. A target that has none (never written, deleted,
	// destroyed) gives a Snapshot with a nil Keyring and the Version that a Write must name.
	Read(ctx context.Context, t secrets.Target) (Snapshot, error)

	// Write replaces the keyring if its version is still the one given, and returns the
	// new version. Where somebody else wrote in between it returns ErrConflict; an own
	// write whose answer was lost on the way is recognised and is no conflict. After any
	// other error the write may or may not have happened, now or later: read again.
	// The write has k's Revision and Life, or new ones if k has none. Where what it replaced
	// turns out to be of another life, that is there again, and the error is ErrAnotherLife.
	Write(ctx context.Context, t secrets.Target, k *Keyring, version int64) (int64, error)

	// Purge makes every stored version older than the given one unreadable for good. A
	// store without history does nothing.
	Purge(ctx context.Context, t secrets.Target, version int64) error

	// String names the store for people: kind and place, never a credential.
	String() string
}

// Snapshot is what Store.Read saw.
type Snapshot struct {
	Keyring *Keyring  // nil: there is none
	Version int64     // what Write must be given to replace what was read
	Written time.Time // when this version became readable, by the store's clock; zero if unknown
}

// sameCurrent reports whether two snapshots have the same current key, or neither a keyring.
func (s Snapshot) sameCurrent(o Snapshot) bool {
	a, b := s.Keyring, o.Keyring
	return (a == nil) == (b == nil) && (a != nil && a.CallbackKey().Equal(b.CallbackKey()) || a == nil && s.Version == o.Version)
}

// sameVersion reports whether two snapshots are of one write.
func (s Snapshot) sameVersion(o Snapshot) bool {
	a, b := s.Keyring, o.Keyring
	return s.Version == o.Version && (a == nil) == (b == nil) && (a == nil || a.Revision == b.Revision && a.Edited == b.Edited)
}

// ErrConflict says that the keyring was changed by somebody else between Read and Write.
var ErrConflict = errors.New("the keyring was changed by somebody else in between")

// ErrAnotherLife is the ErrConflict of a keyring that was deleted and made anew in between, and came to
// the version that was read.
var ErrAnotherLife = fmt.Errorf("%w: it was deleted and made anew, and the new one stays; wait ten minutes before a keyring is made anew", ErrConflict)

// CallbackAPI is the part of Tencent's API that the engine needs. Every error it returns
// is, or wraps, an *APIError; one that does not is taken as Doubtful.
type CallbackAPI interface {
	// SetKey asks that callbacks of t be signed with k from now on. k is never zero.
	// It returns the RequestId.
	SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error)

	// KeyInForce returns the key that callbacks of t are signed with: the zero Key if
	// they are unsigned, and else a Key without an id (compare it with Equal).
	KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error)
}

// Class is what an API error means for the request that got it.
type Class int

const (
	// Doubtful: the request may have been applied, may be applied yet, or not. It is the
	// zero Class because mistaking a refusal for doubt is only slow, while the reverse
	// would be dangerous.
	Doubtful Class = iota
	// RefusedForNow: not applied; the same request may be repeated later.
	RefusedForNow
	// Refused: not applied, and repeating it is no use until something else changes.
	Refused
)

func (c Class) String() string {
	return [...]string{"doubtful", "refused for now", "refused"}[c]
}

// APIError is an answer of Tencent's API, or the lack of one.
type APIError struct {
	Class     Class
	Action    string // the API call: "SetWhiteboardPushCallbackKey"
	Target    secrets.Target
	Code      string // "ResourceUnavailable.ServiceExpired", "ClientError.NetworkError"
	Message   string // Tencent's words, or the network's; no key material
	RequestID string // what Tencent's support asks for; empty if no answer came
	Meaning   string // the code in words
	Advice    string // what the reader can do about it
	Forbidden bool   // the credential may not call this Action at all
	Err       error  // the cause, if it is an error of this side
}

func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s for %s: %s: %s", e.Action, e.Target, e.Class, e.Code)
	if e.Meaning != "" {
		fmt.Fprintf(&b, " (%s)", e.Meaning)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, "; RequestId %s", e.RequestID)
	}
	if e.Advice != "" {
		fmt.Fprintf(&b, "; %s", e.Advice)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *APIError) Unwrap() error { return e.Err }
