package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_AUTH_METHOD"} {
		_ = os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// open gives a store at an address, with the variables that choose the login.
func open(t *testing.T, addr string, env map[string]string) (*Store, *logText) {
	t.Helper()
	login, err := LoginFromEnv(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	var log logText
	s, err := New(Options{Address: addr, Mount: "secret", Prefix: "tiw", Login: login, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, &log
}

// logText is a log that is read while the store's goroutines may write to it.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func withToken(token string) map[string]string { return map[string]string{"VAULT_TOKEN": token} }

const policy = `path "secret/data/tiw/*" { capabilities = ["create", "read", "update"] }
path "secret/destroy/tiw/*" { capabilities = ["update"] }`

// fixture is one server for the tests that leave it as it was.
func TestStore(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	v.Policy("tiwkeyd", policy)
	token := v.NewToken("tiwkeyd", "1h")

	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) rotator.Store {
			s, _ := open(t, v.Addr, withToken(token))
			return s
		})
	})
	t.Run("lives", func(t *testing.T) {
		s, _ := open(t, v.Addr, withToken(token))
		storetest.Lives(t, func(*testing.T) rotator.Store { return s }, func(target secrets.Target) {
			if _, err := v.Client(v.Token).Logical().Delete("secret/metadata/" + s.path(target)); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("lost answers", func(t *testing.T) { lostAnswers(t, v, token) })
	t.Run("deleted and destroyed", func(t *testing.T) { deleted(t, v, token) })
	t.Run("purge destroys", func(t *testing.T) { purged(t, v, token) })
	t.Run("not KV 2", func(t *testing.T) { notKV2(t, v) })
	t.Run("policy", func(t *testing.T) { policyDenied(t, v) })
	t.Run("token file", func(t *testing.T) { tokenFile(t, v) })
	t.Run("approle", func(t *testing.T) { appRole(t, v) })
	t.Run("a bad secret id", func(t *testing.T) { badSecretID(t, v) })
	t.Run("a locked role", func(t *testing.T) { lockedRole(t, v) })
	t.Run("a token that cannot be renewed", func(t *testing.T) { fixedToken(t, v) })
	t.Run("kubernetes", func(t *testing.T) { inCluster(t, v) })
	t.Run("token lost", func(t *testing.T) { tokenLost(t, v) })
	t.Run("the token's end", func(t *testing.T) { tokensEnd(t, v) })
	t.Run("read secret", func(t *testing.T) { readSecret(t, v) })
	t.Run("mounts", func(t *testing.T) { mounts(t, v) })
	t.Run("own write respelt", func(t *testing.T) { ownWriteRespelt(t, v, token) })
	t.Run("number too large", func(t *testing.T) { numberTooLarge(t, v, token) })
	t.Run("a proxy's page", func(t *testing.T) { proxysPage(t, v, token) })
	t.Run("a proxy denies all", func(t *testing.T) { proxyDeniesAll(t, v) })
	t.Run("deleted by settings", func(t *testing.T) { deletedBySettings(t, v, token) })
	t.Run("sealed at first", func(t *testing.T) { sealedAtFirst(t, v) })
	t.Run("sealed and restarted", func(t *testing.T) { sealed(t, v, token) }) // last: it stops the server
}

// proxy stands before Vault. after decides, once Vault has answered, whether the answer
// gets through.
func proxy(t *testing.T, v *vaulttest.Server, after func(*http.Request) bool) string {
	t.Helper()
	u, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(u)
	p.ModifyResponse = func(r *http.Response) error {
		if !after(r.Request) {
			return errors.New("lost")
		}
		return nil
	}
	p.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return "http://" + l.Addr().String()
}

func isWrite(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/tiw/")
}

// lostAnswers loses the answers of writes that Vault carried out: some of them the library
// repeats by itself, which then fails with a mismatch.
func lostAnswers(t *testing.T, v *vaulttest.Server, token string) {
	for _, lose := range []int64{1, 2, 100} {
		var left atomic.Int64
		left.Store(lose)
		s, _ := open(t, proxy(t, v, func(r *http.Request) bool { return !isWrite(r) || left.Add(-1) < 0 }), withToken(token))
		target := storetest.Target()
		for version := range int64(3) {
			left.Store(lose)
			got, err := s.Write(t.Context(), target, storetest.Keyring(target, int(version)), version)
			if err != nil || got != version+1 {
				t.Errorf("%d answers lost: write over version %d: %d, %v", lose, version, got, err)
			}
		}
	}
	// Another writer's keyring in its place is no success.
	direct, _ := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	s, _ := open(t, proxy(t, v, func(r *http.Request) bool { return !isWrite(r) }), withToken(token))
	if _, err := direct.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	_, err := s.Write(t.Context(), target, storetest.Keyring(target, 2), 0)
	if !errors.Is(err, rotator.ErrConflict) {
		t.Errorf("somebody else's write in its place: %v", err)
	}
	storetest.Quiet(t, err)
}

func deleted(t *testing.T, v *vaulttest.Server, token string) {
	s, _ := open(t, v.Addr, withToken(token))
	kv := v.Client(v.Token).KVv2("secret")
	for name, remove := range map[string]func(path string) error{
		"deleted":   func(path string) error { return kv.Delete(context.Background(), path) },
		"destroyed": func(path string) error { return kv.Destroy(context.Background(), path, []int{1}) },
	} {
		target := storetest.Target()
		if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
			t.Fatal(err)
		}
		if err := remove(s.path(target)); err != nil {
			t.Fatal(err)
		}
		got, err := s.Read(t.Context(), target)
		if err != nil || got.Keyring != nil || got.Version != 1 {
			t.Errorf("%s: reads as %+v, %v", name, got, err)
		}
		if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 2), 0); !errors.Is(err, rotator.ErrConflict) {
			t.Errorf("%s: a write that does not name its version: %v", name, err)
		}
		if v, err := s.Write(t.Context(), target, storetest.Keyring(target, 2), 1); err != nil || v != 2 {
			t.Errorf("%s: a write over it: %d, %v", name, v, err)
		}
	}
	target := storetest.Target()
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := kv.DeleteMetadata(t.Context(), s.path(target)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context(), target); err != nil || got.Version != 0 {
		t.Errorf("metadata deleted: reads as %+v, %v", got, err)
	}
}

