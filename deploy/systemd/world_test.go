//go:build booted

package systemd

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

const (
	secretID    = "AKIDtest"
	secretKey   = "CANARY-secret-key-of-tencent"
	oldKey      = "CANARY-key-from-before-tiwkeyd"
	propagation = 5 * time.Second

	settings    = "/etc/tiwkeyd/tiwkeyd.env"
	credentials = "/etc/tiwkeyd/credentials/"
)

var target = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

// world is what is around the package: Vault, a TIW server, and a receiver under callbacks that
// sees every change of the secret late.
type world struct {
	*testing.T
	server *tiwtest.Server
	vault  *vaulttest.Server
	store  *vault.Store
	sender *tiwtest.Sender
	token  string
	env    string // what the settings begin with

	mu      sync.Mutex
	secrets map[string]bool
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, secrets: map[string]bool{secretKey: true, oldKey: true}}
	var err error
	if w.server, err = tiwtest.Start(tiwtest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	w.server.AddCredential(secretID, secretKey, "")
	w.server.AddApp(target.SdkAppID)
	w.server.OnApply(func(a tiwtest.Applied) { w.secret(a.Key) })
	w.server.SetKey(target.SdkAppID, string(target.Service), oldKey)

	v := vaulttest.Start(t)
	w.vault = v
	policy, err := os.ReadFile("/opt/parts/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	v.Policy("tiwkeyd", string(policy))
	w.token = v.NewToken("tiwkeyd", "2h")
	w.secret(w.token)
	t.Setenv("VAULT_ADDR", v.Addr)
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": v.Token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = vault.New(vault.Options{Mount: "secret", Prefix: "tiw", Login: login}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.store.Close)
	w.env = fmt.Sprintf("TIWKEYD_TARGETS=%s\nTIWKEYD_SCHEDULE=@yearly\nTIWKEYD_PROPAGATION=%s\nTIWKEYD_TENCENT_ENDPOINT=%s\nVAULT_ADDR=%s\nVAULT_TOKEN_FILE=%svault-token\nTENCENTCLOUD_CREDENTIALS_FILE=%stencent\n",
		target, propagation, w.server.URL, v.Addr, credentials, credentials)
	return w
}

// load has callbacks sent until the test's end, none of which may be refused.
func (w *world) load() {
	receiver := tiwtest.NewReceiver(propagation, 50*time.Millisecond)
	web := httptest.NewServer(http.HandlerFunc(receiver.ServeHTTP))
	w.sender = tiwtest.NewSender(w.server, web.URL, tiwtest.Source{App: target.SdkAppID, Service: string(target.Service)})
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { receiver.Watch(ctx, w.store, target) })
	group.Go(func() { w.sender.Run(ctx, 50) })
	w.Cleanup(func() {
		stop()
		group.Wait()
		web.Close()
		c := w.sender.Counts()
		w.Logf("callbacks: %d sent, %d verified, %d refused, %d failed", c.Sent, c.Verified, c.Refused, c.Failed)
		if c.Sent == 0 || c.Refused+c.Failed > 0 {
			w.Errorf("callbacks were refused: %+v", c.Refusals)
		}
	})
}

func (w *world) secret(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[s] = true
}

func (w *world) keyring() *rotator.Keyring {
	s, err := w.store.Read(context.Background(), target)
	if err != nil || s.Keyring == nil {
		return &rotator.Keyring{}
	}
	for _, e := range s.Keyring.Keys {
		w.secret(e.Key.Reveal())
	}
	return s.Keyring
}

// settled reports whether the current key is another than before, in force, and nothing in hand.
func (w *world) settled(before string) bool {
	k := w.keyring()
	return len(k.Keys) > 0 && k.Rotation == nil && k.CallbackKey().ID() != before && k.CallbackKey().Reveal() == w.server.KeyInForce(target.SdkAppID, string(target.Service))
}

func (w *world) current() string { return w.keyring().CallbackKey().ID() }

func (w *world) pending() string {
	if p := w.keyring().Pending(); p != nil {
		return p.Key.ID()
	}
	return ""
}

func (w *world) write(path, content string, mode os.FileMode) {
	w.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		w.Fatal(err)
	}
}

// try runs a command, and gives what it printed and whether it succeeded.
func (w *world) try(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

func (w *world) run(name string, args ...string) string {
	w.Helper()
	out, err := w.try(name, args...)
	if err != nil {
		w.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, w.journal())
	}
	return out
}

// property is one of the unit's, as systemd shows it.
func (w *world) property(name string) string {
	out, _ := w.try("systemctl", "show", "--value", "--property", name, "tiwkeyd.service")
	return strings.TrimSpace(out)
}

func (w *world) journal() string {
	out, _ := w.try("journalctl", "--no-pager", "--output", "short-monotonic", "--unit", "tiwkeyd.service")
	return out
}

// said counts how often the journal has a text.
func (w *world) said(text string) int { return strings.Count(w.journal(), text) }

// hang ends a wait that would never end; nothing is measured with it.
const hang = 3 * time.Minute

func (w *world) await(what string, condition func() bool) {
	w.Helper()
	limit := time.NewTimer(hang)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			w.Fatalf("it never came to this: %s\n%s", what, w.journal())
		}
	}
}
