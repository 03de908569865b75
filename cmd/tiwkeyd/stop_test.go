package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// TestStopLimit tells the daemon to stop while the step in hand is held up for far longer than
// whoever stops it waits. It ends by itself: in good order if the step can be broken off,
// and with another status if it is stuck. The next start goes on.
func TestStopLimit(t *testing.T) {
	slow(t)
	t.Parallel()
	goesOn := func(r *rig, before string) {
		r.t.Helper()
		d := r.daemon()
		d.signal(syscall.SIGUSR1)
		r.await("the next start goes on", func() bool { return r.settled() && r.currentID() != before })
		d.signal(syscall.SIGTERM)
		if <-d.done; d.code != 0 {
			r.t.Errorf("%d", d.code)
		}
	}
	stopped := func(r *rig, at string) *process {
		r.t.Helper()
		d := r.daemon("TEST_SIGNAL_AT=" + at + ":TERM")
		d.signal(syscall.SIGUSR1)
		if <-d.done; d.code != 0 || !strings.Contains(d.String(), `"msg":"stopped"`) || !strings.Contains(d.String(), "TERM at "+at) {
			r.t.Errorf("it ended with %d:\n%s", d.code, tail(d.String()))
		}
		return d
	}
	t.Run("Vault does not answer", func(t *testing.T) {
		v := vaulttest.Start(t)
		r := newRig(t)
		r.useVault(v)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		var once sync.Once
		r.server.OnApply(func(a tiwtest.Applied) { r.secret(a.Key); once.Do(v.Freeze) })
		stopped(r, "commit:begin")
		v.Thaw()
		goesOn(r, r.currentID())
	})
	t.Run("Tencent does not answer", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		r.server.Plan("Describe", 0, tiwtest.SlowLoris()) // a Set has a deadline of its own
		stopped(r, "observe:begin")
		goesOn(r, r.currentID())
	})
	t.Run("a stuck engine", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		d := r.daemon("TEST_SIGNAL_AT=push:begin:HANG")
		r.awaitOutput(d, "test: HANG at push:begin")
		d.signal(syscall.SIGTERM)
		if <-d.done; d.code != exitInternal || !strings.Contains(d.String(), "is given up; the next start goes on with it") {
			t.Errorf("it ended with %d:\n%s", d.code, tail(d.String()))
		}
		goesOn(r, r.currentID())
	})
	t.Run("a stuck engine at a reload", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		d := r.daemon("TEST_SIGNAL_AT=push:begin:HANG")
		r.awaitOutput(d, "test: HANG at push:begin")
		d.signal(syscall.SIGHUP)
		r.awaitOutput(d, `"msg":"reloaded"`)
		d.signal(syscall.SIGTERM)
		if <-d.done; d.code != exitInternal {
			t.Errorf("it ended with %d:\n%s", d.code, tail(d.String()))
		}
		goesOn(r, r.currentID())
	})
}

// TestLimits: a step that can be broken off ends before the daemon gives it up, and whoever
// stops it with a limit of ten seconds need not kill it.
func TestLimits(t *testing.T) {
	if stopLimit >= 10*time.Second || stopLimit <= 7*time.Second {
		t.Error(stopLimit)
	}
}
