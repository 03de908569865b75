package main

import (
	"bytes"
	"context"
	"slices"
	"syscall"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault/vaulttest"
)

// accepts reports whether a receiver that reads the keyring now would accept a callback that
// Tencent signs now.
func (r *rig) accepts() bool {
	k := r.keyring()
	inForce := r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))
	return k != nil && slices.ContainsFunc(k.Keys, func(e rotator.Entry) bool { return e.Key.Reveal() == inForce })
}

// TestRestoredVault is what docs/operations.md says of a Vault that was restored from a backup
// older than the key in force, and of a keyring that is gone: from when to when callbacks are
// refused that a receiver checks by the keyring alone, and which key it ends with. The proxy and
// the Go package, which remember the newer keyring, refuse none.
func TestRestoredVault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, onDrift string
		gone          bool
		back          bool // the backup's key is in force at the end, else the one that was
	}{
		{"reassert", "reassert", false, true},
		{"adopt", "adopt", false, false},
		{"gone", "reassert", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := vaulttest.StartCluster(t, 3).Nodes[0]
			r := newRig(t)
			r.useVault(v)
			v.Policy("receiver", receiverPolicy)
			r.env = append(r.env, "TIWKEYD_ON_DRIFT="+c.onDrift)
			f := &fleet{rig: r, vault: v}
			receivers := f.add("Go middleware and proxy", 0)
			d := r.daemon()
			r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
			f.goReceivers(receivers, v.Addr, 1)
			f.proxies(receivers, 1)
			f.send(40)
			inBackup := r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))
			var backup bytes.Buffer
			root := v.Client(v.Token)
			if err := root.Sys().RaftSnapshot(&backup); err != nil {
				t.Fatal(err)
			}
			before := r.currentID()
			d.signal(syscall.SIGUSR1)
			r.await("a rotation after the backup", func() bool { return r.settled() && r.currentID() != before })
			lost := r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))
			d.signal(syscall.SIGTERM)
			<-d.done

			if c.gone {
				if err := root.KVv2("secret").DeleteMetadata(context.Background(), "tiw/"+testTarget.String()); err != nil {
					t.Fatal(err)
				}
			} else if err := root.Sys().RaftSnapshotRestore(&backup, true); err != nil {
				t.Fatal(err)
			}
			r.await("the old state is there", func() bool {
				s, err := r.store.Read(context.Background(), testTarget)
				return err == nil && (s.Keyring == nil) == c.gone && (c.gone || s.Keyring.CallbackKey().ID() == before)
			})
			if r.accepts() {
				t.Error("the restored keyring has the key in force: this test shows nothing")
			}
			r.daemon()
			r.await("callbacks are accepted again", func() bool { return r.accepts() && (c.gone || r.settled()) })
			if c.gone { // it is adopted, and replaced soon, as at a first start
				if !slices.ContainsFunc(r.keyring().Keys, func(e rotator.Entry) bool { return e.Key.Reveal() == lost }) {
					t.Error("the key that was in force was not adopted")
				}
				return
			}
			want := map[bool]string{true: inBackup, false: lost}[c.back]
			if r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)) != want {
				t.Error("another key than the page says is in force")
			}
		})
	}
}
