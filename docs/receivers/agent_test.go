//go:build receivers

package receivers_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestVaultAgent has a real agent carry keyrings from a real Vault, written by the daemon's
// own code, to a receiver.
func TestVaultAgent(t *testing.T) {
	r := recipes()[0]
	need(t, r.install, r.needs...)
	program := vaulttest.Full.Need(t)
	v := vaulttest.Start(t)
	v.Policy("receiver", `path "secret/data/tiw/*" { capabilities = ["read"] }`)
	role, secret := v.AppRole("receiver", "receiver", "1h", "1h")

	s := serve(t, r, nil)
	write(t, filepath.Join(s.dir, "role-id"), []byte(role))
	write(t, filepath.Join(s.dir, "secret-id"), []byte(secret))
	write(t, filepath.Join(s.dir, "agent.hcl"), []byte(rewrite(t, "agent.hcl",
		"https://vault.example.com:8200", v.Addr,
		"/etc/tiw/role-id", filepath.Join(s.dir, "role-id"),
		"/etc/tiw/secret-id", filepath.Join(s.dir, "secret-id"),
		`= "5m"`, `= "1s"`,
		"/run/tiw/keyring.json", s.keyring,
	)))
	version := store(t, v, keyring(t, previous, current, ""), 0)
	s.refuses(t, current, http.StatusServiceUnavailable)

	agent := exec.Command(program, "agent", "-config", filepath.Join(s.dir, "agent.hcl"))
	agent.Env = environment()
	p := launch(t, agent)
	arrives := func(key string) {
		t.Helper()
		p.await(t, "the receiver accepts a key from Vault", func() bool {
			code, _ := s.post(t, callback(key), false)
			return code == http.StatusOK
		})
	}
	arrives(previous)
	s.accepts(t, current)
	info, err := os.Stat(s.keyring)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
	}
	rendered, err := os.ReadFile(s.keyring)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rotator.DecodeKeyring(target(), rendered); err != nil {
		t.Errorf("what the agent wrote: %v", err)
	}

	store(t, v, keyring(t, "", current, pending), version)
	arrives(pending)
	s.accepts(t, current)
	s.refuses(t, previous, http.StatusUnauthorized)
}

// store writes a keyring as the daemon does, and gives its version.
func store(t *testing.T, v *vaulttest.Server, encoded []byte, version int64) int64 {
	t.Helper()
	t.Setenv("VAULT_ADDR", v.Addr)
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": v.Token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	st, err := vault.New(vault.Options{Mount: "secret", Prefix: "tiw", Login: login})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	k, err := rotator.DecodeKeyring(target(), encoded)
	if err != nil {
		t.Fatal(err)
	}
	version, err = st.Write(context.Background(), target(), k, version)
	if err != nil {
		t.Fatal(err)
	}
	return version
}
