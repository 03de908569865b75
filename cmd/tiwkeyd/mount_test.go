package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestMountWithSlash keeps keyrings and the credential for Tencent in a mount whose name has a slash,
// and reads them with every command that does.
func TestMountWithSlash(t *testing.T) {
	t.Parallel()
	r, v := newRig(t), vaulttest.Start(t)
	v.MountKV2("team/kv")
	r.useVault(v)
	own := `path "team/kv/data/apps/tencent" { capabilities = ["read"] }`
	there := strings.ReplaceAll(readmePolicy(t), `"secret/`, `"team/kv/`)
	v.Policy("tiwkeyd", there+own)
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": v.Token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	s, err := vault.New(vault.Options{Address: v.Addr, Mount: "team/kv", Prefix: "tiw", Login: login})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	r.store = s
	if _, err := v.Client(v.Token).KVv2("team/kv").Put(t.Context(), "apps/tencent", map[string]any{"secret_id": testID, "secret_key": testKey}); err != nil {
		t.Fatal(err)
	}
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.env = append(without(r.env, "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"), "TIWKEYD_VAULT_MOUNT=/team/kv/", "TIWKEYD_TENCENT_CREDENTIALS=vault:team/kv/apps/tencent")
	for _, args := range [][]string{{"check"}, {"rotate"}, {"status"}, {"check"}} {
		if out, code := r.run(args); code != 0 {
			t.Errorf("%v: exit status %d\n%s", args, code, out)
		}
	}
	if !r.settled() {
		t.Fatal("the new key is not in force")
	}
	k := secrets.NewKey("k", r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)))
	if out, complaint, code := r.verdictOf(r.fresh(testTarget.SdkAppID, k), nil); code != 0 {
		t.Errorf("verify: %d %s%s", code, out, complaint)
	}
	p := r.proxy(r.standing(nil), nil)
	r.await("the proxy is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
	if status, text := send(t, p.url, r.fresh(testTarget.SdkAppID, k)); status != http.StatusOK {
		t.Errorf("the proxy refuses a genuine one: %d %s", status, text)
	}
	discovers := append(without(r.env, "TIWKEYD_TARGETS"), "TIWKEYD_DISCOVER=true", "TIWKEYD_VAULT_MOUNT=/team/kv/")
	r.env = discovers
	d := r.daemon()
	r.awaitOutput(d, `"msg":"observe"`)
	d.signal(syscall.SIGTERM)
	<-d.done

	// Without the rule the error names the path that was asked for, and what would allow it.
	v.Policy("tiwkeyd", there)
	for _, args := range [][]string{{"check"}, {"rotate"}} {
		out, code := r.run(args)
		if code == 0 || !strings.Contains(out, "team/kv/data/apps/tencent") || strings.Contains(out, "team/data") || strings.Contains(out, `"secret/`) {
			t.Errorf("%v without the rule: exit status %d\n%s", args, code, out)
		}
	}
	v.Policy("tiwkeyd", there+own)
	if out, code := r.run([]string{"rotate"}); code != 0 {
		t.Errorf("with the rule again: exit status %d\n%s", code, out)
	}
}
