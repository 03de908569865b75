package main

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
)

// untold is a rig with a real Vault, in which TIWKEYD_PROPAGATION is set by who says so only.
func untold(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	r.env = slices.DeleteFunc(r.env, func(v string) bool { return strings.HasPrefix(v, "TIWKEYD_PROPAGATION=") })
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	return r
}

// waited is how long after it was written the current key came into force.
func (r *rig) waited() time.Duration {
	r.t.Helper()
	k := r.keyring()
	if k == nil || k.Current() == nil {
		r.t.Fatal("there is no current key")
	}
	return k.Current().ActivatedAt.Sub(k.Current().CreatedAt)
}

// written is the propagation in the keyring, below zero if there is none.
func (r *rig) written() time.Duration {
	if k := r.keyring(); k != nil && k.Overrides != nil && k.Overrides.Propagation != nil {
		return *k.Overrides.Propagation
	}
	return -1
}

// TestShellIsQuicker: a shell that was told of quicker receivers than the daemon, or of none, rotates.
// It used to set the key when its own time was over, and receivers that need longer refused.
func TestShellIsQuicker(t *testing.T) {
	slow(t)
	t.Parallel()
	r := untold(t)
	r.finishes([]string{"TIWKEYD_PROPAGATION=1s"}, "enroll", testTarget.String())
	const needed = 8 * time.Second
	d := r.daemon("TIWKEYD_PROPAGATION=" + needed.String())
	r.await("the daemon writes down what receivers need", func() bool { return r.written() == needed })
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	for _, env := range [][]string{{"TIWKEYD_PROPAGATION=1s"}, nil} {
		before := r.currentID()
		r.finishes(env, "rotate", testTarget.String())
		if r.currentID() == before || r.waited() < needed {
			t.Errorf("%q: the key was in force %s after it was written", env, r.waited())
		}
	}
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestDaemonMeetsAKey: a shell stages a key, a daemon comes whose receivers need longer, and the shell
// goes on with the key.
func TestDaemonMeetsAKey(t *testing.T) {
	slow(t)
	t.Parallel()
	r := untold(t)
	r.finishes([]string{"TIWKEYD_PROPAGATION=1s"}, "enroll", testTarget.String())
	r.finishes([]string{"TIWKEYD_PROPAGATION=1s"}, "rotate", "--no-wait", testTarget.String())
	const needed = 8 * time.Second
	d := r.daemon("TIWKEYD_PROPAGATION=" + needed.String())
	r.await("the daemon writes down what receivers need", func() bool { return r.written() == needed })
	r.finishes([]string{"TIWKEYD_PROPAGATION=1s"}, "rotate", testTarget.String())
	if r.waited() < needed || r.written() != needed {
		t.Errorf("the key was in force %s after it was written", r.waited())
	}
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestLowered: set alone lowers the propagation, of one target or of all; a shell that was told nothing
// does not wait where nobody needs it, and a daemon that was told raises it again.
func TestLowered(t *testing.T) {
	slow(t)
	t.Parallel()
	r := untold(t)
	second := secrets.Target{SdkAppID: testTarget.SdkAppID + 1, Service: secrets.WhiteboardPush}
	r.server.AddApp(second.SdkAppID)
	r.server.SetKey(second.SdkAppID, string(second.Service), oldKey)
	both := []string{"TIWKEYD_TARGETS=" + testTarget.String() + "," + second.String()}
	if out, code := r.run([]string{"set", "--all", "propagation=0s"}, both...); code != exitUsage || strings.Count(out, "has no keyring") != 2 {
		t.Errorf("nothing is there: %d\n%s", code, out)
	}
	r.finishes([]string{"TIWKEYD_PROPAGATION=20s"}, "enroll", testTarget.String())
	if r.written() != 20*time.Second {
		t.Fatalf("adopted with %s", r.written())
	}
	out, code := r.run([]string{"set", "--all", "propagation=0s"}, both...)
	if code != exitUsage || !strings.Contains(out, second.String()+" has no keyring") || !strings.Contains(out, "raises it again") || r.written() != 0 {
		t.Errorf("one of two: %d, %s\n%s", code, r.written(), out)
	}
	r.finishes(nil, "rotate", testTarget.String()) // six minutes, by default
	if r.waited() > time.Minute {
		t.Errorf("receivers that need no time got %s", r.waited())
	}
	r.finishes(both, "enroll", second.String())
	p := r.start([]string{"set", "--all", "--json"}, append(both, "TIWKEYD_LOG_LEVEL=error")...)
	<-p.done
	var shown []settings
	if err := json.Unmarshal([]byte(p.String()), &shown); err != nil || p.code != 0 || len(shown) != 2 ||
		shown[0].Settings[2] != (setting{"propagation", "0s", "the keyring"}) || shown[1].Settings[2] != (setting{"propagation", "6m0s", "default"}) {
		t.Errorf("%d, %v\n%s", p.code, err, p)
	}
	if out, code := r.run([]string{"status"}); code != 0 || !strings.Contains(out, "0s (the keyring)") {
		t.Errorf("status: %d\n%s", code, out)
	}
	r.finishes(both, "set", "--all", "propagation=")
	if r.written() >= 0 {
		t.Errorf("%s is written still", r.written())
	}
	d := r.daemon("TIWKEYD_PROPAGATION=2s")
	r.await("the daemon writes what it was told", func() bool { return r.written() == 2*time.Second })
	r.finishes(nil, "set", testTarget.String(), "propagation=1h")
	r.finishes([]string{"TIWKEYD_PROPAGATION=2s"}, "rotate", "--revoke", testTarget.String())
	out, _ = r.run([]string{"rotate", "--timeout=1s", testTarget.String()}, "TIWKEYD_PROPAGATION=2s")
	if !strings.Contains(out, "tiwkeyd set "+testTarget.String()+" propagation=2s") || r.written() != time.Hour {
		t.Errorf("one that was told of less: %s\n%s", r.written(), out)
	}
	ps := &parts{store: r.store, policy: rotator.Policy{Propagation: time.Minute}}
	if got := ps.longestWait(t.Context(), []secrets.Target{testTarget, second}); got != time.Hour {
		t.Errorf("rotate waits for %s and ten minutes", got)
	}
	r.finishes(nil, "set", testTarget.String(), "propagation=0s")
	if got := ps.longestWait(t.Context(), []secrets.Target{testTarget, second}); got < 50*time.Minute || got > time.Hour {
		t.Errorf("rotate waits for %s and ten minutes, and a key is pending for an hour", got)
	}
	if got := ps.longestWait(t.Context(), nil); got != 0 {
		t.Errorf("rotate waits %s for nobody", got)
	}
	d.signal(syscall.SIGTERM)
	<-d.done
}
