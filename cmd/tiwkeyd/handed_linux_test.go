package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandedOut: a file of settings with a secret that an orchestrator put in memory, for all to read, is used, with one
// warning that is a line of the log; on a disk it is refused, and a reload goes on with the old one.
func TestHandedOut(t *testing.T) {
	slow(t)
	t.Parallel()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || os.Geteuid() != 0 {
		t.Skip("only root has files in memory that are root's")
	}
	dir, err := os.MkdirTemp("/dev/shm", "tiwkeyd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := newRig(t)
	r.secret("CANARY-token-of-the-status-page")
	put := func(path, more string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte("TIWKEYD_HTTP_TOKEN=CANARY-token-of-the-status-page\n"+more), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	handed, link := filepath.Join(dir, "env"), filepath.Join(t.TempDir(), "env")
	put(handed, "", 0o444)
	if err := os.Symlink(handed, link); err != nil {
		t.Fatal(err)
	}
	p := r.start([]string{"run", "--env-file", link})
	r.awaitOutput(p, "can be read by others; it was handed out so")
	reload := func(says string) {
		t.Helper()
		before := strings.Count(p.String(), says)
		p.signal(syscall.SIGHUP)
		r.await("it says "+says, func() bool { return strings.Count(p.String(), says) > before })
	}
	r.awaitOutput(p, "serves these targets")
	put(handed, "TIWKEYD_RECONCILE=2m\n", 0o444)
	reload(`"reloaded"`)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	put(link, "", 0o644)
	reload(link + " can be read by others (mode 0644, of user 0): chmod go= " + link)
	put(link, "", 0o600)
	reload(`"reloaded"`)
	if n := strings.Count(p.String(), "it was handed out so"); n != 1 {
		t.Errorf("it warned %d times\n%s", n, p)
	}
	for line := range strings.Lines(p.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no line of the log: %s", line)
		}
	}
}
