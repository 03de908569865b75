package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestCacheRevokedStays: what was once read to be revoked is never accepted again, by whatever way
// the key comes back. A Reader that lists no revoked key is as ever.
func TestCacheRevokedStays(t *testing.T) {
	t.Parallel()
	key := func(id, value string) Key { return secrets.NewKey(id, value) }
	leaked := key("leaked", "CANARY-leaked")
	both := []Revoked{{ID: "leaked", Fingerprint: leaked.Fingerprint()}}
	with := func(version int64, revoked []Revoked, accept ...Key) Keys {
		return Keys{Version: version, Accept: accept, Revoked: revoked}
	}
	for _, c := range []struct {
		name  string
		reads []Keys
		want  string // what is held at last
		tells int
	}{
		{"an ordinary revocation", []Keys{with(4, nil, leaked, key("new", "n")), with(5, both, key("new", "n"))}, "new", 0},
		{"an older version", []Keys{with(5, both, key("new", "n")), with(4, nil, leaked, key("new", "n"))}, "new", 1},
		{"it came and went and came", []Keys{with(5, both, key("new", "n")), with(4, nil, leaked), with(5, both, key("new", "n")), with(3, nil, leaked)}, "new", 1},
		{"numbers begin anew", []Keys{with(5, both, key("new", "n")), with(1, nil, leaked, key("good", "g"))}, "new good", 1},
		{"a new life with more versions", []Keys{with(5, both, key("new", "n")), with(6, nil, leaked, key("good", "g"))}, "good", 1},
		{"revoked in the new life, accepted in the old one", []Keys{with(9, nil, leaked), with(2, both, key("good", "g"))}, "good", 1},
		{"places without numbers", []Keys{with(0, both, key("new", "n")), with(0, nil, leaked, key("good", "g"))}, "good", 1},
		{"the value under another id", []Keys{with(5, both, key("new", "n")), with(6, nil, key("other", "CANARY-leaked"), key("good", "g"))}, "good", 1},
		{"another value under the id", []Keys{with(5, both, key("new", "n")), with(6, nil, key("leaked", "other"), key("good", "g"))}, "good", 1},
		{"the id alone is listed", []Keys{with(5, []Revoked{{ID: "leaked"}}, key("new", "n")), with(6, nil, leaked, key("good", "g"))}, "good", 1},
		{"the fingerprint alone", []Keys{with(5, []Revoked{{Fingerprint: strings.ToUpper(leaked.Fingerprint())}}, key("new", "n")), with(6, nil, key("x", "CANARY-leaked"), key("good", "g"))}, "good", 1},
		{"the list has forgotten it", []Keys{with(5, both, key("new", "n")), with(6, []Revoked{{ID: "later"}}, leaked, key("good", "g"))}, "good", 1},
		{"listed and accepted at once", []Keys{with(5, both, leaked, key("new", "n"))}, "new", 1},
		{"an empty entry is of no key", []Keys{with(5, []Revoked{{}}, key("", "n"), key("good", "g"))}, "unknown good", 0},
		{"another key is all that is held", []Keys{with(0, both, key("new", "n")), with(0, nil, leaked)}, "new", 1},
		{"no other key is left", []Keys{with(1, nil, leaked), with(2, both, leaked)}, "", 1},
		{"no list", []Keys{with(5, nil, key("new", "n")), with(4, nil, leaked)}, "new leaked", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				gives := c.reads[0]
				r := &reading{f: func(Target) (Keys, bool, error) { return gives, false, nil }}
				cache := NewCache(t.Context(), r, CacheOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
				defer cache.Close()
				for _, k := range c.reads {
					r.change(func() { gives = k })
					time.Sleep(10 * time.Second)
				}
				synctest.Wait()
				if got := held(cache); got != c.want {
					t.Errorf("%q is held, not %q", got, c.want)
				}
				// A callback that nothing explains is called forged only where there is something.
				code, want := newFront(Options{Keys: cache}).post(callback("forged")).Code, 401
				if c.want == "" || cache.Status()[0].Err != nil {
					want = 503
				}
				if code != want {
					t.Errorf("a forged callback is answered %d, not %d", code, want)
				}
				if c.want == "" && newFront(Options{Keys: cache}).post(callback("CANARY-leaked")).Code != 503 {
					t.Error("a callback signed with the revoked key")
				}
				cache.Close()
				if n := len(cache.apps[testApp].rings[0].revoked); n > 2 {
					t.Errorf("%d revoked keys are remembered: one more with each reading", n)
				}
				if n := strings.Count(log.String(), "a revoked key was read"); n != c.tells {
					t.Errorf("told %d times, not %d:\n%s", n, c.tells, log.String())
				}
				if strings.Contains(log.String(), leaked.Fingerprint()) {
					t.Error("the log has a fingerprint")
				}
			})
		})
	}
}