func purged(t *testing.T, v *vaulttest.Server, token string) {
	s, _ := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	for version := range int64(4) {
		if _, err := s.Write(t.Context(), target, storetest.Keyring(target, int(version)), version); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Purge(t.Context(), target, 4); err != nil {
		t.Fatal(err)
	}
	versions, err := v.Client(v.Token).KVv2("secret").GetVersionsAsList(t.Context(), s.path(target))
	if err != nil || len(versions) != 4 {
		t.Fatalf("%v, %v", versions, err)
	}
	for _, got := range versions {
		if got.Destroyed != (got.Version < 4) {
			t.Errorf("version %d destroyed: %v", got.Version, got.Destroyed)
		}
	}
}

func notKV2(t *testing.T, v *vaulttest.Server) {
	root := v.Client(v.Token)
	if _, err := root.Logical().Write("sys/mounts/old", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}}); err != nil {
		t.Fatal(err)
	}
	for mount, want := range map[string]string{"old": "enable-versioning", "nowhere": "nowhere"} {
		s, _ := open(t, v.Addr, withToken(v.Token))
		s.mount = mount
		target := storetest.Target()
		_, readErr := s.Read(t.Context(), target)
		_, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
		if err == nil || !strings.Contains(err.Error(), want) || readErr == nil || !strings.Contains(readErr.Error(), want) {
			t.Errorf("%s: read %v, write %v", mount, readErr, err)
		}
		storetest.Quiet(t, err)
	}
	if list, err := root.Logical().List("old"); err != nil || list != nil {
		t.Errorf("something was written to the KV 1 mount: %v, %v", list, err)
	}
}

func policyDenied(t *testing.T, v *vaulttest.Server) {
	v.Policy("reader", `path "secret/data/tiw/*" { capabilities = ["read"] }`)
	token := v.NewToken("reader", "1h")
	s, log := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("read: %v", err)
	}
	_, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
	purgeErr := s.Purge(t.Context(), target, 2)
	for _, c := range []struct {
		err  error
		want string
	}{{err, "create and update"}, {err, "secret/data/tiw/"}, {purgeErr, "secret/destroy/tiw/"}} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v does not say %q", c.err, c.want)
		}
	}
	storetest.Quiet(t, err)
	v.Policy("reader", policy) // mended: it recovers by itself
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Errorf("after the policy was mended: %v", err)
	}
	shows(t, log, token, err, purgeErr)
}

