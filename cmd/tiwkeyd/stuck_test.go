package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestLongerPropagation: a target whose receivers need longer than the process is told of gets
// its key when they know it. It used to wait for ever.
func TestLongerPropagation(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	for _, c := range []struct{ process, target string }{{"0s", "4s"}, {"1s", "5s"}} {
		env := []string{"TIWKEYD_PROPAGATION=" + c.process}
		r.finishes(env, "enroll", testTarget.String())
		r.finishes(env, "set", testTarget.String(), "propagation="+c.target)
		before := r.currentID()
		r.finishes(env, "rotate", testTarget.String())
		k := r.keyring()
		if cur := k.Current(); cur.Key.ID() == before || cur.ActivatedAt.Sub(cur.CreatedAt) < mustParse(t, c.target) {
			t.Errorf("%+v: the key was in force %s after it was written", c, cur.ActivatedAt.Sub(cur.CreatedAt))
		}
	}
}

func mustParse(t *testing.T, span string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(span)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// finishes runs a command that must end well.
func (r *rig) finishes(env []string, args ...string) {
	r.t.Helper()
	p := r.start(args, env...)
	r.await(strings.Join(args, " ")+" ends", p.exited)
	if p.code != 0 {
		r.t.Errorf("%v: %d\n%s", args, p.code, tail(p.String()))
	}
}

// TestDemandBeforeDrift: a key is asked for while a key that somebody adopted was replaced by an
// older one. It used to wait until the drift was put right.
func TestDemandBeforeDrift(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	service := string(testTarget.Service)
	r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	const foreign = "CANARY-key-of-somebody-else"
	r.secret(foreign)
	// In real time, where drift is put right nine minutes after an adoption at the earliest.
	env := []string{"TIWKEYD_ON_DRIFT=adopt", "TIWKEYD_PROPAGATION=0s", "TEST_SPEED=1", "TIWKEYD_RECONCILE=10s"}
	d := r.daemon(env...)
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	ours := r.server.KeyInForce(testTarget.SdkAppID, service)
	r.server.SetKey(testTarget.SdkAppID, service, foreign)
	r.await("the foreign key is adopted", func() bool { k := r.keyring(); return k != nil && k.CallbackKey().Reveal() == foreign })
	r.server.SetKey(testTarget.SdkAppID, service, ours)
	r.awaitOutput(d, "an older key of ours came back into force")
	r.finishes(env, "rotate", testTarget.String())
	d.signal(syscall.SIGTERM)
	<-d.done
}
