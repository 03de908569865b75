//go:build receivers

package receivers_test

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestNewKeys shows that a change of the keyring counts from the next request on.
func TestNewKeys(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, ""))
		s.accepts(t, previous)
		s.accepts(t, current)
		s.refuses(t, pending, http.StatusUnauthorized)

		replace(t, s.keyring, keyring(t, "", current, pending))
		s.accepts(t, pending)
		s.refuses(t, previous, http.StatusUnauthorized)

		// As a Kubernetes volume does it: a link in the path leads elsewhere.
		for _, key := range []string{previous, foreign, current} {
			s.relink(t, keyring(t, "", key, ""))
			s.accepts(t, key)
			s.refuses(t, pending, http.StatusUnauthorized)
		}
	})
}

// relink makes the keyring file a link into a folder of its own, in one step.
func (s *server) relink(t *testing.T, content []byte) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keyring.json"), content)
	if err := os.Symlink(filepath.Join(dir, "keyring.json"), s.keyring+".link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.keyring+".link", s.keyring); err != nil {
		t.Fatal(err)
	}
}

// TestBrokenFile shows that a file that is no keyring leaves the last good keys in use, and
// that none of its contents becomes a key.
func TestBrokenFile(t *testing.T) {
	good := keyring(t, previous, current, "")
	next := keyring(t, "", current, pending)
	broken := map[string][]byte{
		"empty":               {},
		"half-written":        next[:len(next)/2],
		"all but the end":     next[:len(next)-1],
		"no JSON":             []byte("no JSON"),
		"null":                []byte("null"),
		"a number":            []byte("1"),
		"a list":              []byte(`["` + pending + `"]`),
		"a string":            []byte(`"` + pending + `"`),
		"no accept":           []byte(`{"callback_key":"` + pending + `"}`),
		"accept is null":      []byte(`{"accept":null}`),
		"accept is empty":     []byte(`{"accept":[]}`),
		"accept is a string":  []byte(`{"accept":"` + pending + `"}`),
		"accept is letters":   []byte(`{"accept":"x"}`),
		"accept is an object": []byte(`{"accept":{"0":"` + pending + `","a":"` + pending + `"}}`),
		"a key is empty":      []byte(`{"accept":["` + pending + `",""]}`),
		"a key is null":       []byte(`{"accept":[null,"` + pending + `"]}`),
		"a key is a number":   []byte(`{"accept":["` + pending + `",1]}`),
		"a key is a list":     []byte(`{"accept":[["` + pending + `"]]}`),
	}
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, good)
		s.accepts(t, current)
		stays := func(name string) {
			t.Helper()
			t.Run(name, func(t *testing.T) {
				s.accepts(t, current)
				s.accepts(t, previous)
				for _, key := range []string{pending, "1", "x", "null", "None", "Array"} {
					s.refuses(t, key, http.StatusUnauthorized)
				}
				if code, _ := s.post(t, fields{Sign: `"` + sign("", future()) + `"`}.signed(), false); code != http.StatusUnauthorized {
					t.Errorf("the empty key is answered %d", code)
				}
			})
		}
		for name, content := range broken {
			replace(t, s.keyring, content)
			stays(name)
		}
		if err := os.Remove(s.keyring); err != nil {
			t.Fatal(err)
		}
		stays("missing")
		if err := os.Mkdir(s.keyring, 0o700); err != nil {
			t.Fatal(err)
		}
		stays("a folder")
		if err := os.Remove(s.keyring); err != nil {
			t.Fatal(err)
		}

		replace(t, s.keyring, next)
		s.accepts(t, pending)
		s.refuses(t, previous, http.StatusUnauthorized)
		replace(t, s.keyring, next[:10])
		s.accepts(t, pending) // the last good keys are the last ones, not the first
		s.refuses(t, previous, http.StatusUnauthorized)
	})
}

// TestNoFileAtStart shows that a server without keys says so, whatever it is asked, and that
// it serves once it has some.
func TestNoFileAtStart(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		for _, content := range [][]byte{nil, {}, []byte(`{"accept":[]}`), []byte(`{"accept":[""]}`), []byte(`{"accept":"x"}`)} {
			s := serve(t, r, content)
			for _, key := range []string{current, foreign, "x", ""} {
				s.refuses(t, key, http.StatusServiceUnavailable)
			}
			replace(t, s.keyring, keyring(t, previous, current, pending))
			s.accepts(t, current)
			s.refuses(t, foreign, http.StatusUnauthorized)
		}
	})
}

// TestUnderFire rewrites the file without pause, in one step and in the worst way, while
// callbacks come: those signed with the key that is in every keyring are never refused.
func TestUnderFire(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, ""))
		s.accepts(t, current)
		contents := [][]byte{keyring(t, previous, current, ""), keyring(t, "", current, pending)}
		done := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if i%2 == 0 {
					_ = os.WriteFile(s.keyring, contents[i/2%2], 0o600) // empty for a moment, then half-written
				} else if os.WriteFile(s.keyring+".new", contents[i/2%2], 0o600) == nil {
					_ = os.Rename(s.keyring+".new", s.keyring)
				}
			}
		})
		defer writer.Wait()
		defer close(done)
		var senders sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for range 100 {
					if code, answer := s.post(t, callback(current), false); code != http.StatusOK {
						t.Errorf("a genuine callback is answered %d %s", code, answer)
						return
					}
				}
			})
		}
		senders.Wait()
	})
}

// TestKeptCopy shows that the file in which nginx keeps the last good keys is for nobody else.
func TestKeptCopy(t *testing.T) {
	r := recipes()[4]
	need(t, r.install, r.needs...)
	s := serve(t, r, keyring(t, previous, current, pending))
	s.accepts(t, current)
	info, err := os.Stat(filepath.Join(s.dir, "last-good.json"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
	s.accepts(t, previous)
	if again, err := os.Stat(filepath.Join(s.dir, "last-good.json")); err != nil || !os.SameFile(info, again) {
		t.Errorf("it is written again, though the keys are the same (%v)", err)
	}
	copies, err := filepath.Glob(filepath.Join(s.dir, "last-good.json.*"))
	if err != nil || len(copies) > 0 {
		t.Errorf("%v was left behind (%v)", copies, err)
	}
}
