package rotator

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tiwkeyd/secrets"
)

// SchemaVersion is the version of the keyring's stored form that this program writes, and
// the highest that it reads.
const SchemaVersion = 1

// State is where a key stands in its life.
type State string

const (
	Pending  State = "pending"  // accepted by receivers, not yet known to be in force
	Current  State = "current"  // in force at Tencent
	Previous State = "previous" // replaced or rolled back; accepted until AcceptUntil
)

// Reason is why a rotation was begun.
type Reason string

const (
	BySchedule Reason = "schedule"
	BySignal   Reason = "signal"
	ByCommand  Reason = "command"
	ByAdopt    Reason = "adopt"  // the first rotation of an application newly served
	ByRevoke   Reason = "revoke" // a leaked key: no propagation wait, no grace
)

// Keyring is all there is to know about one target: its keys and the rotation in hand. It
// is stored as one secret, which is also what the webhook receivers read.
type Keyring struct {
	Target         secrets.Target `json:"-"`
	Keys           []Entry        `json:"-"`
	Rotation       *Rotation      `json:"rotation,omitzero"`        // nil when nothing is in hand and nothing has failed
	RotatedAt      time.Time      `json:"rotated_at,omitzero"`      // when the current key was found in force; zero: never rotated
	AcceptUnsigned bool           `json:"accept_unsigned,omitzero"` // callbacks are unsigned until the first key is in force
	History        []Past         `json:"history,omitempty"`        // the rotations that ended of late, the newest last; never changed in place
	Overrides      *Overrides     `json:"overrides,omitzero"`       // nil: what is configured for all applies; never changed in place
	Revision       string         `json:"revision,omitzero"`        // names the write that made this version; "": not written yet, or by an older program
	Life           string         `json:"life,omitzero"`            // names the keyring from its creation on: one that was deleted and made anew has another
	Retired        []string       `json:"retired,omitempty"`        // fingerprints of the last keys that went, the newest last; never changed in place
	Revoked        []Revoked      `json:"revoked,omitempty"`        // the last keys that were revoked, the newest last; never changed in place

	// Edited says that callback_key or accept, which receivers read, did not say what Keys does when the
	// keyring was read: somebody changed them by hand.
	Edited bool `json:"-"`

	Unknown jsontext.Value `json:",embed"` // members of the stored form that this program does not know
}

// Revoked is a key that leaked. A receiver that has read of it never accepts it again, whatever else it reads.
type Revoked struct {
	ID          string         `json:"id"`
	Fingerprint string         `json:"sha256"` // Key.Fingerprint: a keyring that was made anew gives the same value another id
	Unknown     jsontext.Value `json:",embed"`
}

// Entry is one key of a Keyring.
type Entry struct {
	Key         secrets.Key `json:"-"`
	State       State       `json:"state"`
	CreatedAt   time.Time   `json:"created_at,omitzero"`
	PushAfter   time.Time   `json:"push_after,omitzero"`   // every receiver accepts the key from then on
	ActivatedAt time.Time   `json:"activated_at,omitzero"` // when it was found in force; zero: it never was
	AcceptUntil time.Time   `json:"accept_until,omitzero"` // previous: it may be dropped then
	Doubts      int         `json:"doubts,omitzero"`       // requests to set it of which nobody knows, or has written down yet, what became
	Confirmed   bool        `json:"confirmed,omitzero"`    // Tencent answered that it was set; else it was only found in force
	Renewed     int         `json:"renewed,omitzero"`      // how often receivers' time for it began anew, on every replica

	Unknown jsontext.Value `json:",embed"`
}

