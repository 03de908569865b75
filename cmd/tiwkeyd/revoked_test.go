package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"tiwkeyd/rotator"
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
	for _, k := range []rotator.Key{leaked, second, good} {
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
	again := rotator.NewKey("another-id", leaked.Reveal())
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
