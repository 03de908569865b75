package rotator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrNewerSchema says that a keyring was written by a newer version of the program.
var ErrNewerSchema = errors.New("its schema is newer than this program knows: upgrade tiwkeyd")

// object is a JSON object whose members are taken out one by one; what remains is unknown
// and is written back as it came. Unlike encoding/json's structs it matches names exactly.
type object map[string]json.RawMessage

// Encode gives the stored form. callback_key and accept are derived from the keys.
func (k *Keyring) Encode() ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, fmt.Errorf("encode keyring of %s: %w", k.Target, err)
	}
	accept := []string{}
	for _, key := range k.Accept() {
		accept = append(accept, key.Reveal())
	}
	entries := []object{}
	for _, e := range k.Keys {
		o := with(e.extra)
		o.put("id", e.Key.ID())
		o.put("value", e.Key.Reveal())
		o.put("state", e.State)
		o.putTime("created_at", e.CreatedAt)
		o.putTime("push_after", e.PushAfter)
		o.putTime("activated_at", e.ActivatedAt)
		o.putTime("accept_until", e.AcceptUntil)
		entries = append(entries, o)
	}
	o := with(k.extra)
	o.put("schema", SchemaVersion)
	o.put("sdk_app_id", k.Target.SdkAppID)
	o.put("service", k.Target.Service)
	o.put("callback_key", k.CallbackKey().Reveal())
	o.put("accept", accept)
	o.put("keys", entries)
	if k.Revision != "" {
		o.put("revision", k.Revision)
	}
	if k.AcceptUnsigned {
		o.put("accept_unsigned", true)
	}
	if k.Rotation != nil {
		o.put("rotation", k.Rotation.object())
	}
	o.putTime("rotated_at", k.RotatedAt)
	if !k.Overrides.isZero() {
		o.put("overrides", k.Overrides.object())
	}
	if len(k.History) > 0 {
		past := []object{}
		for i := range k.History {
			past = append(past, k.History[i].object())
		}
		o.put("history", past)
	}
	return json.Marshal(o)
}

func (r *Rotation) object() object {
	o := with(r.extra)
	o.put("id", r.ID)
	o.put("reason", r.Reason)
	o.putTime("started_at", r.StartedAt)
	o.put("attempts", r.Attempts)
	o.put("owner", r.Owner)
	o.putTime("lease_until", r.LeaseUntil)
	o.putTime("retry_at", r.RetryAt)
	if f := r.LastError; f != nil {
		e := with(f.extra)
		e.put("code", f.Code)
		e.put("message", f.Message)
		e.put("request_id", f.RequestID)
		e.put("refused", f.Refused)
		e.putTime("at", f.At)
		o.put("last_error", e)
	}
	return o
}

// DecodeKeyring reads the stored form of t's keyring. It is strict: a member of the wrong
// type, a repeated name, a second current key or another target's keyring is an error, which never quotes
// the text. Unknown members are kept and written back by Encode.
func DecodeKeyring(t Target, data []byte) (*Keyring, error) {
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
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	d := decoder{}
	o := d.object("keyring", data)
	var k Keyring
	var schema int64
	d.take(o, "schema", &schema)
	if d.err == nil && schema > SchemaVersion {
		return nil, fmt.Errorf("schema %d: %w (schema %d)", schema, ErrNewerSchema, SchemaVersion)
	}
	if d.err == nil && schema != SchemaVersion {
		return nil, fmt.Errorf("schema %d is not one there ever was", schema)
	}
	d.take(o, "sdk_app_id", &k.Target.SdkAppID)
	d.take(o, "service", &k.Target.Service)
	var entries []json.RawMessage
	d.take(o, "keys", &entries)
	for i, raw := range entries {
		k.Keys = append(k.Keys, d.entry(fmt.Sprintf("keys[%d]", i), raw))
	}
	d.may(o, "accept_unsigned", &k.AcceptUnsigned)
	d.may(o, "rotated_at", &k.RotatedAt)
	var revision json.RawMessage
	d.may(o, "revision", &revision)
	_ = json.Unmarshal(revision, &k.Revision) // an older program let anything stand there
	var rotation json.RawMessage
	if d.may(o, "rotation", &rotation); rotation != nil {
		k.Rotation = d.rotation(rotation)
	}
	var overrides json.RawMessage
	if d.may(o, "overrides", &overrides); overrides != nil {
		if k.Overrides = d.overrides(d.object("overrides", overrides)); k.Overrides.isZero() {
			k.Overrides = nil
		}
	}
	var history []json.RawMessage
	d.may(o, "history", &history)
	for i, raw := range history {
		name := fmt.Sprintf("history[%d]", i)
		k.History = append(k.History, d.past(name, d.object(name, raw)))
	}
	// Derived from keys: read only to see whether they still are.
	var derived struct {
		one string
		all []string
	}
	d.may(o, "callback_key", &derived.one)
	d.may(o, "accept", &derived.all)
	k.Edited = !k.derives(derived.one, derived.all)
	k.extra = o.rest()
	return &k, d.err
}

