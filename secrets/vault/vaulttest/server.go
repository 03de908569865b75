package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/testport"
)

// startLimit bounds each wait for a server; nothing is measured with it.
const startLimit = 90 * time.Second

// Server is one Vault process with its data on disk.
type Server struct {
	Addr  string
	Token string // the root token

	tb      testing.TB
	program string
	config  string
	unseal  string
	cmd     *exec.Cmd
	output  *lockedBuffer
	exited  chan struct{}
}

// Start gives a running, unsealed server with a KV version 2 mount at "secret". It ends with
// the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := newServer(tb, tb.TempDir(), `storage "file" { path = %q }`)
	s.Launch()
	s.initialise()
	s.MountKV2("secret")
	return s
}

// StartEmpty gives a running server that was never initialised. It ends with the test.
func StartEmpty(tb testing.TB) *Server {
	tb.Helper()
	s := newServer(tb, tb.TempDir(), `storage "file" { path = %q }`)
	s.Launch()
	return s
}

func newServer(tb testing.TB, dir, storage string) *Server {
	tb.Helper()
	program := ServerOnly.Need(tb)
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, program: program, config: filepath.Join(dir, "vault.hcl"), output: &lockedBuffer{}}
	address, _ := testport.Free(tb)
	cluster, _ := testport.Free(tb)
	s.Addr = "http://" + address
	text := fmt.Sprintf(`%s
listener "tcp" {
  address = %q
  cluster_address = %q
  tls_disable = true
}
api_addr = %q
cluster_addr = %q
disable_mlock = true
`, fmt.Sprintf(storage, data), address, cluster, s.Addr, "http://"+cluster)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.Stop()
		if tb.Failed() && os.Getenv("TIWKEYD_TEST_VAULT_LOG") != "" {
			tb.Logf("output of Vault at %s:\n%s", s.Addr, s.output.String())
		}
	})
	return s
}

// Launch starts the process and waits until it answers; it is sealed then.
func (s *Server) Launch() {
	s.tb.Helper()
	s.cmd = exec.Command(s.program, "server", "-config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.Env = []string{"HOME=" + filepath.Dir(s.config), "PATH=" + os.Getenv("PATH")}
	endWithUs(s.cmd)
	exited := make(chan struct{})
	started := make(chan error)
	go func() {
		// The signal at the parent's death is bound to the thread that started the child.
		runtime.LockOSThread()
		defer close(exited)
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.tb.Fatalf("start %s: %v", s.program, err)
	}
	s.exited = exited
	s.Await("answers", func(c *api.Client) error {
		_, err := c.Sys().SealStatus()
		return err
	})
}

// Await waits until the server is as it is to be: until the condition has no error.
func (s *Server) Await(what string, condition func(*api.Client) error) {
	s.tb.Helper()
	c := s.Client(s.Token)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err := condition(c); err != nil; err = condition(c) {
		select {
		case <-tick.C:
		case <-s.exited:
			s.tb.Fatalf("Vault at %s ended before it %s: %v\n%s", s.Addr, what, err, s.output.String())
		case <-ctx.Done():
			s.tb.Fatalf("Vault at %s never %s: %v\nOutput of Vault:\n%s\nVault at %s never %s: %v", s.Addr, what, err, s.output.String(), s.Addr, what, err)
		}
	}
}

// errNotYet is for a condition that does not hold, and has no better reason.
var errNotYet = errors.New("not yet")

// holds is nil if a condition holds.
func holds(condition bool) error {
	if condition {
		return nil
	}
	return errNotYet
}

func (s *Server) initialise() {
	s.tb.Helper()
	got, err := s.Client("").Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		s.tb.Fatalf("initialise Vault: %v", err)
	}
	s.unseal, s.Token = got.KeysB64[0], got.RootToken
	s.Unseal()
}

// Unseal unseals the server and waits until it serves.
func (s *Server) Unseal() {
	s.tb.Helper()
	s.Open()
	s.Await("is active", func(c *api.Client) error {
		h, err := c.Sys().Health()
		if err != nil {
			return err
		}
		return holds(h.Initialized && !h.Sealed && (!h.Standby || h.PerformanceStandby))
	})
}

// Open unseals the server and does not wait for more: a node of a cluster may be alone.
func (s *Server) Open() {
	s.tb.Helper()
	s.Await("is unsealed", func(*api.Client) error { return s.TryOpen() })
}

// patience is for a server that may not be able to do what it is asked.
const patience = 5 * time.Second

