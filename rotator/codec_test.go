package rotator

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tiwkeyd/secrets"
)

var codecTarget = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

const golden = `{"schema":1,"sdk_app_id":1400000001,"service":"whiteboard-push","callback_key":"CANARYcur","accept":["CANARYcur","CANARYpend","CANARYprev"],` +
	`"keys":[{"id":"c","value":"CANARYcur","state":"current","created_at":"2026-01-01T00:00:00Z","activated_at":"2026-01-01T00:00:00Z","confirmed":true},` +
	`{"id":"v","value":"CANARYprev","state":"previous","accept_until":"2026-01-03T00:00:00Z","note":{"kept":1}},` +
	`{"id":"p","value":"CANARYpend","state":"pending","push_after":"2026-01-02T00:06:00.5Z"}],` +
	`"rotation":{"id":"r","reason":"schedule","started_at":"2026-01-02T00:00:00Z","attempts":2,"owner":"o","lease_until":"2026-01-02T00:08:00Z","retry_at":"2026-01-02T00:07:00Z",` +
	`"last_error":{"code":"InternalError","message":"m","request_id":"q","refused":false,"at":"2026-01-02T00:00:00Z","more":true},"x":null},` +
	`"rotated_at":"2026-01-01T00:00:00Z",` +
	`"history":[{"started_at":"2025-12-31T23:54:00Z","took":360,"overlap":86400},{"started_at":"2026-01-01T03:00:00Z","took":3600,"overlap":600,"code":"InternalError","by":"x"}],` +
	`"revision":"w","life":"l","retired":["ab","cd"],"revoked":[{"id":"o","sha256":"ef","why":"lost"}],"newer":[1,{"a":2}]}`

func TestGolden(t *testing.T) {
	t.Parallel()
	k, err := DecodeKeyring(codecTarget, []byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Encode()
	if err != nil || string(got) != golden {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, golden)
	}
	if k.Current().Key.ID() != "c" || k.Pending().Key.ID() != "p" || k.CallbackKey().Reveal() != "CANARYcur" || len(k.Accept()) != 3 {
		t.Errorf("%v", k)
	}
	if !k.Pending().PushAfter.Equal(time.Date(2026, 1, 2, 0, 6, 0, 500e6, time.UTC)) || k.Rotation.LastError.RequestID != "q" || k.Rotation.Attempts != 2 {
		t.Errorf("%+v", k.Rotation)
	}
}

