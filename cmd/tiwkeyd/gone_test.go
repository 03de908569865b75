package main

import (
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestGoneIsTold: somebody deletes the keyring in Vault, while the daemon runs or before it starts. It warns of that,
// and goes on with a new one.
func TestGoneIsTold(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	kv := v.Client(v.Token).KVv2("secret")
	// Between looks nothing is in hand: a visit that read the keyring before it was deleted writes it again.
	env := []string{"TIWKEYD_RECONCILE=1h", "TIWKEYD_GRACE=24h", "TIWKEYD_PROPAGATION=0s"}
	const gone, never = "the keyring that was there is gone", "there is no keyring yet"
	done := func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() }
	d := r.daemon(env...)
	r.await("a first rotation", done)
	if strings.Contains(d.String(), gone) {
		t.Error("a keyring that never was is told of as gone")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(kv.Delete(t.Context(), secretPath))
	d.signal(syscall.SIGUSR1)
	r.awaitOutput(d, gone)
	r.await("a keyring after the deleted version", done)
	must(kv.DeleteMetadata(t.Context(), secretPath))
	d.signal(syscall.SIGUSR1)
	r.await("it is told once more", func() bool { return strings.Count(d.String(), gone) == 2 })
	r.await("a keyring after all was deleted", done)
	d.signal(syscall.SIGTERM)
	<-d.done
	must(kv.Delete(t.Context(), secretPath))
	e := r.daemon(env...)
	r.awaitOutput(e, gone)
	r.await("a keyring after the daemon was away", done)
	for _, text := range []string{d.String(), e.String()} {
		if strings.Contains(text, never) || !strings.Contains(text, `"level":"WARN","msg":"`+gone) {
			t.Errorf("it is not a warning, or it says that there was none:\n%s", tail(text))
		}
	}
}
