package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// refusedLogin gives a rig that logs in to Vault with a bad secret id, and how to write another one.
func refusedLogin(t *testing.T) (r *rig, v *vaulttest.Server, good string, write func(string)) {
	r, v = newRig(t), vaulttest.Start(t)
	r.useVault(v)
	r.env = without(r.env, "VAULT_TOKEN_FILE")
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	role, good := v.AppRole("tiwkeyd", "tiwkeyd", "1h", "24h")
	r.secret(good)
	path := filepath.Join(t.TempDir(), "secret-id")
	write = func(id string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.secret("CANARY-bad-secret-id")
	write("CANARY-bad-secret-id")
	r.env = append(r.env, "VAULT_ROLE_ID="+role, "VAULT_SECRET_ID_FILE="+path)
	return r, v, good, write
}

// TestRotateRefused: a login that Vault refuses for certain ends a command at once, as a mistake in
// the configuration does. It used to say that a daemon goes on with it.
func TestRotateRefused(t *testing.T) {
	t.Parallel()
	r, v, good, write := refusedLogin(t)
	revoked := v.NewToken("tiwkeyd", "1h")
	r.secret(revoked)
	v.Revoke(revoked)
	token := append(without(r.env, "VAULT_ROLE_ID", "VAULT_SECRET_ID_FILE"), "VAULT_TOKEN="+revoked)
	role := r.env
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"rotate", role, []string{"rotate"}, "make a new secret id"},
		{"enroll", role, []string{"enroll", testTarget.String()}, "make a new secret id"},
		{"rotate what is found", append(without(role, "TIWKEYD_TARGETS"), "TIWKEYD_DISCOVER=true"), []string{"rotate"}, "make a new secret id"},
		{"a token that was revoked", token, []string{"rotate"}, "give a new one in VAULT_TOKEN"},
		{"a credential alone is in Vault", append(role[:len(role):len(role)], "TIWKEYD_STORE=file://"+filepath.Join(t.TempDir(), "store"), "TIWKEYD_TENCENT_CREDENTIALS=vault:secret/tencent"), []string{"rotate"}, "make a new secret id"},
	} {
		r.env = c.env
		out, code := r.run(c.args)
		if code != exitUsage || !strings.Contains(out, c.want) || strings.Contains(out, "goes on") || strings.Contains(out, "not settled") {
			t.Errorf("%s: exit status %d\n%s", c.name, code, out)
		}
	}
	r.env = role
	write(good) // with four refusals by then, of five that would lock the role
	if out, code := r.run([]string{"rotate"}); code != 0 {
		t.Errorf("with a good secret id: exit status %d\n%s", code, out)
	}
}

// TestDaemonRefused: a daemon with a bad secret id locks out nobody, and goes on by itself when the
// file holds a good one.
func TestDaemonRefused(t *testing.T) {
	slow(t)
	t.Parallel()
	r, _, good, write := refusedLogin(t)
	d := r.daemon()
	r.awaitOutput(d, "vault refused the login")
	other := r.daemon("VAULT_SECRET_ID_FILE=", "VAULT_SECRET_ID="+good)
	r.await("the other daemon's first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	other.signal(syscall.SIGTERM)
	<-other.done
	if n := strings.Count(d.String(), "vault refused the login"); n != 1 {
		t.Errorf("%d logins with the same bad secret id\n%s", n, tail(d.String()))
	}
	d.signal(syscall.SIGHUP)
	r.await("a reload tries again", func() bool { return strings.Count(d.String(), "vault refused the login") == 2 })
	write(good)
	r.awaitOutput(d, "the store answers again")
	d.signal(syscall.SIGTERM)
	<-d.done
}
