package main

import (
	"maps"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestEditedByHand: somebody changes in Vault what receivers read. check and status say so and
// leave it alone; a daemon writes it anew.
func TestEditedByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.finishes(nil, "rotate", testTarget.String())
	const own = "CANARY-a-key-of-their-own"
	r.secret(own)
	kv, path := v.Client(v.Token).KVv2("secret"), "tiw/"+testTarget.String()
	for name, edit := range map[string]func(map[string]any){
		"accept is empty":        func(m map[string]any) { m["accept"] = []string{} },
		"accept is another list": func(m map[string]any) { m["accept"] = []string{own} },
		"one more is accepted":   func(m map[string]any) { m["accept"] = append(m["accept"].([]any), own) },
		"callback_key is theirs": func(m map[string]any) { m["callback_key"] = own },
		"both are gone":          func(m map[string]any) { delete(m, "accept"); delete(m, "callback_key") },
	} {
		got, err := kv.Get(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		right, edited := got.Data, maps.Clone(got.Data)
		edit(edited)
		if _, err := kv.Put(t.Context(), path, edited); err != nil {
			t.Fatal(err)
		}
		before, _ := r.store.Read(t.Context(), testTarget)
		check, code := r.run([]string{"check"})
		status, _ := r.run([]string{"status"})
		asJSON, _ := r.run([]string{"status", "--json"})
		if code != exitUsage || !strings.Contains(check, "was changed by hand") || !strings.Contains(status, "was changed by hand") || !strings.Contains(asJSON, `"edited": true`) {
			t.Errorf("%s: check ends with %d\n%s\n%s\n%s", name, code, check, status, asJSON)
		}
		if after, _ := r.store.Read(t.Context(), testTarget); after.Version != before.Version || !after.Keyring.Edited {
			t.Errorf("%s: check or status wrote", name)
		}
		d := r.daemon()
		r.await(name+": it is written anew", func() bool { k := r.keyring(); return k != nil && !k.Edited })
		if got, err := kv.Get(t.Context(), path); err != nil || len(got.Data["accept"].([]any)) != len(right["accept"].([]any)) || got.Data["callback_key"] != right["callback_key"] {
			t.Errorf("%s: it is not as it was", name)
		}
		r.awaitOutput(d, "see who may write the secret")
		d.signal(syscall.SIGTERM)
		<-d.done
	}
}
