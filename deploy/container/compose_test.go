//go:build deploy

package container

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// vaultImage is the name that compose.yaml has. The tests' Vault takes its place.
const vaultImage = "docker.io/hashicorp/vault:1.21.0"

// vaultRecipe has of the real image what compose.yaml uses: the program's place, and a directory
// that the user vault owns.
const vaultRecipe = `FROM scratch
COPY --chown=100:1000 data /vault/file
COPY --chmod=0555 vault /bin/vault
`

// project is the compose file's directory with what its user adds.
type project struct {
	*host
	dir string
}

func (h *host) project(override string) *project {
	h.Helper()
	p := &project{host: h, dir: filepath.Join(h.dir, "compose")}
	if err := os.CopyFS(p.dir, os.DirFS(filepath.Join(source, "deploy/compose"))); err != nil {
		h.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(p.dir, "secrets"), 0o755), os.WriteFile(filepath.Join(p.dir, "override.yaml"), []byte(override), 0o600),
		os.WriteFile(filepath.Join(p.dir, "podman"), fmt.Appendf(nil, "#!/bin/sh\nexec podman %s \"$@\"\n", strings.Join(h.podmanOptions(), " ")), 0o700)); err != nil {
		h.Fatal(err)
	}
	return p
}

// compose runs podman-compose.
func (p *project) compose(args ...string) {
	p.Helper()
	c := exec.Command("podman-compose", append([]string{"--project-name", "tiwkeyd", "--podman-path", filepath.Join(p.dir, "podman"), "--podman-run-args=--cgroups=disabled",
		"--file", "compose.yaml", "--file", "override.yaml"}, args...)...)
	c.Dir = p.dir
	c.Env = append(os.Environ(), "TIWKEYD_UPSTREAM=http://"+outside+":3000")
	if out, err := p.try(c); err != nil {
		p.Fatalf("podman-compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// healthchecks are the commands in the compose file, of tiwkeyd and of the proxy.
func (p *project) healthchecks() [][]string {
	p.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "compose.yaml"))
	if err != nil {
		p.Fatal(err)
	}
	var all [][]string
	for _, found := range regexp.MustCompile(`test: \[CMD, (.*?)\]`).FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.Split(strings.ReplaceAll(found[1], `"`, ""), ", "))
	}
	if len(all) != 2 {
		p.Fatalf("compose.yaml has %d health checks, not one of tiwkeyd and one of the proxy", len(all))
	}
	return all
}

// TestCompose starts compose.yaml as docs/operations.md tells, and rotates under callbacks
// through the proxy.
func TestCompose(t *testing.T) {
	h := newHost(t)
	h.build(source, h.storage...)
	h.buildVault()

	// Tencent, for the containers: HTTPS at an address that is no loopback address of theirs.
	tencent := httptest.NewUnstartedServer(h.tiw)
	tencent.Listener = listen(t, outside+":0")
	tencent.StartTLS()
	t.Cleanup(tencent.Close)
	_, port, _ := net.SplitHostPort(tencent.Listener.Addr().String())
	authority := h.file(filepath.Join(h.dir, "authority.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tencent.Certificate().Raw})))
	p := h.project(fmt.Sprintf(`services:
  tiwkeyd:
    extra_hosts: ["example.com:%s"]
    environment: { SSL_CERT_FILE: /run/authority.pem }
    volumes: ["%s:/run/authority.pem:ro"]
`, outside, authority))

	// A receiver that knows nothing of keys.
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Tiwkeyd-Key-Id") == "" {
			http.Error(w, "this came past the proxy", http.StatusBadRequest)
		}
	}))
	receiver.Listener = listen(t, outside+":3000")
	receiver.Start()
	t.Cleanup(receiver.Close)

	for _, name := range []string{"tiwkeyd.env", "tiwkeyd.secret-id", "proxy.env", "proxy.secret-id"} {
		h.file(filepath.Join(p.dir, "secrets", name), "")
	}
	p.compose("up", "--detach", "vault")
	vault := p.prepareVault(fmt.Sprintf("https://example.com:%s", port))
	p.compose("up", "--detach", "tiwkeyd", "proxy")
	logs := func() string { return h.logs("tiwkeyd_tiwkeyd_1") + h.logs("tiwkeyd_proxy_1") }
	for i, name := range []string{"tiwkeyd_tiwkeyd_1", "tiwkeyd_proxy_1"} {
		check := p.healthchecks()[i]
		for _, args := range [][]string{check, append(check, "--ready")} {
			h.await(name+" is well by "+strings.Join(args, " "), func() bool {
				_, err := h.try(exec.Command("podman", append(h.podmanOptions(), append([]string{"exec", name}, args...)...)...))
				return err == nil
			}, logs)
		}
	}
	h.await("the key in force is adopted, and replaced for the first time", func() bool { return h.tiw.KeyInForce(app, service) != oldKey && h.settled(vault) }, logs)
	first := h.tiw.KeyInForce(app, service)

	sender := tiwtest.NewSender(h.tiw, "http://127.0.0.1:8080/", tiwtest.Source{App: app, Service: service})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { sender.Run(ctx, 50) })
	h.podman("kill", "--signal", "USR1", "tiwkeyd_tiwkeyd_1")
	h.await("another key is in force, and committed", func() bool { return h.tiw.KeyInForce(app, service) != first && h.settled(vault) }, logs)
	before := sender.Counts().Verified
	h.await("callbacks with the new key", func() bool { return sender.Counts().Verified > before+50 }, logs)
	cancel()
	group.Wait()
	c := sender.Counts()
	t.Logf("callbacks: %d sent, %d verified, %d refused, %d failed", c.Sent, c.Verified, c.Refused, c.Failed)
	if c.Refused+c.Failed > 0 || c.Verified != c.Sent {
		t.Errorf("not every genuine callback came through: %+v\n%s", c, logs())
	}
	if status := callback(t, "CANARY-not-a-key"); status != http.StatusUnauthorized {
		t.Errorf("a forged callback is answered %d", status)
	}
	if err := vault.Sys().Seal(); err != nil {
		t.Fatal(err)
	}
	if status := callback(t, h.tiw.KeyInForce(app, service)); status != http.StatusOK {
		t.Errorf("while Vault is sealed a genuine callback is answered %d\n%s", status, logs())
	}
	for _, name := range []string{"tiwkeyd_vault_1", "tiwkeyd_tiwkeyd_1", "tiwkeyd_proxy_1"} {
		h.logs(name)
		h.noSecretIn("podman knows of "+name, h.podman("inspect", name))
	}
	p.compose("down")
}