// TestRevokedOfOneService: a key that is revoked for one service is good where another has it.
func TestRevokedOfOneService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shared := secrets.NewKey("shared", canaryA)
		r := &reading{f: func(t Target) (Keys, bool, error) {
			if t == recordTarget {
				return Keys{Accept: []Key{shared}}, false, nil
			}
			return Keys{Accept: keyed(canaryB).Accept, Revoked: []Revoked{{"shared", shared.Fingerprint()}}}, false, nil
		}}
		for _, targets := range [][]Target{{recordTarget, testTarget}, {testTarget, recordTarget}} {
			c := NewCache(t.Context(), r, CacheOptions{}, targets...)
			time.Sleep(3 * time.Second)
			if w := newFront(Options{Keys: c}).post(callback(canaryA)); w.Code != 200 {
				t.Errorf("%v: %d", targets, w.Code)
			}
			c.Close()
		}
	})
}

// TestDecodeRevoked: whatever stands in "revoked", the accepted keys are read, and what can be
// understood of it.
func TestDecodeRevoked(t *testing.T) {
	t.Parallel()
	print := secrets.NewKey("", "k").Fingerprint()
	for list, want := range map[string][]Revoked{
		`null`: nil, `[]`: nil, `{}`: nil, `"x"`: nil, `7`: nil, `[null, 7, "x", [], {}]`: nil, `{"id": "a"}`: nil,
		`[{"id": "a", "sha256": "` + print + `"}]`:                       {{"a", print}},
		`[{"id": "a"}, {"sha256": "f"}]`:                                 {{"a", ""}, {"", "f"}},
		`[{"id": 7, "sha256": "f"}, 7, {"id": "b", "sha256": {}}]`:       {{"", "f"}, {"b", ""}},
		`[{"id": "a", "at": "2026-01-02T15:04:05Z", "why": ["leaked"]}]`: {{"a", ""}},
		`[{"id": "accept[0]", "sha256": "f"}, {"id": "line-1"}]`:         {{"", "f"}},
	} {
		keys, err := DecodeKeys(testTarget, []byte(`{"accept": ["k"], "revoked": `+list+`}`))
		if err != nil || len(keys.Accept) != 1 || !slices.Equal(keys.Revoked, want) {
			t.Errorf("%s: %v, %d keys, %d revoked", list, err, len(keys.Accept), len(keys.Revoked))
		}
	}
	keys, err := DecodeKeys(testTarget, []byte(`{"accept": ["k"], "revoked": [{"id": "accept[0]"}]}`))
	if err != nil || keys.WasRevoked(keys.Accept[0]) {
		t.Errorf("a key without id is known by its place: %v", err)
	}
}

// FuzzDecodeRevoked: no list takes an accepted key away, or makes the keyring unreadable.
func FuzzDecodeRevoked(f *testing.F) {
	for _, list := range []string{`null`, `[{"id":"a","sha256":"f"}]`, `[{"id":7}]`, `{"id":"a"}`, `[[[`, `"`} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if !json.Valid([]byte(list)) {
			return
		}
		keys, err := DecodeKeys(testTarget, []byte(`{"accept":["k"],"revoked":`+list+`}`))
		if err != nil || len(keys.Accept) != 1 {
			t.Errorf("%q: %v", list, err)
		}
		for _, r := range keys.Revoked {
			if r.ID == "" && r.Fingerprint == "" {
				t.Errorf("%q gives an entry of no key", list)
			}
		}
	})
}

// TestRevokedInStatic: sources without a memory go by the list that came with the keys.
func TestRevokedInStatic(t *testing.T) {
	t.Parallel()
	keys := Keys{SdkAppID: testApp, Accept: keyed(canaryA).Accept, Revoked: []Revoked{{Fingerprint: keyed(canaryA).Accept[0].Fingerprint()}}}
	if _, err := Verify([]byte(callback(canaryA)), keys, testNow); ReasonOf(err) != BadSignature {
		t.Error(err)
	}
	keys.Revoked = []Revoked{{ID: "id-of-another", Fingerprint: keyed(canaryB).Accept[0].Fingerprint()}}
	if _, err := Verify([]byte(callback(canaryA)), keys, testNow); err != nil {
		t.Error(err)
	}
	keys.Revoked = append(keys.Revoked, Revoked{ID: "known by its id"})
	if keys.WasRevoked(Key{}) {
		t.Error("no key at all was revoked")
	}
}

// TestRevokedIsNotPrinted: a fingerprint stands in keyrings only.
func TestRevokedIsNotPrinted(t *testing.T) {
	t.Parallel()
	keys := Keys{Revoked: []Revoked{{"an-id", "CANARY-fingerprint"}}}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).InfoContext(context.Background(), "x", "keys", keys, "revoked", keys.Revoked[0])
	}
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all += fmt.Sprintf(verb, keys) + fmt.Sprintf(verb, &keys.Revoked[0])
	}
	if strings.Contains(all, "CANARY") || strings.Contains(all, "43414e415259") || !strings.Contains(all, "an-id") {
		t.Error(all)
	}
}