// derives reports whether callback_key and accept are what the keys make of them, in whatever order.
func (k *Keyring) derives(one string, all []string) bool {
	want := map[string]bool{}
	for _, key := range k.Accept() {
		want[key.Reveal()] = true
	}
	for _, value := range all {
		if !want[value] {
			return false
		}
	}
	slices.Sort(all)
	return one == k.CallbackKey().Reveal() && len(slices.Compact(all)) == len(want)
}

// decoder keeps the first error, so that the reading code has no branches.
type decoder struct{ err error }

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

func (d *decoder) object(name string, raw json.RawMessage) object {
	var o object
	if json.Unmarshal(raw, &o) != nil || o == nil {
		d.fail("%s is not a JSON object", name)
		return object{}
	}
	return o
}

// take reads a required member and removes it from o; may reads an optional one, for which null is absence.
// An error names the member and the wanted type only: the library's would quote the value.
func (d *decoder) take(o object, name string, into any) {
	if _, ok := o[name]; !ok {
		d.fail("%q is missing", name)
	}
	d.may(o, name, into)
}

func (d *decoder) may(o object, name string, into any) {
	raw, ok := o[name]
	delete(o, name)
	if !ok || bytes.Equal(raw, []byte("null")) {
		return
	}
	if json.Unmarshal(raw, into) != nil {
		d.fail("%q is not a %s", name, jsonType(into))
	}
	// Near the ends of the range a zone's offset makes a year that cannot be written back.
	if t, ok := into.(*time.Time); ok && (t.Year() < 1 || t.Year() > 9998) {
		d.fail("%q is not a time of this world", name)
	}
}

func jsonType(v any) string {
	switch v.(type) {
	case *int64, *int:
		return "whole number in range"
	case *bool:
		return "boolean"
	case *time.Time:
		return "time (RFC 3339)"
	case *[]json.RawMessage, *[]string:
		return "list"
	}
	return "string"
}

func (d *decoder) entry(name string, raw json.RawMessage) Entry {
	o := d.object(name, raw)
	var e Entry
	var id, value string
	d.take(o, "id", &id)
	d.take(o, "value", &value)
	d.take(o, "state", &e.State)
	d.may(o, "created_at", &e.CreatedAt)
	d.may(o, "push_after", &e.PushAfter)
	d.may(o, "activated_at", &e.ActivatedAt)
	d.may(o, "accept_until", &e.AcceptUntil)
	e.Key, e.extra = NewKey(id, value), o.rest()
	return e
}

func (d *decoder) rotation(raw json.RawMessage) *Rotation {
	o := d.object("rotation", raw)
	var r Rotation
	d.take(o, "id", &r.ID)
	d.take(o, "reason", &r.Reason)
	d.may(o, "started_at", &r.StartedAt)
	d.may(o, "attempts", &r.Attempts)
	d.may(o, "owner", &r.Owner)
	d.may(o, "lease_until", &r.LeaseUntil)
	d.may(o, "retry_at", &r.RetryAt)
	var failure json.RawMessage
	if d.may(o, "last_error", &failure); failure != nil {
		f := d.object("last_error", failure)
		r.LastError = &Failure{}
		d.may(f, "code", &r.LastError.Code)
		d.may(f, "message", &r.LastError.Message)
		d.may(f, "request_id", &r.LastError.RequestID)
		d.may(f, "refused", &r.LastError.Refused)
		d.may(f, "at", &r.LastError.At)
		r.LastError.extra = f.rest()
	}
	r.extra = o.rest()
	return &r
}

// rest is what is still in o. An emptied map would keep its buckets, in thousands of keyrings.
func (o object) rest() object {
	if len(o) == 0 {
		return nil
	}
	return o
}

func with(extra object) object {
	o := object{}
	maps.Copy(o, extra)
	return o
}

// put cannot fail: what is put are strings, numbers, booleans and raw JSON.
func (o object) put(name string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode keyring: member %q: %v", name, err))
	}
	o[name] = raw
}

func (o object) putTime(name string, t time.Time) {
	if !t.IsZero() {
		o.put(name, t.UTC())
	}
}

// checkJSON refuses what encoding/json would let pass: a name repeated in one object (the
// last would win here, the first perhaps in a receiver) and text after the end.
func checkJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var tree any
	if dec.Decode(&tree) != nil {
		return errors.New("it is not JSON")
	}
	if dec.InputOffset() < int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return errors.New("there is text after its end")
	}
	members, deep := count(tree, 0)
	if deep {
		return errors.New("it is nested too deeply")
	}
	if members < colons(data) {
		return errors.New("a member's name is repeated")
	}
	return nil
}

// maxDepth is how many objects and lists may be within each other.
const maxDepth = 32

// count tells how many members the objects in a decoded value have, each name once.
func count(v any, depth int) (members int, deep bool) {
	if depth > maxDepth {
		return 0, true
	}
	in := func(v any) {
		n, d := count(v, depth+1)
		members, deep = members+n, deep || d
	}
	switch v := v.(type) {
	case map[string]any:
		members = len(v)
		for _, member := range v {
			in(member)
		}
	case []any:
		for _, element := range v {
			in(element)
		}
	}
	return members, deep
}

// colons tells how many members the objects in a JSON text have, each time that they are there:
// outside of strings each has its colon.
func colons(text []byte) (n int) {
	for i, quoted := 0, false; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++ // what follows ends no string
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			n++
		}
	}
	return n
}
