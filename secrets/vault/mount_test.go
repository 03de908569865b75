package vault

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// mounts has mounts of both versions whose names have slashes.
func mounts(t *testing.T, v *vaulttest.Server) {
	root := v.Client(v.Token)
	for mount, version := range map[string]string{"team/kv": "2", "team/old": "1", "one": "1"} {
		if _, err := root.Logical().Write("sys/mounts/"+mount, map[string]any{"type": "kv", "options": map[string]any{"version": version}}); err != nil {
			t.Fatal(err)
		}
	}
	fields := map[string]any{"secret_id": "AKID"}
	for _, mount := range []string{"team/kv", "secret"} {
		v.Await("the upgrade of "+mount, func(c *api.Client) error {
			_, err := c.KVv2(mount).Put(t.Context(), "apps/tencent", fields)
			return err
		})
	}
	for _, mount := range []string{"team/old", "one"} {
		if err := root.KVv1(mount).Put(t.Context(), "apps/tencent", fields); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a credential", func(t *testing.T) { credentialInMount(t, v) })
	t.Run("keyrings", func(t *testing.T) { keyringsInMount(t, v) })
}

func credentialInMount(t *testing.T, v *vaulttest.Server) {
	v.Policy("narrow", `path "team/kv/data/apps/tencent" { capabilities = ["read"] }
path "team/old/apps/tencent" { capabilities = ["read"] }
path "one/apps/tencent" { capabilities = ["read"] }
path "secret/data/apps/tencent" { capabilities = ["read"] }`)
	v.Policy("elsewhere", `path "team/kv/data/apps/other" { capabilities = ["read"] }
path "team/old/apps/other" { capabilities = ["read"] }`)
	for _, c := range []struct{ policy, path, want, rule string }{
		{"narrow", "team/kv/apps/tencent", "", "team/kv/data/apps/tencent"},
		{"narrow", "team/old/apps/tencent", "", "team/old/apps/tencent"},
		{"narrow", "one/apps/tencent", "", "one/apps/tencent"},
		{"narrow", "secret/apps/tencent", "", "secret/data/apps/tencent"},
		{"elsewhere", "team/kv/apps/tencent", `the capability read on "team/kv/data/apps/tencent"`, "team/kv/data/apps/tencent"},
		{"elsewhere", "team/old/apps/tencent", `the capability read on "team/old/apps/tencent"`, "team/old/apps/tencent"},
		{"elsewhere", "secret/apps/tencent", `may do nothing in the mount where secret/apps/tencent is; if that is secret, its policy needs the capability read on "secret/data/apps/tencent"`, "secret/data/apps/tencent"},
		{"elsewhere", "nowhere/apps/tencent", "may do nothing in the mount where nowhere/apps/tencent is", "nowhere/data/apps/tencent"},
		{"root", "team/kv/apps/none", "there is no secret team/kv/apps/none in the mount team/kv", "team/kv/data/apps/none"},
		{"root", "one/apps/none", "there is no secret one/apps/none in the mount one", "one/apps/none"},
		{"root", "sys/apps", "the mount sys, where sys/apps would be, is no KV engine", ""},
	} {
		token := v.Token
		if c.policy != "root" {
			token = v.NewToken(c.policy, "1h")
		}
		s, log := open(t, v.Addr, withToken(token))
		got, err := s.ReadSecret(t.Context(), c.path)
		if (c.want == "") != (err == nil) || (err == nil && got["secret_id"] != "AKID") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s with the policy %s: %v, %v", c.path, c.policy, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret/tiw") {
			t.Errorf("%s: it speaks of the keyrings: %v", c.path, err)
		}
		if need, err := s.NeedToRead(t.Context(), c.path); err != nil || (c.rule != "" && need.Path != c.rule) || need.Guessed != strings.Contains(c.want, "may do nothing in the mount") {
			t.Errorf("%s needs %+v, %v", c.path, need, err)
		}
		shows(t, log, token, err)
	}
	// The mount is found with a new token when the old one has gone.
	role, secret := v.AppRole("credential", "narrow", "1h", "1h")
	s, _ := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	for range 2 {
		if _, err := s.ReadSecret(t.Context(), "team/kv/apps/tencent"); err != nil {
			t.Error(err)
		}
		v.Revoke(s.client.Token())
	}
}

// keyringsInMount has the keyrings in a mount whose name has a slash, and the mount's name cut at the wrong place.
func keyringsInMount(t *testing.T, v *vaulttest.Server) {
	target := storetest.Target()
	s, _ := open(t, v.Addr, withToken(v.Token))
	s.mount = "team/kv"
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 2), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), target, 2); err != nil {
		t.Error(err)
	}
	if got, err := s.Read(t.Context(), target); err != nil || got.Version != 2 || got.Keyring == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if all, strange, err := s.Targets(t.Context(), nil); err != nil || strange != 0 || len(all) != 1 || all[0] != target {
		t.Errorf("%v, %d, %v", all, strange, err)
	}
	for mount, want := range map[string]string{"team/kv/tiw": "set TIWKEYD_VAULT_MOUNT=team/kv", "team": `there is no KV version 2 mount "team"`, "team/old": "enable-versioning team/old/"} {
		s, _ := open(t, v.Addr, withToken(v.Token))
		s.mount = mount
		_, readErr := s.Read(t.Context(), target)
		_, writeErr := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
		_, _, listErr := s.Targets(t.Context(), []secrets.Target{})
		for _, err := range []error{readErr, writeErr, listErr} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", mount, err)
			}
		}
		if strings.HasPrefix(mount, "team/kv") && !errors.Is(readErr, ErrNoMount) {
			t.Error(readErr)
		}
	}
}
