//go:build receivers

package receivers_test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGo runs the receiver on the package webhook, whose own tests are stricter than the
// recipes' and which takes a second to drop a key.
func TestGo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "receiver")
	if out, err := exec.Command("go", "build", "-o", program, "./go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := serve(t, recipe{file: "go", command: func(*testing.T, place) *exec.Cmd { return exec.Command(program) }}, nil)
	s.refuses(t, current, http.StatusServiceUnavailable)
	replace(t, s.keyring, keyring(t, previous, current, ""))
	s.accepts(t, previous)
	s.accepts(t, current)
	s.refuses(t, foreign, http.StatusUnauthorized)
	replace(t, s.keyring, keyring(t, "", current, pending))
	s.accepts(t, pending)
	s.await(t, "the dropped key is refused", func() bool {
		code, _ := s.post(t, callback(previous), false)
		return code == http.StatusUnauthorized
	})
	if code, _ := s.post(t, []byte("{}"), false); code != http.StatusBadRequest {
		t.Errorf("no callback is answered %d", code)
	}
}
