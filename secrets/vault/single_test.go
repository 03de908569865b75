package vault

import (
	"fmt"
	"testing"
	"time"

	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestSingle: nothing but the last version can be read after Purge, whatever the mount and the secret
// keep, and while that changes; where Vault keeps one version, nothing is destroyed.
func TestSingle(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	v.Policy("single", `path "secret/data/tiw/*" { capabilities = ["create", "read", "update"] }
path "secret/metadata/tiw/*" { capabilities = ["list", "read"] }
path "secret/config" { capabilities = ["read"] }`) // it may not destroy
	v.Policy("poor", `path "secret/data/tiw/*" { capabilities = ["create", "read", "update"] }
path "secret/destroy/tiw/*" { capabilities = ["update"] }`)
	root := v.Client(v.Token)
	keep := func(path string, n int) {
		t.Helper()
		if _, err := root.Logical().Write("secret/"+path, map[string]any{"max_versions": n}); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := open(t, v.Addr, map[string]string{"VAULT_TOKEN": v.NewToken("single", "1h")})
	poor, _ := open(t, v.Addr, map[string]string{"VAULT_TOKEN": v.NewToken("poor", "1h")})
	target := storetest.Target()
	version := int64(0)
	write := func(times int) {
		t.Helper()
		for range times {
			next, err := s.Write(t.Context(), target, storetest.Keyring(target, int(version)+1), version)
			if err != nil {
				t.Fatal(err)
			}
			version = next
		}
	}
	// older are versions that can be read beside the last.
	older := func() (n int) {
		for i := int64(1); i < version; i++ {
			if got, err := s.Secret(t.Context(), target, i); err == nil && got.Content != nil {
				n++
			}
		}
		return n
	}
	forget := func() { s.singles.asked = time.Time{} }

	write(4)
	if err := s.Purge(t.Context(), target, version); err == nil || older() != 3 {
		t.Errorf("where ten versions are kept: %v, %d older ones", err, older())
	}
	keep("config", 1)
	if err := poor.Purge(t.Context(), target, version); err != nil || older() != 0 {
		t.Errorf("without the capability to ask: %v, %d older ones", err, older())
	}
	write(1) // Vault cuts off what it keeps no longer
	forget()
	if err := s.Purge(t.Context(), target, version); err != nil || older() != 0 {
		t.Errorf("where one is kept: %v, %d older ones", err, older())
	}
	// The secret is told to keep more, and its metadata is asked again in time.
	keep("metadata/"+s.path(target), 5)
	write(2)
	s.singles.secrets[target] = time.Now().Add(-secretFresh - time.Minute)
	if err := s.Purge(t.Context(), target, version); err == nil {
		t.Errorf("a secret that keeps five versions is left as it is; %d older ones", older())
	}
	keep("metadata/"+s.path(target), 0)
	write(1)
	if err := s.Purge(t.Context(), target, version); err != nil || older() != 0 {
		t.Errorf("a secret that keeps one version again: %v, %d older ones", err, older())
	}
	// The mount is told to keep more.
	keep("config", 3)
	forget()
	write(2)
	if err := s.Purge(t.Context(), target, version); err == nil || len(s.singles.secrets) != 0 {
		t.Errorf("a mount that keeps three versions: %d older ones", older())
	}
	keep("config", 1)
	forget()
	write(1)
	before := fmt.Sprint(older())
	if err := s.Purge(t.Context(), target, version); err != nil || before != "0" {
		t.Errorf("and one again: %v, %s older ones", err, before)
	}
}
