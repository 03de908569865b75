package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEarlySignals: a signal that comes before the daemon has read its settings does not end it, and what it asks for is
// done. Any other command it ends, as before.
func TestEarlySignals(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, command := range []string{"run", "status"} {
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		dir := t.TempDir()
		settings := filepath.Join(dir, "env")
		if err := unix.Mkfifo(settings, 0o600); err != nil {
			t.Fatal(err)
		}
		p := r.start([]string{command, "--env-file", settings})
		gate, err := os.OpenFile(settings, os.O_WRONLY, 0) // until it is read from the other end
		if err != nil {
			t.Fatal(err)
		}
		if command == "status" {
			p.signal(syscall.SIGHUP)
			<-p.done
			if s, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGHUP {
				t.Errorf("%s goes on after SIGHUP: %v", command, p.cmd.ProcessState)
			}
			_ = gate.Close()
			continue
		}
		p.signal(syscall.SIGHUP)
		p.signal(syscall.SIGUSR1)
		// A reload reads a file in its place.
		if err := os.WriteFile(settings+".new", []byte("TIWKEYD_RECONCILE=11m\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(settings+".new", settings); err != nil {
			t.Fatal(err)
		}
		if _, err := gate.WriteString("TIWKEYD_RECONCILE=12m\n"); err != nil {
			t.Fatal(err)
		}
		_ = gate.Close()
		r.awaitOutput(p, `"msg":"reloaded`)
		r.await("what was asked for", func() bool { return strings.Contains(p.String(), `"reason":"signal"`) || p.exited() })
		if p.exited() {
			t.Fatalf("it ended with %d:\n%s", p.code, p)
		}
	}
}
