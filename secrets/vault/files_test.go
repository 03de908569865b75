package vault

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"tiwkeyd/secrets/storetest"
)

// TestSecretFiles: what a login needs is read by one rule, whichever it is, and without what an editor puts around it.
// A file that is refused costs no request; once it is mended, the next call goes through by itself.
func TestSecretFiles(t *testing.T) {
	const secret = "CANARY-secret"
	var seen atomic.Value
	var logins atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/login"):
			logins.Add(1)
			var said map[string]string
			_ = json.NewDecoder(r.Body).Decode(&said)
			seen.Store(said["secret_id"] + said["jwt"])
			_, _ = io.WriteString(w, `{"auth":{"client_token":"`+secret+`"}}`)
		case strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/"):
			_, _ = io.WriteString(w, `{"data":{"type":"kv","options":{"version":"2"}}}`)
		default:
			if logins.Load() == 0 {
				seen.Store(r.Header.Get("X-Vault-Token"))
			}
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "secret")
	put := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, env := range map[string]map[string]string{
		"VAULT_TOKEN_FILE":     {"VAULT_TOKEN_FILE": path},
		"VAULT_SECRET_ID_FILE": {"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID_FILE": path},
		"VAULT_K8S_TOKEN_FILE": {"VAULT_K8S_ROLE": "r", "VAULT_K8S_TOKEN_FILE": path},
	} {
		for what, c := range map[string]struct {
			text string
			mode os.FileMode
			want string
		}{
			"plain": {secret, 0o600, ""}, "a line": {secret + "\n", 0o400, ""}, "Windows": {"\ufeff" + secret + "\r\n", 0o600, ""},
			"readable": {secret, 0o644, "chmod go= " + path}, "by the group": {secret, 0o440, "chmod go= " + path}, "writable": {secret, 0o622, "chmod go-w " + path},
			"UTF-16": {"\xff\xfeC\x00", 0o600, path + " is in UTF-16"}, "empty": {"\ufeff\n", 0o600, path + " is empty"}, "a gigabyte": {strings.Repeat("x", maxToken+1), 0o600, "larger"},
		} {
			logins.Store(0)
			seen.Store("")
			s, log := open(t, server.URL, env)
			put(c.text, c.mode)
			_, err := s.Read(t.Context(), storetest.Target())
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "VAULT_ADDR") || seen.Load() != "" {
					t.Errorf("%s, %s: %v; Vault saw %d bytes", name, what, err, len(seen.Load().(string)))
				}
				shows(t, log, secret, err)
				put(secret+"\n", 0o600)
				_, err = s.Read(t.Context(), storetest.Target())
			}
			if err != nil || seen.Load() != secret {
				t.Errorf("%s, %s: %v, and Vault saw another", name, what, err)
			}
			s.Close()
		}
	}
}

// TestTLSFiles: the library says little of what is wrong with these files, and does not ask whose they are.
func TestTLSFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pem")
	login, err := LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": "t"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"VAULT_CACERT", "\ufeff-----BEGIN", 0o644, "VAULT_CACERT: " + path + " begins with a byte order mark"},
		{"VAULT_CLIENT_CERT", "\ufeff-----BEGIN", 0o644, "VAULT_CLIENT_CERT: " + path + " begins with a byte order mark"},
		{"VAULT_CLIENT_KEY", "\ufeff-----BEGIN", 0o600, "VAULT_CLIENT_KEY: " + path + " begins with a byte order mark"},
		{"VAULT_CLIENT_KEY", "-----BEGIN", 0o640, "chmod go= " + path},
		{"VAULT_CLIENT_KEY", "-----BEGIN", 0o602, "chmod go-w " + path},
		{"VAULT_CACERT", "-----BEGIN", 0o644, "read the VAULT_… variables"}, // the library's own word
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, path)
			if _, err := New(Options{Mount: "secret", Prefix: "tiw", Login: login}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
