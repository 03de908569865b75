package main

import (
	"syscall"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestDescribeTellsOld: Tencent sets the new key, answers so, and tells of the old one for longer than a key is
// tried and ten minutes more. The new key is taken back while it is in force. It stays accepted until the old one
// was set again, also where the daemon that took it back was killed: what is in doubt stands in the keyring.
func TestDescribeTellsOld(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, c := range []struct {
		name, onDrift string
		killed        bool
	}{
		{"one daemon", "reassert", false},
		{"one after the other", "reassert", true},
		{"they adopt", "adopt", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.useVault(vaulttest.Start(t))
			app, service := testTarget.SdkAppID, string(testTarget.Service)
			r.server.SetKey(app, service, oldKey)
			r.finishes(nil, "enroll", testTarget.String())
			r.load(50)
			r.await("the receiver has read the keyring", func() bool { return r.receiver.Ready(testTarget) })
			r.server.Tell(app, func(string) string { return oldKey })
			env := []string{"TIWKEYD_ATTEMPT_LIMIT=1m", "TIWKEYD_ON_DRIFT=" + c.onDrift} // one second
			d := r.daemon(env...)
			r.awaitOutput(d, `"msg":"rollback done"`)
			taken := secrets.NewKey("taken", r.server.KeyInForce(app, service))
			if e := r.keyring().Lookup(taken); e == nil || e.State != rotator.Previous || taken.Reveal() == oldKey {
				t.Fatal("the key in force is not the one that was taken back: this test shows nothing")
			}
			if c.killed {
				d.signal(syscall.SIGKILL)
				<-d.done
				d = r.daemon(env...)
			}
			r.await("the key that was taken back goes", func() bool { k := r.keyring(); return k != nil && k.Lookup(taken) == nil })
			if r.server.KeyInForce(app, service) == taken.Reveal() {
				t.Error("the key that was retired is in force")
			}
			// Now Tencent tells that it signs with the key that went, which was so a while ago.
			r.server.Tell(app, func(string) string { return taken.Reveal() })
			looks := func() int { return r.server.Calls("DescribeWhiteboardPushCallback") }
			before := looks()
			r.await("the daemon has heard of it", func() bool { return looks() > before+1 })
			if r.keyring().Lookup(taken) != nil {
				t.Error("the key that was retired is accepted again")
			}
			r.server.Tell(app, nil)
			oneLeft := func() bool {
				k := r.keyring()
				return k.Pending() == nil && len(k.Keys) == 1 && k.CallbackKey().Reveal() == r.server.KeyInForce(app, service)
			}
			r.await("it settles with one key", oneLeft)
			d.signal(syscall.SIGUSR1) // by itself it tries again after up to six hours
			r.await("the next rotation succeeds", func() bool { return r.settled() && oneLeft() && r.keyring().CallbackKey().Reveal() != oldKey })
			d.signal(syscall.SIGTERM)
			<-d.done
		})
	}
}
