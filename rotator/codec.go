package rotator

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tiwkeyd/secrets"
)

// ErrNewerSchema says that a keyring was written by a newer version of the program.
var ErrNewerSchema = errors.New("its schema is newer than this program knows: upgrade tiwkeyd")

// stored is a keyring as it is stored. Members that this program does not know stand in the Unknown
// fields and are written back as they came.
type stored struct {
	Schema      int64           `json:"schema"`
	SdkAppID    int64           `json:"sdk_app_id"`
	Service     secrets.Service `json:"service"`
	CallbackKey jsontext.Value  `json:"callback_key"` // derived from the keys, like accept: read only to see whether it still is
	Accept      jsontext.Value  `json:"accept"`
	Keys        []storedEntry   `json:"keys"`
	*Keyring
}

type storedEntry struct {
	ID    string `json:"id"`
	Value string `json:"value"`
	Entry
}

// Encode gives the stored form. callback_key and accept are derived from the keys.
func (k *Keyring) Encode() ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("encode keyring of %s: %w", k.Target, err)
	}
	s := stored{Schema: SchemaVersion, SdkAppID: k.Target.SdkAppID, Service: k.Target.Service, Keys: []storedEntry{}, Keyring: k}
	s.CallbackKey, s.Accept = value(k.CallbackKey().Reveal()), value(k.accepted())
	for _, e := range k.Keys {
		s.Keys = append(s.Keys, storedEntry{e.Key.ID(), e.Key.Reveal(), e})
	}
	return jsonv2.Marshal(&s, asWritten)
}

// value cannot fail: what is encoded are strings.
func value(v any) jsontext.Value {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode keyring: %v", err))
	}
	return raw
}

// DecodeKeyring reads the stored form of t's keyring. It is strict: a member of the wrong
// type, a repeated name, a second current key or another target's keyring is an error, which never quotes
// the text. Unknown members are kept and written back by Encode.
func DecodeKeyring(t secrets.Target, data []byte) (*Keyring, error) {
	k, err := decodeKeyring(data)
	if err == nil && k.Target != t {
		err = fmt.Errorf("it belongs to %s", k.Target)
	}
	if err == nil {
		err = k.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("keyring of %s cannot be used: %w", t, err)
	}
	return k, nil
}

func decodeKeyring(data []byte) (*Keyring, error) {
	s := stored{Keyring: &Keyring{}}
	err := jsonv2.Unmarshal(data, &s, asRead)
	// In a newer schema any member may have another type.
	var schema struct {
		Schema int64 `json:"schema"`
	}
	if err != nil && jsonv2.Unmarshal(data, &schema) == nil {
		s.Schema = schema.Schema
	}
	switch {
	case s.Schema > SchemaVersion:
		return nil, fmt.Errorf("schema %d: %w (schema %d)", s.Schema, ErrNewerSchema, SchemaVersion)
	case err != nil:
		return nil, unquoted(err)
	case s.Schema == 0:
		return nil, errors.New(`"schema" is missing`)
	case s.Schema != SchemaVersion:
		return nil, fmt.Errorf("schema %d is not one there ever was", s.Schema)
	case s.Keys == nil:
		return nil, errors.New(`"keys" is missing`)
	}
	k := s.Keyring
	k.Target = secrets.Target{SdkAppID: s.SdkAppID, Service: s.Service}
	for _, e := range s.Keys {
		e.Key = secrets.NewKey(e.ID, e.Value)
		k.Keys = append(k.Keys, e.Entry)
	}
	if k.Overrides.isZero() {
		k.Overrides = nil
	}
	k.Edited = !k.derives(s.CallbackKey, s.Accept)
	return k, nil
}

// derives reports whether callback_key and accept are what the keys make of them, in whatever order.
func (k *Keyring) derives(callbackKey, accept jsontext.Value) bool {
	var one string
	var all []string
	if jsonv2.Unmarshal(callbackKey, &one) != nil || jsonv2.Unmarshal(accept, &all) != nil {
		return false
	}
	want := k.accepted()
	slices.Sort(want)
	slices.Sort(all)
	return one == k.CallbackKey().Reveal() && slices.Equal(slices.Compact(all), slices.Compact(want))
}

// accepted are the values of Accept.
func (k *Keyring) accepted() []string {
	values := []string{}
	for _, key := range k.Accept() {
		values = append(values, key.Reveal())
	}
	return values
}

// unquoted says what is wrong without a word of the text, which has keys in it.
func unquoted(err error) error {
	var wrong *jsonv2.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a member's name is repeated")
	case !errors.As(err, &wrong):
		return errors.New("it is not JSON, or there is text after its end")
	}
	// Only known names and numbers are in the pointer: of unknown members anything is taken.
	return fmt.Errorf("%q is not %s", strings.TrimPrefix(string(wrong.JSONPointer), "/"), wanted(wrong))
}

func wanted(wrong *jsonv2.SemanticError) string {
	t := wrong.GoType
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a time of this world (RFC 3339)"
	case t == reflect.TypeFor[time.Duration]():
		return "a span of time in whole seconds"
	case t == nil:
		return "what it should be"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.Int, reflect.Int64:
		return "a whole number in range"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	}
	return "a JSON object"
}

// longestSpan bounds every span of time in a keyring.
const longestSpan = 100 * 366 * 24 * time.Hour

// Times are written as UTC, spans of time as whole seconds. Near the ends of the range a zone's offset
// makes a year that cannot be written back.
var (
	asWritten = jsonv2.WithMarshalers(jsonv2.JoinMarshalers(
		jsonv2.MarshalFunc(func(t time.Time) ([]byte, error) { return json.Marshal(t.UTC()) }),
		jsonv2.MarshalFunc(func(d time.Duration) ([]byte, error) { return json.Marshal(int64(d / time.Second)) })))
	asRead = jsonv2.WithUnmarshalers(jsonv2.JoinUnmarshalers(
		jsonv2.UnmarshalFunc(func(raw []byte, t *time.Time) error {
			if json.Unmarshal(raw, t) != nil || (!t.IsZero() && (t.UTC().Year() < 1 || t.UTC().Year() > 9998)) {
				return errUnreadable
			}
			return nil
		}),
		jsonv2.UnmarshalFunc(func(raw []byte, d *time.Duration) error {
			var n int64
			if json.Unmarshal(raw, &n) != nil || n < 0 || n > int64(longestSpan/time.Second) {
				return errUnreadable
			}
			*d = time.Duration(n) * time.Second
			return nil
		})))
	errUnreadable = errors.New("unreadable")
)
