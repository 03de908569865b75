// Package webhook is what a receiver of Tencent Interactive Whiteboard callbacks imports: it
// verifies a callback, keeps the keys that are accepted fresh, and has a middleware that does
// both for any http.Handler.
//
// A receiver never needs to think about rotation. Whoever rotates the key writes every key
// that may be in use to the keyring, and a callback is genuine if any of them explains it.
// A signature that none explains makes a KeySource read the keyring once more before the
// callback is refused, so that even a receiver that knows nothing yet refuses nothing genuine.
//
// A key that a keyring once listed as revoked is never accepted again by the Cache that read it,
// whatever it reads afterwards.
package webhook

import (
	"crypto/fips140"
	"crypto/md5" //nolint:gosec // the callback's signature is MD5 by Tencent's definition
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"tiwkeyd/secrets"
)

// Key is a callback key. Whatever prints it prints its id.
type Key = secrets.Key

// Target is what has a keyring: one service of one application.
type Target = secrets.Target

// NewKey gives the key of a value, known by id wherever it is printed. There is no empty key:
// with one, anybody could sign.
func NewKey(id, value string) (Key, error) {
	if value == "" {
		return Key{}, errors.New("webhook: the key is empty")
	}
	return secrets.NewKey(id, value), nil
}

// Keys is what a receiver has to know of one application. It is shared: not to be changed.
type Keys struct {
	SdkAppID int64
	Accept   []Key // a callback signed with any of them is genuine; zero Keys are passed over

	// AcceptUnsigned says that the application has no key yet, so that genuine callbacks
	// carry no Sign. Verify does not care; see Options.AllowUnsigned.
	AcceptUnsigned bool

	// Version is of the keyring they come from, where its place numbers them; else 0.
	Version int64

	// Written is when that version was written, by the clock of its place; zero if it does not tell.
	// Where versions were numbered anew, it tells which came first.
	Written time.Time

	// Revoked lists keys that were revoked, as the keyring does: no callback signed with one of
	// them is genuine, even if it is in Accept. A Cache remembers what it has ever read here, and
	// leaves it out of what it gives. A Reader that knows of none leaves it empty.
	Revoked []Revoked
}

// Revoked names a key that was revoked: by its id, by its fingerprint, or by both. Either is enough
// to refuse a key. Whatever prints it prints the id.
type Revoked struct {
	ID          string // "": not known. It is the key's own, not that of its place in a list
	Fingerprint string `json:"-"` // Key.Fingerprint, of the value; "": not known
}

// Format prints the id whichever verb is asked for.
func (r Revoked) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, r.ID) }

// WasRevoked reports whether Revoked lists a key, by its id or by its value.
func (k Keys) WasRevoked(key Key) bool {
	if len(k.Revoked) == 0 || key.IsZero() {
		return false
	}
	id, fingerprint := key.ID(), key.Fingerprint()
	return slices.ContainsFunc(k.Revoked, func(r Revoked) bool {
		return (r.ID != "" && r.ID == id) || strings.EqualFold(r.Fingerprint, fingerprint)
	})
}

// Verify parses a callback and tells the id of the key that signed it. Its error is a
// *Refusal. now is compared with ExpireTime, in whole seconds. Keys that may have changed since
// they were read belong into a KeySource, and to a Verifier, which reads them again before it
// refuses.
func Verify(body []byte, keys Keys, now time.Time) (keyID string, err error) {
	c, err := Parse(body)
	if err != nil {
		return "", err
	}
	return c.Verify(keys, now)
}

// Verify tells the id of the key that signed the callback. Its error is a *Refusal. It
// takes the same time for whatever wrong signature.
func (c *Callback) Verify(keys Keys, now time.Time) (keyID string, err error) {
	if c.SdkAppID != keys.SdkAppID {
		return "", refuse(WrongApplication, "it is of SdkAppId %d, not %d", c.SdkAppID, keys.SdkAppID)
	}
	if late := now.Unix() - c.ExpireTime; late > 0 && (c.Signed || c.ExpireTime != 0) {
		return "", refuse(Expired, "it expired %s ago; if that cannot be, check this machine's clock", time.Duration(min(late, 1<<32))*time.Second)
	}
	if !c.Signed {
		return "", refuse(Unsigned, "it has no Sign: has the application no callback key?")
	}
	for _, k := range keys.Accept {
		if !k.IsZero() && c.signedWith(k) && !keys.WasRevoked(k) {
			return k.String(), nil
		}
	}
	return "", refuse(BadSignature, "none of the %d keys accepted now explains it", len(keys.Accept))
}

// signLength is that of MD5 in hex.
const signLength = 2 * md5.Size

// signedWith computes Sign = lower-case hex of MD5(key + decimal ExpireTime). The buffer has
// room for Tencent's longest key, and stays on the stack.
func (c *Callback) signedWith(k Key) bool {
	if fips140.Enforced() {
		return c.signedWithAllTheSame(k)
	}
	return c.signedWithKey(k)
}

// signedWithAllTheSame is for a program that runs with GODEBUG=fips140=only, in which MD5
// panics. It is Tencent's choice, not ours.
func (c *Callback) signedWithAllTheSame(k Key) (signed bool) {
	fips140.WithoutEnforcement(func() { signed = c.signedWithKey(k) })
	return signed
}

func (c *Callback) signedWithKey(k Key) bool {
	var room [secrets.MaxKeyLength + 20]byte
	sum := md5.Sum(strconv.AppendInt(append(room[:0], k.Reveal()...), c.ExpireTime, 10)) //nolint:gosec // see above
	var want [signLength]byte
	hex.Encode(want[:], sum[:])
	return subtle.ConstantTimeCompare(want[:], []byte(c.Sign)) == 1
}
