package vault

import (
	"testing"
	"time"
)

// TestClientTimeout: VAULT_CLIENT_TIMEOUT holds as far as it can, and is refused beyond.
func TestClientTimeout(t *testing.T) {
	for set, want := range map[string]time.Duration{"": callTimeout, "3": 3 * time.Second, "1500ms": 1500 * time.Millisecond, "10s": callTimeout, "11s": 0, "0": 0, "-5s": 0, "1ms": 0, "soon": 0} {
		t.Setenv("VAULT_CLIENT_TIMEOUT", set)
		login, err := LoginFromEnv(func(name string) string { return withToken("a token")[name] })
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Options{Address: "http://127.0.0.1:1", Mount: "secret", Prefix: "tiw", Login: login})
		if (err == nil) != (want > 0) {
			t.Errorf("%q: %v", set, err)
		}
		if err != nil {
			continue
		}
		if got := s.client.ClientTimeout(); got != want {
			t.Errorf("%q: %s, want %s", set, got, want)
		}
		s.Close()
	}
}
