package vault

import (
	"net"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// await polls until the condition holds; the limit only ends a test that hangs.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("it never came to %s", what)
		}
	}
}

func TestLoginFromEnv(t *testing.T) {
	for _, c := range []struct {
		env    string
		method Method
		err    string
	}{
		{"VAULT_TOKEN=t", Token, ""},
		{"VAULT_TOKEN_FILE=f", TokenFile, ""},
		{"VAULT_ROLE_ID=r VAULT_SECRET_ID=s", AppRole, ""},
		{"VAULT_ROLE_ID=r VAULT_SECRET_ID_FILE=s", AppRole, ""},
		{"VAULT_K8S_ROLE=r", Kubernetes, ""},
		{"VAULT_K8S_ROLE=r VAULT_TOKEN=t VAULT_AUTH_METHOD=kubernetes", Kubernetes, ""},
		{"", "", "no way to log in"},
		{"VAULT_ROLE_ID=r", "", "no way to log in"},
		{"VAULT_TOKEN=t VAULT_K8S_ROLE=r", "", "several ways to log in to Vault (token, kubernetes)"},
		{"VAULT_AUTH_METHOD=approle VAULT_ROLE_ID=r", "", "VAULT_SECRET_ID or VAULT_SECRET_ID_FILE is not set"},
		{"VAULT_AUTH_METHOD=ldap", "", "none of token"},
	} {
		env := map[string]string{}
		for _, pair := range strings.Fields(c.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		l, err := LoginFromEnv(func(name string) string { return env[name] })
		switch {
		case c.err == "" && (err != nil || l.Method != c.method):
			t.Errorf("%q: %v, %v", c.env, l.Method, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %v, want %q", c.env, err, c.err)
		}
	}
}