// callback sends one, signed with a key, through the proxy, and gives the answer's status.
func callback(t *testing.T, key string) int {
	t.Helper()
	answer, err := http.Post("http://127.0.0.1:8080/", "application/json", bytes.NewReader(tiwtest.Callback(app, "WhiteboardPushStopped", 1, key, time.Now().Add(time.Minute))))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// buildVault makes the image of the tests' Vault.
func (h *host) buildVault() {
	h.Helper()
	program := vaulttest.Full.Need(h.T)
	context := filepath.Join(h.dir, "vault")
	if err := errors.Join(os.MkdirAll(filepath.Join(context, "data"), 0o755), os.WriteFile(filepath.Join(context, "Containerfile"), []byte(vaultRecipe), 0o600)); err != nil {
		h.Fatal(err)
	}
	h.command("cp", program, filepath.Join(context, "vault"))
	h.command("buildah", append(h.storage, "build", "--isolation", "chroot", "--tag", vaultImage, context)...)
}

// prepareVault does what docs/operations.md has the user do, and writes the files of secrets.
func (p *project) prepareVault(endpoint string) *api.Client {
	p.Helper()
	config := api.DefaultConfig()
	config.Address = "http://127.0.0.1:8200"
	c, err := api.NewClient(config)
	if err != nil {
		p.Fatal(err)
	}
	p.await("Vault answers", func() bool { _, err := c.Sys().SealStatus(); return err == nil }, func() string { return p.logs("tiwkeyd_vault_1") })
	begun, err := c.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		p.Fatal(err)
	}
	p.secret(begun.RootToken)
	p.secret(begun.KeysB64[0])
	c.SetToken(begun.RootToken)
	if _, err := c.Sys().Unseal(begun.KeysB64[0]); err != nil {
		p.Fatal(err)
	}
	p.await("Vault has a KV 2 mount", func() bool { return c.Sys().Mount("secret", &api.MountInput{Type: "kv-v2"}) == nil }, func() string { return p.logs("tiwkeyd_vault_1") })
	if err := c.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
		p.Fatal(err)
	}
	common := fmt.Sprintf("TIWKEYD_TARGETS=%d\n", app)
	for _, r := range []struct{ name, policy, file, env string }{
		{"tiwkeyd", filepath.Join(source, "deploy/vault/policy.hcl"), "tiwkeyd",
			"TIWKEYD_SCHEDULE=@yearly\nTIWKEYD_PROPAGATION=1s\nTIWKEYD_TENCENT_ENDPOINT=" + endpoint + "\nTENCENTCLOUD_SECRET_ID=" + secretID + "\nTENCENTCLOUD_SECRET_KEY=" + secretKey + "\n"},
		{"tiwkeyd-proxy", filepath.Join(p.dir, "proxy.hcl"), "proxy", ""},
	} {
		policy, err := os.ReadFile(r.policy)
		if err != nil {
			p.Fatal(err)
		}
		if err := c.Sys().PutPolicy(r.name, string(policy)); err != nil {
			p.Fatal(err)
		}
		role := "auth/approle/role/" + r.name
		_, err = c.Logical().Write(role, map[string]any{"token_policies": r.name, "token_period": "1h"})
		id, err2 := c.Logical().Read(role + "/role-id")
		secret, err3 := c.Logical().Write(role+"/secret-id", nil)
		if err := errors.Join(err, err2, err3); err != nil {
			p.Fatal(err)
		}
		secretIDOfRole := secret.Data["secret_id"].(string)
		p.secret(secretIDOfRole)
		p.file(filepath.Join(p.dir, "secrets", r.file+".secret-id"), secretIDOfRole)
		p.file(filepath.Join(p.dir, "secrets", r.file+".env"), common+r.env+"VAULT_ROLE_ID="+id.Data["role_id"].(string)+"\n")
	}
	return c
}