func TestDerivedMembersAreDerived(t *testing.T) {
	t.Parallel()
	text := strings.Replace(golden, `"callback_key":"CANARYcur","accept":["CANARYcur","CANARYpend","CANARYprev"]`, `"callback_key":"other","accept":["other"]`, 1)
	k, err := DecodeKeyring(codecTarget, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := k.Encode(); string(got) != golden {
		t.Errorf("%s", got)
	}
	k.Keys = k.Keys[2:] // a pending key only
	k.AcceptUnsigned = true
	got, err := k.Encode()
	if err != nil || !strings.Contains(string(got), `"callback_key":""`) || !strings.Contains(string(got), `"accept":["CANARYpend"]`) || !strings.Contains(string(got), `"accept_unsigned":true`) {
		t.Errorf("%v %s", err, got)
	}
}

func TestStrictDecoding(t *testing.T) {
	t.Parallel()
	sub := func(old, replacement string) string {
		if !strings.Contains(golden, old) {
			t.Fatalf("%s is not in the golden text", old)
		}
		return strings.Replace(golden, old, replacement, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "not JSON"},
		"null":             {"null", "missing"},
		"list":             {"[]", "\"\" is not a JSON object"},
		"cut off":          {golden[:len(golden)-30], "not JSON"},
		"trailing":         {golden + "{}", "text after its end"},
		"newer schema":     {sub(`"schema":1`, `"schema":2`), "upgrade"},
		"old schema":       {sub(`"schema":1`, `"schema":-1`), "schema -1"},
		"zero schema":      {sub(`"schema":1`, `"schema":0`), "missing"},
		"schema text":      {sub(`"schema":1`, `"schema":"CANARY"`), `"schema" is not a whole number`},
		"no schema":        {sub(`"schema":1,`, ``), `missing`},
		"newer types":      {sub(`"schema":1`, `"schema":2,"life":{}`), "upgrade"},
		"float id":         {sub(`1400000001`, `1.5`), `"sdk_app_id" is not a whole number`},
		"huge id":          {sub(`1400000001`, `9223372036854775808`), `"sdk_app_id" is not a whole number`},
		"another target":   {sub(`1400000001`, `7`), "belongs to 7/"},
		"unknown service":  {sub(`"service":"whiteboard-push"`, `"service":"CANARY"`), "belongs to"},
		"no keys":          {sub(`"keys"`, `"kees"`), `"keys" is missing`},
		"not closed":       {sub(`"accept":[`, `"x":{"a":`), "not JSON"},
		"keys text":        {`{"schema":1,"sdk_app_id":1400000001,"service":"whiteboard-push","keys":"CANARY"}`, `"keys" is not a list`},
		"key number":       {sub(`"value":"CANARYcur"`, `"value":7`), `"keys/0/value" is not a string`},
		"key empty":        {sub(`"value":"CANARYcur"`, `"value":""`), "no value"},
		"id empty":         {sub(`"id":"c"`, `"id":""`), "no id"},
		"state":            {sub(`"state":"current"`, `"state":"odd"`), "unknown state"},
		"two currents":     {sub(`"state":"previous"`, `"state":"current"`), "2 current"},
		"two pendings":     {sub(`"state":"previous"`, `"state":"pending"`), "2 pending"},
		"same key":         {sub(`"value":"CANARYprev"`, `"value":"CANARYcur"`), "twice"},
		"same id":          {sub(`"id":"v"`, `"id":"c"`), "twice"},
		"repeated name":    {sub(`"schema":1`, `"schema":1,"schema":1`), "repeated"},
		"repeated nested":  {sub(`"id":"c"`, `"id":"c","id":"c"`), "repeated"},
		"repeated unknown": {sub(`"schema":1`, `"schema":1,"x":[{"a":"\":","b":{}},{"b":1,"b":1}]`), "repeated"},
		"repeated spelt":   {sub(`"schema":1`, `"schema":1,"\u0073chema":1`), "repeated"},
		"time":             {sub(`"2026-01-03T00:00:00Z"`, `"tomorrow"`), `"keys/1/accept_until" is not a time of this world`},
		"time of no world": {sub(`"2026-01-03T00:00:00Z"`, `"9999-12-31T23:59:59-23:59"`), "not a time of this world"},
		"rotation list":    {sub(`"rotation":{`, `"rotation":[],"other":{`), `"rotation" is not a JSON object`},
		"pending alone":    {sub(`"rotation":{`, `"other":{`), "no rotation"},
		"attempts":         {sub(`"attempts":2`, `"attempts":"2"`), `"rotation/attempts" is not a whole number`},
		"history":          {sub(`"history":[`, `"history":[7,`), `"history/0" is not a JSON object`},
		"history's span":   {sub(`"took":360`, `"took":-1`), `"history/0/took" is not a span`},
		"history's long":   {sub(`"overlap":600`, `"overlap":9000000000000000000`), `"history/1/overlap" is not a span`},
		"unsigned":         {sub(`"schema":1`, `"schema":1,"accept_unsigned":"yes"`), `"accept_unsigned" is not a boolean`},
		"no key at all":    {`{"schema":1,"sdk_app_id":1400000001,"service":"whiteboard-push","keys":[]}`, "no key"},
		"life":             {sub(`"life":"l"`, `"life":7`), `"life" is not a string`},
		"retired":          {sub(`"retired":[`, `"retired":[7,`), `"retired/0" is not a string`},
		"invalid UTF-8":    {sub(`"newer"`, "\"new\xff\""), "not JSON"},
	} {
		k, err := DecodeKeyring(codecTarget, []byte(c.text))
		if err == nil || k != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "CANARYcur") || strings.Contains(err.Error(), "CANARYp") {
			t.Errorf("%s: the error shows a key", name)
		}
	}
	if _, err := DecodeKeyring(codecTarget, []byte(sub(`"schema":1`, `"schema":2`))); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("%v is not ErrNewerSchema", err)
	}
}

// TestRepeatedNames tells names that are repeated, at any depth of unknown members, from those that only look so.
func TestRepeatedNames(t *testing.T) {
	t.Parallel()
	for text, repeated := range map[string]bool{
		`{"a":1,"b":1}`: false, `{"a":1,"a":1}`: true, `{"a":{"a":1},"b":{"a":1}}`: false, `{"a":{"b":1,"b":1}}`: true,
		`[{"a":1},{"a":1}]`: false, `[{"a":1},[{"a":1,"c":2,"a":1}]]`: true, `{"a":1,"A":1}`: false, `{"a":1,"\u0061":1}`: true,
		`{"a:":":\":","b\\":":"}`: false, `{"a\\":1,"a\\":1}`: true, `{"a\"":1,"b\"":1}`: false, `{"":1,"":1}`: true, `{"":1}`: false,
		`{"a" : 1e999 , "b":[ ]}`: false, `{}`: false, `":"`: false,
	} {
		_, err := DecodeKeyring(codecTarget, []byte(strings.Replace(golden, `"newer":[1,{"a":2}]`, `"newer":`+text, 1)))
		if repeated != (err != nil && strings.Contains(err.Error(), "repeated")) || (!repeated && err != nil) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestEncodeRefusesWhatIsNoKeyring(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]*Keyring{
		"no target": {Keys: []Entry{{Key: secrets.NewKey("a", "b"), State: Current}}},
		"no id":     {Target: codecTarget, Keys: []Entry{{Key: secrets.NewKey("", "CANARY"), State: Current}}},
		"zero key":  {Target: codecTarget, Keys: []Entry{{State: Current}}},
	} {
		if _, err := k.Encode(); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	k, err := DecodeKeyring(codecTarget, []byte(golden))
	if err != nil {
		t.Fatal(err)
	}
	c := k.Clone()
	c.Keys[0].State, c.Rotation.Attempts, c.Rotation.LastError.Code = Previous, 99, "x"
	if got, _ := k.Encode(); string(got) != golden {
		t.Errorf("changing a clone changed its origin: %s", got)
	}
}

func FuzzDecodeKeyring(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"schema":1,"sdk_app_id":1400000001,"service":"whiteboard-push","keys":[],"accept_unsigned":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := DecodeKeyring(codecTarget, data)
		if err != nil {
			return
		}
		once, err := k.Encode()
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		if !json.Valid(once) {
			t.Fatal("what was encoded is not JSON")
		}
		again, err := DecodeKeyring(codecTarget, once)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		if twice, _ := again.Encode(); string(twice) != string(once) {
			t.Fatalf("encoding is not stable:\n%s\n%s", once, twice)
		}
	})
}