// TryOpen is Open of a server that may not be able to.
func (s *Server) TryOpen() error {
	s.tb.Helper()
	c := s.Client("")
	c.SetClientTimeout(patience)
	st, err := c.Sys().Unseal(s.unseal)
	if err == nil && st.Sealed {
		err = errors.New("it is sealed still")
	}
	return err
}

// Exited reports whether the process has ended.
func (s *Server) Exited() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// Output is what the process has printed.
func (s *Server) Output() string { return s.output.String() }

// Seal seals the server.
func (s *Server) Seal() {
	s.tb.Helper()
	if err := s.Client(s.Token).Sys().Seal(); err != nil {
		s.tb.Fatalf("seal Vault: %v", err)
	}
}

// Stop kills the process; its data stays.
func (s *Server) Stop() {
	if s.exited == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Freeze stops the process where it is: it takes connections and never answers.
func (s *Server) Freeze() {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.tb.Fatalf("freeze Vault: %v", err)
	}
}

// Thaw lets a frozen process go on.
func (s *Server) Thaw() {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.tb.Fatalf("thaw Vault: %v", err)
	}
}

// Restart starts the process again after Stop, and unseals it.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Launch()
	s.Unseal()
}

// MountKV2 makes a KV version 2 mount and waits until it is ready.
func (s *Server) MountKV2(path string) {
	s.tb.Helper()
	c := s.Client(s.Token)
	if err := c.Sys().Mount(path, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}); err != nil {
		s.tb.Fatalf("mount KV 2 at %s: %v", path, err)
	}
	s.Await("has a KV 2 mount", func(c *api.Client) error {
		_, err := c.KVv2(path).Put(context.Background(), "ready", map[string]any{"ready": true})
		return err
	})
}

// Client gives a client with a token, without retries and without the environment's settings.
func (s *Server) Client(token string) *api.Client {
	s.tb.Helper()
	cfg := api.DefaultConfig()
	cfg.Address, cfg.MaxRetries, cfg.Timeout = s.Addr, 0, 20*time.Second
	c, err := api.NewClient(cfg)
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := c.SetAddress(s.Addr); err != nil {
		s.tb.Fatal(err)
	}
	c.ClearNamespace()
	c.SetToken(token)
	return c
}

// Policy writes a policy.
func (s *Server) Policy(name, rules string) {
	s.tb.Helper()
	if err := s.Client(s.Token).Sys().PutPolicy(name, rules); err != nil {
		s.tb.Fatalf("write policy %s: %v", name, err)
	}
}

// NewToken makes a token with a policy and, if it is not empty, a time to live.
func (s *Server) NewToken(policy, ttl string) string {
	s.tb.Helper()
	token, err := s.TryNewToken(policy, ttl)
	if err != nil {
		s.tb.Fatalf("make a token: %v", err)
	}
	return token
}

// TryNewToken is NewToken of a server that may not be able to.
func (s *Server) TryNewToken(policy, ttl string) (string, error) {
	s.tb.Helper()
	renewable := true
	c := s.Client(s.Token)
	c.SetClientTimeout(patience)
	got, err := c.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{policy}, TTL: ttl, Renewable: &renewable, NoDefaultPolicy: false})
	if err != nil {
		return "", err
	}
	return got.Auth.ClientToken, nil
}

// Revoke revokes a token.
func (s *Server) Revoke(token string) {
	s.tb.Helper()
	if err := s.Client(s.Token).Auth().Token().RevokeTree(token); err != nil {
		s.tb.Fatalf("revoke a token: %v", err)
	}
}

// AppRole makes an AppRole whose tokens have a policy and a time to live.
func (s *Server) AppRole(name, policy, ttl, maxTTL string) (roleID, secretID string) {
	s.tb.Helper()
	c := s.Client(s.Token)
	if mounts, err := c.Sys().ListAuth(); err != nil || mounts["approle/"] == nil {
		if err := c.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			s.tb.Fatalf("enable AppRole: %v", err)
		}
	}
	role := "auth/approle/role/" + name
	if _, err := c.Logical().Write(role, map[string]any{"token_policies": policy, "token_ttl": ttl, "token_max_ttl": maxTTL}); err != nil {
		s.tb.Fatalf("write the role: %v", err)
	}
	id, err := c.Logical().Read(role + "/role-id")
	if err != nil {
		s.tb.Fatalf("read the role id: %v", err)
	}
	secret, err := c.Logical().Write(role+"/secret-id", nil)
	if err != nil {
		s.tb.Fatalf("make a secret id: %v", err)
	}
	return id.Data["role_id"].(string), secret.Data["secret_id"].(string)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
