package secrets

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
)

// Bounds of a generated key's length, in characters. The upper bound is Tencent's
// (SetWhiteboardPushCallbackKey: CallbackKey is at most 64 characters). The lower one is
// ours: a captured callback lets anyone test guesses offline at MD5 speed, and 32
// characters of base62 are 190 bits.
const (
	MinKeyLength     = 32
	MaxKeyLength     = 64
	DefaultKeyLength = 64
)

const (
	base62   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idLength = 10
)

// Key is a callback key. Whatever prints it (any fmt verb, JSON, text, slog) prints its
// public id; only Reveal gives the value. The zero Key is "no key".
//
// The value stands in a closure because fmt does not call methods on the unexported fields of
// a printed struct: it would print a string, and for some verbs follow a pointer, but of a
// function it shows no more than the address. Reflection cannot look into one either.
type Key struct{ in func() material }

type material struct{ id, value string }

// NewKey returns the key of the given value, known in public as id. An empty value gives
// the zero Key.
func NewKey(id, value string) Key {
	if value == "" {
		return Key{}
	}
	return Key{func() material { return material{id, value} }}
}

// GenerateKey draws a key of length base62 characters, and its id, from random
// (nil means crypto/rand). The id is drawn separately: it says nothing about the value.
func GenerateKey(random io.Reader, length int) (Key, error) {
	if length < MinKeyLength || length > MaxKeyLength {
		return Key{}, fmt.Errorf("generate key: length %d is outside %d to %d", length, MinKeyLength, MaxKeyLength)
	}
	value, err := randomString(random, length)
	if err != nil {
		return Key{}, err
	}
	id, err := NewID(random)
	if err != nil {
		return Key{}, err
	}
	return NewKey(id, value), nil
}

// Unusual says why receivers may not be able to use k; "" if nothing speaks against it. Tencent
// takes no key of more than 64 characters.
func (k Key) Unusual() string {
	value := k.Reveal()
	switch {
	case len(value) > MaxKeyLength:
		return fmt.Sprintf("it has more than %d bytes", MaxKeyLength)
	case strings.ContainsFunc(value, unicode.IsControl):
		return "it has control characters"
	}
	return ""
}

// Short reports whether k is so short that whoever has one callback finds it. Tencent names no least length.
func (k Key) Short() bool { return !k.IsZero() && len(k.Reveal()) < 8 }

// NewID draws a public random name for a key or a rotation.
func NewID(random io.Reader) (string, error) { return randomString(random, idLength) }

// randomString draws n base62 characters without bias: bytes of 248 (4×62) and above are
// thrown away, since taking them modulo 62 would favour the first eight characters.
func randomString(random io.Reader, n int) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	out := make([]byte, 0, n)
	buf := make([]byte, n+n/4)
	for len(out) < n {
		if _, err := io.ReadFull(random, buf); err != nil {
			return "", fmt.Errorf("read random bytes: %w", err)
		}
		for _, b := range buf {
			if b < 248 && len(out) < n {
				out = append(out, base62[b%62])
			}
		}
	}
	return string(out), nil
}

// ID is the key's public name, "" for the zero Key.
func (k Key) ID() string {
	if k.in == nil {
		return ""
	}
	return k.in().id
}

// IsZero reports whether k is no key at all.
func (k Key) IsZero() bool { return k.in == nil }

// Equal compares values, not ids, in constant time. Two zero Keys are equal.
func (k Key) Equal(o Key) bool {
	return subtle.ConstantTimeCompare([]byte(k.Reveal()), []byte(o.Reveal())) == 1
}

// Fingerprint is the SHA-256 of the value in hex, "" for the zero Key: it tells whether two keys are
// the same where the value itself is not to be kept any more. Nobody can find a generated key by it.
// It stands in keyrings only, and is never printed.
func (k Key) Fingerprint() string {
	if k.in == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(k.in().value))
	return hex.EncodeToString(sum[:])
}

// Named is the same key under another id.
func (k Key) Named(id string) Key { return NewKey(id, k.Reveal()) }

// Reveal gives the value itself. Callers are few on purpose: the keyring's encoder, the
// request to Tencent, and the verification of a callback.
func (k Key) Reveal() string {
	if k.in == nil {
		return ""
	}
	return k.in().value
}

// String is the id, or a word for a key without one.
func (k Key) String() string {
	switch {
	case k.in == nil:
		return "none"
	case k.ID() == "":
		return "unknown"
	}
	return k.ID()
}

// Format prints the id whichever verb is asked for.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// LogValue is the id.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is the id. It also serves JSON and map keys.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText refuses: what Key prints is its id, from which no key can be made.
func (k *Key) UnmarshalText([]byte) error {
	return errors.New("a key cannot be read from text: decode a keyring instead")
}

// GobEncode refuses: a key leaves the process in a keyring or a request only.
func (k Key) GobEncode() ([]byte, error) {
	return nil, errors.New("a key cannot be gob-encoded")
}
