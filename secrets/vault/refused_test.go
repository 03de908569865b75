package vault

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// badSecretID has a replica with a bad secret id: it does not lock the role for one with a good
// one, and goes on by itself when the file holds a good one.
func badSecretID(t *testing.T, v *vaulttest.Server) {
	role, secret := v.AppRole("shared", "tiwkeyd", "1h", "1h")
	path := filepath.Join(t.TempDir(), "secret-id")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong-secret-id\n")
	bad, log := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID_FILE": path})
	for range 12 {
		if _, err := bad.Read(t.Context(), storetest.Target()); !errors.Is(err, ErrLoginRefused) || !strings.Contains(err.Error(), "make a new secret id") {
			t.Fatalf("with a wrong secret id: %v", err)
		}
	}
	if n := strings.Count(log.String(), "vault refused the login"); n != 1 {
		t.Errorf("it is told %d times:\n%s", n, log)
	}
	good, _ := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	if _, err := good.Read(t.Context(), storetest.Target()); err != nil {
		t.Errorf("another replica, with a good secret id: %v", err)
	}
	write("\ufeff" + secret + "\r\n")
	if _, err := bad.Read(t.Context(), storetest.Target()); err != nil {
		t.Errorf("with a good secret id in the file: %v", err)
	}
	// The token goes, and with it the secret id: it is told once, and nothing else.
	write("wrong-secret-id")
	v.Revoke(bad.client.Token())
	for range 3 {
		if _, err := bad.Read(t.Context(), storetest.Target()); err == nil {
			t.Error("read with a token that was revoked")
		}
	}
	if text := log.String(); strings.Count(text, "vault refused the login") != 2 || strings.Contains(text, "login to vault failed") {
		t.Error(text)
	}
	write(secret)
	if _, err := bad.Read(t.Context(), storetest.Target()); err != nil {
		t.Errorf("with a good secret id in the file again: %v", err)
	}
	shows(t, log, "wrong-secret-id")
	shows(t, log, secret)
}

// lockedRole has a role that somebody else locked: the error says so, and how to unlock it works.
func lockedRole(t *testing.T, v *vaulttest.Server) {
	role, secret := v.AppRole("locked", "tiwkeyd", "1h", "1h")
	root := v.Client(v.Token)
	for range 5 {
		if _, err := v.Client("").Logical().Write("auth/approle/login", map[string]any{"role_id": role, "secret_id": "wrong"}); err == nil {
			t.Fatal("a wrong secret id is good")
		}
	}
	s, _ := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	_, err := s.Read(t.Context(), storetest.Target())
	if !errors.Is(err, ErrLoginRefused) || !strings.Contains(err.Error(), "sys/locked-users/ACCESSOR/unlock/ROLE_ID") {
		t.Fatalf("a locked role: %v", err)
	}
	mounts, err := root.Sys().ListAuth()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Logical().Write("sys/locked-users/"+mounts["approle/"].Accessor+"/unlock/"+role, nil); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(s.session.refused.until); left > time.Minute {
		t.Errorf("it is tried again after %s only", left)
	}
	s.session.refused.until = time.Now()
	if _, err := s.Read(t.Context(), storetest.Target()); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}

// TestRefusedLogins counts logins: what Vault refused for certain is not tried again until what is
// shown has changed, or for a while; what it did not decide is.
func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	const proof = "the-secret-that-is-shown"
	for _, c := range []struct {
		method  Method
		status  int
		answer  string
		refused bool
		pause   time.Duration
	}{
		{AppRole, 400, `{"errors": ["invalid role or secret ID"]}`, true, time.Hour},
		{AppRole, 400, `{"errors": ["invalid secret_id \"` + proof + `\""]}`, true, time.Hour},
		{AppRole, 403, `{"errors": ["permission denied"]}`, true, time.Minute},
		{AppRole, 404, `{"errors": ["no handler for route"]}`, true, time.Minute},
		{AppRole, 429, `{"errors": ["rate limit quota exceeded"]}`, false, 0},
		{AppRole, 503, `{"errors": ["Vault is sealed"]}`, false, 0},
		{AppRole, 400, `<html>no</html>`, false, 0},
		{AppRole, 403, `<html>no</html>`, false, 0},
		{Kubernetes, 400, `{"errors": ["invalid role name \"x\""]}`, true, time.Minute},
		{Kubernetes, 403, `{"errors": ["permission denied"]}`, false, time.Minute},
		{Kubernetes, 500, `{"errors": ["internal error"]}`, false, 0},
	} {
		t.Run(fmt.Sprintf("%s %d %.12s", c.method, c.status, c.answer), func(t *testing.T) {
			t.Parallel()
			var logins atomic.Int32
			var good atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.HasPrefix(r.URL.Path, "/v1/auth/"):
					w.WriteHeader(http.StatusNotFound)
				case good.Load():
					_, _ = io.WriteString(w, `{"auth": {"client_token": "t", "renewable": true, "lease_duration": 3600}, "data": {}}`)
				default:
					logins.Add(1)
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.answer)
				}
			}))
			defer server.Close()
			path := filepath.Join(t.TempDir(), "proof")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(proof)
			env := map[string]string{"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID_FILE": path}
			if c.method == Kubernetes {
				env = map[string]string{"VAULT_K8S_ROLE": "x", "VAULT_K8S_TOKEN_FILE": path}
			}
			s, log := open(t, server.URL, env)
			login := func() error { _, err := s.session.ready(t.Context()); return err }
			first := login()
			once := logins.Load()
			second := login()
			if first == nil || second == nil || errors.Is(first, ErrLoginRefused) != c.refused {
				t.Fatalf("%v; %v", first, second)
			}
			if again := logins.Load() > once; again == (c.pause > 0) {
				t.Errorf("after %v it was tried again: %v", first, again)
			}
			if !c.refused && c.pause > 0 { // an error that is kept is not changed by whoever reads a credential
				_, err := s.ReadSecret(t.Context(), "secret/tencent")
				if after := login(); err == nil || after.Error() != second.Error() || strings.Contains(err.Error(), "the mount where") {
					t.Errorf("%v; then %v", err, after)
				}
			}
			shows(t, log, proof, first, second)
			if c.pause == 0 {
				return
			}
			if left := time.Until(s.session.refused.until); left > c.pause || left < c.pause/2 {
				t.Errorf("the next try is in %s", left)
			}
			write("another-secret-that-is-shown")
			if login() == nil || logins.Load() != once+1 {
				t.Error("another secret was not tried")
			}
			s.session.refused.until = time.Now()
			if login() == nil || logins.Load() != once+2 {
				t.Error("it is never tried again")
			}
			good.Store(true)
			s.session.refused.until = time.Now()
			if err := login(); err != nil || s.session.refused.err != nil {
				t.Errorf("after a good one: %v", err)
			}
		})
	}
}
