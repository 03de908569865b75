package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// secretPath is where the keyring is in the engine of the tests' Vault.
var secretPath = "tiw/" + testTarget.String()

// TestDeletedWhilePending: a keyring is deleted while its key is pending, and is back a moment
// before the key would be set. Receivers begin anew to come to know it. That other keyrings could
// be read all the while proves nothing.
func TestDeletedWhilePending(t *testing.T) {
	slow(t)
	t.Parallel()
	const needs = 8 * time.Second
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	service := string(testTarget.Service)
	all := []string{}
	for i := range int64(2) {
		other := secrets.Target{SdkAppID: testTarget.SdkAppID + i, Service: testTarget.Service}
		all = append(all, other.String())
		r.server.AddApp(other.SdkAppID)
		r.server.SetKey(other.SdkAppID, service, oldKey)
	}
	env := []string{"TIWKEYD_TARGETS=" + strings.Join(all, ","), "TIWKEYD_PROPAGATION=0s"}
	for _, other := range all {
		r.finishes(env, "rotate", other)
		if other != testTarget.String() { // it is looked at twice a second, and keeps its key
			r.finishes(env, "set", other, "paused=true")
		}
	}
	var mu sync.Mutex
	set := map[string]time.Time{}
	r.server.OnApply(func(a tiwtest.Applied) {
		mu.Lock()
		defer mu.Unlock()
		set[a.Key] = a.At
	})
	d := r.daemon(env[0], "TIWKEYD_PROPAGATION="+needs.String(), "TIWKEYD_RECONCILE=10s")
	d.signal(syscall.SIGUSR1)
	r.await("a key is pending", func() bool { k := r.keyring(); return k != nil && k.Pending() != nil })
	pending := r.keyring().Pending()
	// That it be adopted again meanwhile is another matter: Tencent does not tell what is in force.
	r.server.RefuseAlways(testTarget.SdkAppID, "Describe", "InternalError")
	kv := v.Client(v.Token).KVv2("secret")
	version, err := r.store.Read(t.Context(), testTarget)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), secretPath); err != nil {
		t.Fatal(err)
	}
	timer := time.NewTimer(time.Until(pending.CreatedAt.Add(needs * 7 / 8)))
	<-timer.C
	back := time.Now()
	if err := kv.Undelete(t.Context(), secretPath, []int{int(version.Version)}); err != nil {
		t.Fatal(err)
	}
	r.server.RefuseAlways(testTarget.SdkAppID, "Describe", "")
	r.await("the key is set", func() bool { mu.Lock(); defer mu.Unlock(); return !set[pending.Key.Reveal()].IsZero() })
	mu.Lock()
	defer mu.Unlock()
	if after := set[pending.Key.Reveal()].Sub(back); after < needs {
		t.Errorf("the key was set %s after its keyring was back; receivers need %s to read it", after, needs)
	}
}

// TestTwoLives: a keyring is deleted and made anew while a daemon that is about to set a key of the
// old one is stopped. The new one has come to the same version when the daemon goes on. Nothing of
// the old life is written or set.
func TestTwoLives(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.finishes(nil, "rotate", testTarget.String())
	r.load(50)
	r.await("the receiver has read the keyring", func() bool { return r.receiver.Ready(testTarget) })
	d := r.daemon("TEST_SIGNAL_AT=push:begin:STOP")
	d.signal(syscall.SIGUSR1)
	r.awaitOutput(d, "test: STOP at push:begin")
	// A keyring that was read less than ten seconds ago is written over without another read.
	stopped := time.NewTimer(11 * time.Second)
	old, err := r.store.Read(t.Context(), testTarget)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Client(v.Token).KVv2("secret").DeleteMetadata(t.Context(), secretPath); err != nil {
		t.Fatal(err)
	}
	r.finishes(nil, "enroll", testTarget.String())
	r.finishes(nil, "rotate", testTarget.String())
	version := func() int64 {
		s, err := r.store.Read(t.Context(), testTarget)
		if err != nil {
			t.Fatal(err)
		}
		return s.Version
	}
	for name := "@yearly"; version() < old.Version; name = map[string]string{"@yearly": "@annually", "@annually": "@yearly"}[name] {
		r.finishes(nil, "set", testTarget.String(), "schedule="+name)
	}
	if version() != old.Version {
		t.Fatalf("the new keyring has version %d, the old one had %d: this test shows nothing", version(), old.Version)
	}
	before, sets := r.keyring(), r.setCalls()
	<-stopped.C
	d.signal(syscall.SIGCONT)
	d.signal(syscall.SIGTERM) // it finishes the step in hand
	<-d.done
	after := r.keyring()
	if n := r.setCalls() - sets; n > 0 || !r.settled() || after.CallbackKey().ID() != before.CallbackKey().ID() {
		t.Errorf("%d Set calls of the old life; the current key was %s and is %s", n, before.CallbackKey(), after.CallbackKey())
	}
	for _, e := range old.Keyring.Keys {
		if after.Lookup(e.Key) != nil && before.Lookup(e.Key) == nil {
			t.Errorf("key %s of the old life is back", e.Key)
		}
	}
	again := r.daemon()
	again.signal(syscall.SIGUSR1)
	r.await("the new life goes on", func() bool { return r.settled() && r.currentID() != before.CallbackKey().ID() })
}

// TestRetiredUnseen: a key that an adopted one replaced goes, although the credential may not ask
// which key is in force.
func TestRetiredUnseen(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	service := string(testTarget.Service)
	r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	const foreign = "CANARY-key-of-somebody-else"
	r.secret(foreign)
	d := r.daemon("TIWKEYD_ON_DRIFT=adopt")
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	r.server.SetKey(testTarget.SdkAppID, service, foreign)
	r.await("the foreign key is adopted", func() bool { k := r.keyring(); return k != nil && k.CallbackKey().Reveal() == foreign })
	r.server.RefuseAlways(testTarget.SdkAppID, "Describe", "UnauthorizedOperation")
	r.await("the keys that it replaced go", func() bool { return len(r.keyring().Keys) == 1 })
	if !strings.Contains(d.String(), "may not read back the key in force") || !r.settled() {
		t.Errorf("the daemon could ask, or another key is in force:\n%s", tail(d.String()))
	}
}