// shows fails if a token appears in a log or an error.
func shows(t *testing.T, log *logText, token string, errs ...error) {
	t.Helper()
	if strings.Contains(log.String()+fmt.Sprint(errs), token) {
		t.Error("a token is shown")
	}
}

func tokenFile(t *testing.T, v *vaulttest.Server) {
	first, second := v.NewToken("tiwkeyd", "1h"), v.NewToken("tiwkeyd", "1h")
	path := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(first + "\n")
	s, log := open(t, v.Addr, map[string]string{"VAULT_TOKEN_FILE": path})
	target := storetest.Target()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	v.Revoke(first)
	_, lost := s.Read(t.Context(), target)
	if lost == nil || !strings.Contains(lost.Error(), "not valid any more") {
		t.Errorf("with a revoked token: %v", lost)
	}
	put(second)
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("with a new token in the file: %v", err)
	}
	put("")
	if _, err := s.Read(t.Context(), target); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("with an empty file: %v", err)
	}
	shows(t, log, first, lost)
}

func appRole(t *testing.T, v *vaulttest.Server) {
	role, secret := v.AppRole("tiwkeyd", "tiwkeyd", "3s", "6s")
	path := filepath.Join(t.TempDir(), "secret-id")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID_FILE": path})
	target := storetest.Target()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	first := s.client.Token()
	// Its tokens live six seconds at most: renewed while they can be, then replaced.
	await(t, "another login", func() bool {
		if _, err := s.Read(t.Context(), target); err != nil {
			t.Fatalf("while the token was kept good: %v", err)
		}
		return s.client.Token() != first
	})
	second := s.client.Token()
	v.Revoke(second)
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
	if s.client.Token() == second {
		t.Error("it did not log in again")
	}
	bad, log := open(t, v.Addr, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": "wrong-secret-id"})
	_, err := bad.Read(t.Context(), target)
	if !errors.Is(err, errNoLogin) || !strings.Contains(err.Error(), "approle") {
		t.Errorf("with a wrong secret id: %v", err)
	}
	shows(t, log, "wrong-secret-id", err)
}

func tokenLost(t *testing.T, v *vaulttest.Server) {
	token := v.NewToken("tiwkeyd", "1h")
	s, log := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	v.Revoke(token)
	for range 2 {
		_, err := s.Read(t.Context(), target)
		if err == nil || !strings.Contains(err.Error(), "not valid any more") {
			t.Errorf("with a revoked token: %v", err)
		}
		shows(t, log, token, err)
	}
}

func readSecret(t *testing.T, v *vaulttest.Server) {
	if _, err := v.Client(v.Token).KVv2("secret").Put(t.Context(), "tencent", map[string]any{"secret_id": "AKID"}); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, v.Addr, withToken(v.Token))
	got, err := s.ReadSecret(t.Context(), "secret/tencent")
	if err != nil || got["secret_id"] != "AKID" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.ReadSecret(t.Context(), "secret/none"); err == nil || !strings.Contains(err.Error(), "no secret secret/none") {
		t.Errorf("a secret that is not there: %v", err)
	}
}

func sealed(t *testing.T, v *vaulttest.Server, token string) {
	s, _ := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	v.Seal()
	_, err := s.Read(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("sealed: %v", err)
	}
	v.Unseal()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	v.Stop()
	_, err = s.Write(t.Context(), target, storetest.Keyring(target, 2), 1)
	if err == nil || !strings.Contains(err.Error(), "check VAULT_ADDR") {
		t.Errorf("stopped: %v", err)
	}
	storetest.Quiet(t, err)
	v.Restart()
	if got, err := s.Write(t.Context(), target, storetest.Keyring(target, 2), 1); err != nil || got != 2 {
		t.Errorf("restarted: %d, %v", got, err)
	}
}

// TestSlow has a server that never answers: the call ends by itself, and says so.
func TestSlow(t *testing.T) {
	l := listen(t)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	s, _ := open(t, "http://"+l.Addr().String(), withToken("t"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.Read(ctx, storetest.Target())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("%v", err)
	}
}
