package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEarlySignals: a signal that comes before the daemon has read its settings does not end it, and what it asks for is
// done. Any other command it ends, as before.
func TestEarlySignals(t *testing.T) {
	slow(t)
	needsProc(t)
	t.Parallel()
	commands := []string{"run", "status"}
	if signal.Ignored(syscall.SIGHUP) { // as nohup has it, for what it starts and all below
		commands = commands[:1]
	}
	for _, command := range commands {
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		dir := t.TempDir()
		settings := filepath.Join(dir, "env")
		if err := unix.Mkfifo(settings, 0o600); err != nil {
			t.Fatal(err)
		}
		gate, err := os.OpenFile(settings, os.O_RDWR, 0) // it is not read to its end until this is closed
		if err != nil {
			t.Fatal(err)
		}
		p := r.start([]string{command, "--env-file", settings})
		r.await("it reads its settings", func() bool {
			fds := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
			all, err := os.ReadDir(fds)
			return err == nil && slices.ContainsFunc(all, func(e os.DirEntry) bool {
				to, err := os.Readlink(filepath.Join(fds, e.Name()))
				return err == nil && to == settings
			}) || p.exited()
		})
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