// Rotation is the rotation in hand, or the last one if it failed.
type Rotation struct {
	ID         string    `json:"id"`
	Reason     Reason    `json:"reason"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	Attempts   int       `json:"attempts"`             // requests to Tencent that failed, over all keys tried since the last success
	Owner      string    `json:"owner"`                // the replica that carries it out
	LeaseUntil time.Time `json:"lease_until,omitzero"` // another replica may take over then
	RetryAt    time.Time `json:"retry_at,omitzero"`    // nothing is tried before, unless asked for
	LastError  *Failure  `json:"last_error,omitzero"`  // nil: none so far

	Unknown jsontext.Value `json:",embed"`
}

// Failure is the last thing that went wrong in a rotation.
type Failure struct {
	Code      string    `json:"code"`
	Message   string    `json:"message"`
	RequestID string    `json:"request_id"`
	Refused   bool      `json:"refused"` // Tencent said no for good; false: its answers stayed in doubt
	At        time.Time `json:"at,omitzero"`

	Unknown jsontext.Value `json:",embed"`
}

// Current is the entry of the key in force, nil if no key ever was.
func (k *Keyring) Current() *Entry { return k.find(Current) }

// Pending is the entry of the key being introduced, nil if there is none.
func (k *Keyring) Pending() *Entry { return k.find(Pending) }

func (k *Keyring) find(s State) *Entry {
	for i := range k.Keys {
		if k.Keys[i].State == s {
			return &k.Keys[i]
		}
	}
	return nil
}

// Lookup is the entry whose key has the given value, nil if there is none.
func (k *Keyring) Lookup(key secrets.Key) *Entry {
	for i := range k.Keys {
		if k.Keys[i].Key.Equal(key) {
			return &k.Keys[i]
		}
	}
	return nil
}

// CallbackKey is the current key, the zero Key if there is none: for receivers that know
// one key only.
func (k *Keyring) CallbackKey() secrets.Key {
	if e := k.Current(); e != nil {
		return e.Key
	}
	return secrets.Key{}
}

// Accept lists the keys that a receiver must accept now: current, pending, previous.
func (k *Keyring) Accept() []secrets.Key {
	var keys []secrets.Key
	for _, s := range []State{Current, Pending, Previous} {
		for i := range k.Keys {
			if k.Keys[i].State == s {
				keys = append(keys, k.Keys[i].Key)
			}
		}
	}
	return keys
}

// Clone is a copy that shares nothing that can change.
func (k *Keyring) Clone() *Keyring {
	c := *k
	c.Keys = slices.Clone(k.Keys)
	if k.Rotation != nil {
		c.Rotation = new(*k.Rotation)
		if f := k.Rotation.LastError; f != nil {
			c.Rotation.LastError = new(*f)
		}
	}
	return &c
}

// Named is k for a Store to write: as it is if it has a revision, else Revised.
func (k *Keyring) Named() (*Keyring, error) {
	if k.Revision != "" {
		return k, nil
	}
	return k.Revised(nil)
}

// Continues reports whether k can be the version after was, as far as is known: it is of the same life,
// or was the first to be given one, since was is an older program's.
func (k *Keyring) Continues(was *Keyring) bool {
	return was == nil || k.Life == "" || k.Life == was.Life || (was.Life == "" && k.Life == k.Revision)
}

// Revised is k with a revision of its own, from a source of randomness, and with a life if it has none. Version and revision together tell a write
// from all others. Neither is enough alone: another replica can have written the same content,
// a keyring that was deleted and made anew comes to the same version again, and an older program
// copies a revision that it does not know.
func (k *Keyring) Revised(random io.Reader) (*Keyring, error) {
	id, err := secrets.NewID(random)
	if err != nil {
		return nil, fmt.Errorf("name a write of the keyring of %s: %w", k.Target, err)
	}
	n := k.Clone()
	n.Revision, n.Edited = id, false
	if n.Life == "" {
		n.Life = id
	}
	return n, nil
}

// goneKept is how many of the keys that went are remembered.
const goneKept = 16

// went reports whether key was retired or revoked, as far as that is remembered.
func (k *Keyring) went(key secrets.Key) bool {
	print := key.Fingerprint()
	return slices.Contains(k.Retired, print) || slices.ContainsFunc(k.Revoked, func(r Revoked) bool { return r.Fingerprint == print })
}

// remember is list with one more, of which the last goneKept are kept. Whoever shares list does not see it change.
func remember[T any](list []T, one T) []T {
	list = append(slices.Clone(list), one)
	return list[max(0, len(list)-goneKept):]
}

// Validate reports what makes k no keyring: a Store never writes and Decode never returns
// one that fails it.
func (k *Keyring) Validate() error {
	if err := k.Target.Validate(); err != nil {
		return err
	}
	if len(k.Keys) == 0 && !k.AcceptUnsigned {
		return fmt.Errorf("there is no key in it")
	}
	counts := map[State]int{}
	for i, e := range k.Keys {
		if e.Key.IsZero() || e.Key.ID() == "" {
			return fmt.Errorf("keys[%d] has no value or no id", i)
		}
		switch e.State {
		case Pending, Current, Previous:
		default:
			return fmt.Errorf("keys[%d] has the unknown state %q", i, e.State)
		}
		counts[e.State]++
		for _, o := range k.Keys[:i] {
			if o.Key.ID() == e.Key.ID() || o.Key.Equal(e.Key) {
				return fmt.Errorf("keys[%d] (%s) is there twice", i, e.Key)
			}
		}
	}
	if counts[Current] > 1 || counts[Pending] > 1 {
		return fmt.Errorf("it has %d current and %d pending keys, where one of each is the most", counts[Current], counts[Pending])
	}
	if counts[Pending] == 1 && k.Rotation == nil {
		return fmt.Errorf("it has a pending key but no rotation")
	}
	return nil
}
