package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// supervisor is systemd's end of the socket, and all that came in.
type supervisor struct {
	path string
	mu   sync.Mutex
	got  []string
}

func newSupervisor(r *rig) *supervisor {
	r.t.Helper()
	// A socket's name is short, and a test's directory may not be.
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		r.t.Fatal(err)
	}
	s := &supervisor{path: filepath.Join(dir, "notify")}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		r.t.Fatal(err)
	}
	said := &output{}
	r.outputs = append(r.outputs, said) // no secret may show here either
	var group sync.WaitGroup
	group.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			_, _ = said.Write(append(b[:n:n], '\n'))
			s.mu.Lock()
			s.got = append(s.got, string(b[:n]))
			s.mu.Unlock()
		}
	})
	r.t.Cleanup(func() { _ = l.Close(); group.Wait(); _ = os.RemoveAll(dir) })
	return s
}

// env is what systemd sets for a service with WatchdogSec=200ms.
func (s *supervisor) env() []string {
	return []string{"NOTIFY_SOCKET=" + s.path, "WATCHDOG_USEC=200000"}
}

// since gives what came in after the first n messages.
func (s *supervisor) since(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got[n:]...)
}

func (s *supervisor) count() int { return len(s.since(0)) }

func with(messages []string, part string) int {
	n := 0
	for _, m := range messages {
		for line := range strings.Lines(m) {
			if strings.HasPrefix(line, part) {
				n++
			}
		}
	}
	return n
}

// fed waits until the watchdog was fed some times more.
func (s *supervisor) fed(r *rig, when string) {
	r.t.Helper()
	n := s.count()
	r.await("the watchdog is fed: "+when, func() bool { return with(s.since(n), "WATCHDOG=1") >= 5 })
}

// loggedAt is the time of the log line with a text.
func loggedAt(t *testing.T, d *process, text string) (at time.Time) {
	t.Helper()
	for line := range strings.Lines(d.String()) {
		var said struct{ Time time.Time }
		if strings.Contains(line, text) {
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatal(err)
			}
			return said.Time
		}
	}
	t.Fatalf("%q is not in the log", text)
	return at
}

// TestSystemd follows a daemon from its start over reloads to its end.
func TestSystemd(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	s := newSupervisor(r)
	env := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("TIWKEYD_KEY_LENGTH=40\n")
	d := r.start([]string{"run", "--env-file", env}, s.env()...)
	r.await("it is ready", func() bool { return with(s.since(0), "READY=1") == 1 })
	ready := time.Now()
	r.awaitOutput(d, "serves these targets") // which may still be in the pipe
	if served := loggedAt(t, d, "serves these targets"); served.After(ready) {
		t.Errorf("it was ready before it served, at %s:\n%s", served, d)
	}
	s.fed(r, "at first")
	r.await("it tells how it is", func() bool {
		return r.settled() && with(s.since(0), "STATUS=1 targets: 1 settled; next rotation 20") > 0
	})

	reloading := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+\n`)
	for n, change := range []struct{ text, says string }{{"TIWKEYD_KEY_LENGTH=48\n", `"msg":"reloaded"`}, {"TIWKEYD_KEY_LENGTH=7\n", "the old one goes on"}} {
		before := s.count()
		write(change.text)
		d.signal(syscall.SIGHUP)
		r.await("it is ready again", func() bool { return with(s.since(before), "READY=1") == 1 })
		r.awaitOutput(d, change.says)
		var order []string
		for _, m := range s.since(before) {
			if reloading.MatchString(m) || strings.HasPrefix(m, "READY=1") {
				order = append(order, m[:5])
			}
		}
		if strings.Join(order, " ") != "RELOA READY" {
			t.Errorf("reload %d: %q", n, s.since(before))
		}
		s.fed(r, "after a reload")
	}
	before := s.count()
	d.signal(syscall.SIGTERM)
	<-d.done
	if got := s.since(before); d.code != 0 || with(got, "STOPPING=1") != 1 || with(got, "READY=1") != 0 {
		t.Errorf("%d, %q", d.code, got)
	}
}

// TestWatchdogAway: neither a store nor a Tencent that is away starves the watchdog.
func TestWatchdogAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	s := newSupervisor(r)
	d := r.daemon(s.env()...)
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	v.Freeze()
	d.signal(syscall.SIGUSR1)
	s.fed(r, "Vault does not answer")
	r.awaitOutput(d, "did not answer in time")
	s.fed(r, "Vault has not answered")
	v.Thaw()
	v.Seal()
	r.awaitOutput(d, "unseal it")
	s.fed(r, "Vault is sealed")
	r.await("it tells what is wrong", func() bool { return with(s.since(0), "STATUS=the store cannot be read: ") > 0 })
	for range 100 {
		r.server.Plan("Set", 0, tiwtest.Drop())
		r.server.Plan("Describe", 0, tiwtest.Drop())
	}
	v.Unseal()
	r.awaitOutput(d, "ClientError")
	s.fed(r, "Tencent is away")
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestWatchdogStuck: an engine that does not get on is not kept alive.
func TestWatchdogStuck(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	s := newSupervisor(r)
	d := r.daemon(append(s.env(), "TEST_SIGNAL_AT=push:begin:HANG", "TEST_STALL=3s")...)
	r.awaitOutput(d, "test: HANG at push:begin")
	s.fed(r, "a step may take a while")
	stuck := "STATUS=the engine is stuck: the visit of " + testTarget.String() + " has not got on for "
	r.await("it tells that it is stuck", func() bool { return with(s.since(0), stuck) > 0 })
	n := 0
	for i, m := range s.since(0) {
		if strings.HasPrefix(m, stuck) {
			n = i
			break
		}
	}
	r.await("it is stuck for good", func() bool { return with(s.since(n), stuck) >= 10 })
	if got := with(s.since(n), "WATCHDOG=1"); got != 0 {
		t.Errorf("the watchdog was fed %d times", got)
	}
}

// TestWatchdogStopped: a process that is stopped does not feed, however long it is; one beside
// it shows that time passes.
func TestWatchdogStopped(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	s, beside := newSupervisor(r), newSupervisor(r)
	d := r.daemon(s.env()...)
	r.daemon(beside.env()...)
	s.fed(r, "before")
	d.signal(syscall.SIGSTOP)
	beside.fed(r, "the stop has taken effect")
	n := s.count()
	beside.fed(r, "while the other is stopped")
	beside.fed(r, "while the other is stopped")
	if got := s.since(n); len(got) != 0 {
		t.Errorf("a stopped process said %q", got)
	}
	d.signal(syscall.SIGCONT)
	s.fed(r, "it goes on")
}