// TestWhatIsGoneIsNotWrittenAgain decodes and encodes, and then takes members away.
func TestWhatIsGoneIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	k, err := DecodeKeyring(codecTarget, []byte(strings.Replace(golden, `"schema":1`, `"schema":1,"accept_unsigned":true`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Encode(); err != nil {
		t.Fatal(err)
	}
	n := k.Clone()
	n.Rotation, n.AcceptUnsigned, n.Keys = nil, false, n.Keys[:2]
	n.Keys[1].AcceptUntil, n.Keys[1].State, n.Keys[0].State = time.Time{}, Current, Previous
	text, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{`"rotation":`, "accept_unsigned", "accept_until", "push_after", "CANARYpend"} {
		if strings.Contains(string(text), gone) {
			t.Errorf("%s is still there: %s", gone, text)
		}
	}
}

func TestNullIsAbsence(t *testing.T) {
	t.Parallel()
	k, err := DecodeKeyring(codecTarget, []byte(`{"schema":1,"sdk_app_id":1400000001,"service":"whiteboard-push","keys":[{"id":"c","value":"v","state":"current","push_after":null}],"rotation":null,"accept_unsigned":null}`))
	if err != nil || k.Rotation != nil {
		t.Fatalf("%v", err)
	}
	k.RotatedAt = time.Date(2026, 1, 1, 8, 0, 0, 0, time.FixedZone("", 8*3600))
	if text, err := k.Encode(); err != nil || !strings.Contains(string(text), `"rotated_at":"2026-01-01T00:00:00Z"`) {
		t.Errorf("%s, %v", text, err)
	}
	for old, replacement := range map[string]string{`"2026-01-03T00:00:00Z"`: `"0000-01-01T00:00:00+23:59"`, `"refused":false`: `"refused":"no"`} {
		if _, err := DecodeKeyring(codecTarget, []byte(strings.Replace(golden, old, replacement, 1))); err == nil {
			t.Errorf("%s is accepted", replacement)
		}
	}
}

// TestEdited: whether callback_key and accept are what the keys make of them, in whatever order.
func TestEdited(t *testing.T) {
	t.Parallel()
	for derived, want := range map[string]bool{
		`"callback_key":"a","accept":["a","p","v"]`:     false,
		`"callback_key":"a","accept":["v","a","p"]`:     false,
		`"callback_key":"a","accept":["v","a","p","a"]`: false,
		`"callback_key":"a","accept":["a","p"]`:         true,
		`"callback_key":"a","accept":["a","p","v","x"]`: true,
		`"callback_key":"a","accept":[]`:                true,
		`"callback_key":"a"`:                            true,
		`"callback_key":"p","accept":["a","p","v"]`:     true,
		`"callback_key":"","accept":["a","p","v"]`:      true,
		`"accept":["a","p","v"]`:                        true,
		`"callback_key":null,"accept":null`:             true,
		`"callback_key":"a","accept":["a",7]`:           true,
		`"callback_key":{},"accept":"a"`:                true,
	} {
		k, err := DecodeKeyring(codecTarget, fmt.Appendf(nil, `{"schema":1,"sdk_app_id":%d,"service":%q,"rotation":{"id":"r","reason":"signal","attempts":0},
			"keys":[{"id":"1","value":"a","state":"current"},{"id":"2","value":"p","state":"pending"},{"id":"3","value":"v","state":"previous"}],%s}`,
			codecTarget.SdkAppID, codecTarget.Service, derived))
		if err != nil {
			t.Fatal(err)
		}
		if k.Edited != want {
			t.Errorf("%s: edited %t", derived, k.Edited)
		}
		if a := Decide(Snapshot{Keyring: k}, Observation{}, t0, Wish{}, &tablePolicy); (a.Step == StepRestore) != want {
			t.Errorf("%s: %+v", derived, a)
		}
		written, err := k.Revised(nil)
		if err != nil || written.Edited {
			t.Errorf("%s: what is written is edited, too: %v", derived, err)
		}
	}
}
