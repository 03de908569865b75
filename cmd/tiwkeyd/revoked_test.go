package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/webhook"
)

// TestRevokedStaysRevoked: the proxy has read that a key was revoked. Then the keyring is deleted with
// its metadata, and a new one, whose versions begin anew, has the key again under another id. The
// proxy goes on to refuse it.
func TestRevokedStaysRevoked(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	app := testTarget.SdkAppID
	leaked, second, good := r.newKey(), r.newKey(), r.newKey()
	for _, k := range []secrets.Key{leaked, second, good} {
		r.secret(k.Fingerprint())
	}
	for range 2 {
		r.put(testTarget, entry(leaked, rotator.Current))
	}
	p := r.proxy(r.standing(nil), nil)
	body := r.fresh(app, leaked)
	if status, text := send(t, p.url, body); status != http.StatusOK {
		t.Fatalf("before it is revoked: %d %s", status, text)
	}

	kv, path := v.Client(v.Token).KVv2("secret"), "tiw/"+testTarget.String()
	keyring, err := (&rotator.Keyring{Target: testTarget, Keys: []rotator.Entry{entry(second, rotator.Current)}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var revoked map[string]any
	if err := json.Unmarshal(keyring, &revoked); err != nil {
		t.Fatal(err)
	}
	revoked["revoked"] = []any{7, map[string]any{"id": leaked.ID(), "sha256": leaked.Fingerprint()}}
	if _, err := kv.Put(t.Context(), path, revoked); err != nil {
		t.Fatal(err)
	}
	r.await("the revoked key is refused", func() bool { status, _ := send(t, p.url, body); return status == http.StatusUnauthorized })

	got := r.verified("revoked", body, nil, nil, exitRefused, webhook.BadSignature, "with key "+leaked.ID()+" of "+testTarget.String()+", which was revoked at ", "["+second.ID()+"]")
	if got.KeyState != "revoked" || got.KeyID != leaked.ID() {
		t.Errorf("%+v", got)
	}

	if err := kv.DeleteMetadata(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again := secrets.NewKey("another-id", leaked.Reveal())
	r.put(testTarget, entry(again, rotator.Previous), entry(good, rotator.Current))
	if s, err := r.store.Read(t.Context(), testTarget); err != nil || s.Version != 1 {
		t.Fatalf("the versions have not begun anew: %v", err)
	}
	// A key that the proxy does not know yet has it read the new keyring.
	if status, text := send(t, p.url, r.fresh(app, good)); status != http.StatusOK || !strings.HasSuffix(text, good.ID()) {
		t.Errorf("a callback signed with the good key: %d %s", status, text)
	}
	if status, text := send(t, p.url, body); status != http.StatusUnauthorized {
		t.Errorf("a callback signed with the revoked key: %d %s", status, text)
	}
	r.awaitOutput(p.process, "a revoked key was read among the accepted ones")
	r.awaitOutput(p.process, `"key":"another-id"`)

	// A keyring that lists one of the keys that it accepts: verify goes by the list, too.
	if err := kv.DeleteMetadata(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	revoked["revoked"] = []any{map[string]any{"sha256": second.Fingerprint()}}
	if _, err := kv.Put(t.Context(), path, revoked); err != nil {
		t.Fatal(err)
	}
	r.verified("accepted and revoked", r.fresh(app, second), nil, nil, exitRefused, webhook.BadSignature, "None of the keys accepted now explains its Sign: [].")
}

// TestRevokedAndRestored: a key is revoked, and then the keyring is put back as it was before, as a new version or
// with its versions begun anew. From the moment at which the proxy has read that the key was revoked it accepts
// nothing that was signed with it, also where a second revocation makes the keyring newer again.
func TestRevokedAndRestored(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, anew := range []bool{false, true} {
		t.Run(map[bool]string{false: "as a new version", true: "anew"}[anew], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			v := vaulttest.Start(t)
			r.useVault(v)
			app := testTarget.SdkAppID
			r.server.SetKey(app, string(testTarget.Service), oldKey)
			d := r.daemon()
			r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
			leaked := r.keyring().CallbackKey()
			r.secret(leaked.Fingerprint())
			kv := v.Client(v.Token).KVv2("secret")
			backup, err := kv.Get(t.Context(), secretPath)
			if err != nil {
				t.Fatal(err)
			}
			p := r.proxy(r.standing(nil), nil)
			body := r.fresh(app, leaked)
			if status, text := send(t, p.url, body); status != http.StatusOK {
				t.Fatalf("before it is revoked: %d %s", status, text)
			}
			r.finishes(nil, "rotate", "--revoke", testTarget.String())
			r.await("the revoked key is refused", func() bool { status, _ := send(t, p.url, body); return status == http.StatusUnauthorized })

			// Each waits for a reading of the keyring that was begun after it came.
			var answers sync.Map // status: when it was given first
			var sent atomic.Int64
			stop := make(chan struct{})
			var group sync.WaitGroup
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					status, _ := send(t, p.url, body)
					answers.LoadOrStore(status, time.Now())
					sent.Add(1)
				}
			})
			defer func() { close(stop); group.Wait() }()
			accepted := func() bool { _, ok := answers.Load(http.StatusOK); return ok }
			someMore := func(when string) {
				t.Helper()
				before := sent.Load()
				r.await("some more are answered", func() bool { return sent.Load() > before+2 || accepted() })
				if accepted() {
					t.Fatalf("the revoked key was accepted %s", when)
				}
			}
			if anew {
				if err := kv.DeleteMetadata(t.Context(), secretPath); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := kv.Put(t.Context(), secretPath, backup.Data); err != nil {
				t.Fatal(err)
			}
			someMore("when its keyring was put back")
			r.awaitOutput(p.process, "a revoked key was read among the accepted ones")
			r.finishes(nil, "rotate", "--revoke", testTarget.String())
			someMore("after the second revocation")
			r.await("the target is settled", r.settled)
			good := r.keyring().CallbackKey()
			if status, text := send(t, p.url, r.fresh(app, good)); status != http.StatusOK || good.Equal(leaked) {
				t.Errorf("a genuine callback: %d %s", status, text)
			}
			if status, text := send(t, p.url, body); status != http.StatusUnauthorized {
				t.Errorf("in the end the revoked key gets %d %s", status, text)
			}
			answers.Range(func(status, at any) bool { t.Log(status, "first", at); return true })
			d.signal(syscall.SIGTERM)
			<-d.done
		})
	}
}
