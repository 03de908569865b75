package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
)

// stored is a keyring as the store has it, with a key of each state.
func stored(t testing.TB) *rotator.Keyring {
	t.Helper()
	return &rotator.Keyring{Target: testTarget, RotatedAt: time.Now(), Rotation: &rotator.Rotation{ID: "r", Reason: rotator.BySchedule}, Keys: []rotator.Entry{
		{Key: secrets.NewKey("p", "CANARY-previous"), State: rotator.Previous}, {Key: secrets.NewKey("c", canaryA), State: rotator.Current},
		{Key: secrets.NewKey("n", canaryB), State: rotator.Pending}}}
}

func TestReaders(t *testing.T) {
	t.Parallel()
	k := stored(t)
	keyring, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rendered := filepath.Join(dir, "keyring.json")
	if err := os.WriteFile(rendered, keyring, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Write(t.Context(), testTarget, k, 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Reader{File(rendered), Files{testTarget: rendered}, FileStore(filepath.Join(dir, "store"))} {
		keys, err := r.ReadKeys(t.Context(), testTarget)
		if err != nil || strings.Join(ids(keys), " ") != "c n p" || keys.SdkAppID != testApp || keys.AcceptUnsigned {
			t.Errorf("%s: %v %+v", r, err, keys)
		}
		for _, key := range []string{"CANARY-previous", canaryA, canaryB} {
			if _, err := Verify([]byte(callback(key)), keys, testNow); err != nil {
				t.Errorf("%s: %v", r, err)
			}
		}
	}
	other := Target{SdkAppID: 7, Service: secrets.WhiteboardPush}
	for _, r := range []Reader{File(filepath.Join(dir, "none")), FileStore(dir), Files{}, File(dir)} {
		if _, err := r.ReadKeys(t.Context(), other); err == nil || r.String() == "" {
			t.Errorf("%s: %v", r, err)
		}
	}
	if _, err := FileStore(dir).ReadKeys(t.Context(), other); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("no keyring yet: %v", err)
	}
	for content, want := range map[string]bool{canaryA + "\n": true, canaryA + "\n" + canaryB: true, canaryA: true, "\ufeff" + canaryA: true, "\ufeff" + string(keyring): true, "\xff\xfeC\x00": false, "\ufeff": false, `{"accept":["` + canaryA: false} {
		half := filepath.Join(dir, "half")
		if err := os.WriteFile(half, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := File(half).ReadKeys(t.Context(), testTarget); (err == nil) != want || (err != nil && len(keys.Accept) > 0) {
			t.Errorf("%d bytes: %v", len(content), err)
		}
	}
	for _, path := range []string{dir, filepath.Join(rendered, "below a file"), "/dev/zero"} {
		if _, err := File(path).ReadKeys(t.Context(), testTarget); err == nil || errors.Is(err, ErrNoKeyring) || strings.Contains(err.Error(), "no key in it") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := os.Truncate(rendered, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := File(rendered).ReadKeys(t.Context(), testTarget); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a file that is too large: %v", err)
	}
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	keyring, err := stored(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(keyring, &fields); err != nil {
		t.Fatal(err)
	}
	changed := func(f func()) string {
		was := fields
		fields = map[string]any{}
		for k, v := range was {
			fields[k] = v
		}
		f()
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		fields = was
		return string(text)
	}
	for _, c := range []struct{ name, content, want string }{
		{"a keyring", string(keyring), "c n p"},
		{"of a later schema", changed(func() { fields["schema"] = 99; fields["keys"] = nil }), "accept[0] accept[1] accept[2]"},
		{"lines", "\n" + canaryA + "\r\n\n" + canaryB + "\n", "line-2 line-4"},
		{"one line without an end", canaryA, "line-1"},
		{"another application's", changed(func() { fields["sdk_app_id"] = 7 }), "!belongs to SdkAppId 7"},
		{"another service's", changed(func() { fields["service"] = "transcode" }), "!another service"},
		{"without accept", changed(func() { delete(fields, "accept") }), "!no key"},
		{"an empty key", changed(func() { fields["accept"] = []string{canaryA, ""} }), "!empty key"},
		{"no strings", changed(func() { fields["accept"] = []int{1} }), "!not the JSON"},
		{"half a keyring", string(keyring[:len(keyring)/2]), "!not the JSON"},
		{"a list", `["` + canaryA + `"]`, "!line 1 is not a key"},
		{"nothing", " \n", "!no key in it"},
		{"prose", "no keys here", "!line 1"},
		{"a comment", "\n" + canaryA + "\n# CANARY of June\n", "!line 3 is not a key"},
		{"a comment without a blank", "#CANARY", "!it is a comment"},
		{"null", "null\n", "!line 1 is not a key"},
		{"nil", canaryA + "\n<nil>", "!line 2 is not a key"},
		{"Python's null", "None", "!line 1 is not a key"},
		{"no value of a template", "<no value>", "!line 1 is not a key"},
		{"not ASCII", "CANARY-ключ", "!line 1 is not a key"},
		{"a control character", "CANARY\x00key", "!line 1 is not a key"},
		{"an escape", "CANARY\x1b[0m", "!line 1 is not a key"},
		{"no UTF-8", "CANARY\xff", "!line 1 is not a key"},
		{"a blank that is none of ASCII's", "CANARY\u00a0key", "!line 1 is not a key"},
		{"a mark in the middle", canaryA + "\n\ufeff" + canaryB, "!line 2 is not a key"},
		{"as long as may be", strings.Repeat("k", 64), "line-1"},
		{"one more", strings.Repeat("k", 65), "!more than 64 characters"},
		{"signs", "a#b=/+~!$%&'()*;<>?@^_`|.-", "line-1"},
		{"too long", canaryA + canaryB, "!line 1"},
	} {
		keys, err := ParseKeys(testTarget, []byte(c.content))
		got := strings.Join(ids(keys), " ")
		if message, wrong := strings.CutPrefix(c.want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), message) || strings.Contains(err.Error(), "CANARY") || got != "" {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	unsigned := changed(func() { fields["accept"] = []string{}; fields["accept_unsigned"] = true })
	if keys, err := ParseKeys(testTarget, []byte(unsigned)); err != nil || !keys.AcceptUnsigned || len(keys.Accept) != 0 {
		t.Errorf("unsigned: %+v, %v", keys, err)
	}
}

func TestEnvironment(t *testing.T) {
	keyring, err := stored(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{string(keyring): "c n p", canaryA + "," + canaryB: "line-1 line-2", "": "!is not set", "{": "!KEYS: keyring of"} {
		t.Setenv("KEYS", value)
		s, err := Environment("KEYS", testTarget)
		if message, wrong := strings.CutPrefix(want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%v", err)
			}
			continue
		}
		keys, ok := s.Keys(testApp)
		again, rereadErr := s.Reread(t.Context(), testApp, never)
		if err != nil || !ok || strings.Join(ids(keys), " ") != want || rereadErr != nil || len(again.Accept) != len(keys.Accept) {
			t.Errorf("%v, %v, %v", keys, err, rereadErr)
		}
		if _, ok := s.Keys(7); ok {
			t.Error("another application")
		}
		if k, err := s.Reread(t.Context(), 7, never); err != nil || len(k.Accept) != 0 {
			t.Errorf("another application: %v, %v", k, err)
		}
	}
}

// FuzzParseKeys: what is taken for keys alone is what a key can be, every line of it; an error quotes nothing.
func FuzzParseKeys(f *testing.F) {
	for _, s := range []string{"", "a\nb", "# a", "null", "{}", `{"accept":["a"]}`, `{"keyring":{"accept":["a"]},"version":1}`, "[]", "\xef\xbb\xbfa", "a\r\n\r\nb"} {
		f.Add([]byte(s))
	}
	shape := regexp.MustCompile(`^(line [0-9]+ is not a key, and the whole is not the JSON of a keyring: (it is a comment|it is what a program writes that has no key|it has more than 64 characters|there is a blank or another character in it that no key has)|there is no key in it|keyring of [0-9]+/[a-z-]+: .*)$`)
	f.Fuzz(func(t *testing.T, content []byte) {
		keys, err := ParseKeys(testTarget, content)
		if err != nil {
			if !shape.MatchString(err.Error()) || len(keys.Accept) > 0 {
				t.Errorf("%q: %v", content, err)
			}
			return
		}
		if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
			return
		}
		var lines []string
		for line := range strings.SplitSeq(string(content), "\n") {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		for i, k := range keys.Accept {
			v := k.Reveal()
			if len(keys.Accept) != len(lines) || v != lines[i] || len(v) > 64 || v[0] == '#' || v == "null" || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Errorf("%q: %d keys, of them %q", content, len(keys.Accept), v)
			}
		}
	})
}
