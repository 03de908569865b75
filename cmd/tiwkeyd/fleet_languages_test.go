//go:build receivers

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tiwkeyd/internal/testport"
	"tiwkeyd/secrets/vault/vaulttest"
)

// agent has a Vault Agent render a kind's keyring to a file, and looks for changes every
// second.
func (f *fleet) agent(k *kind) (rendered string) {
	f.t.Helper()
	vaultProgram := vaulttest.Full.Need(f.t)
	dir := f.t.TempDir()
	token := f.vault.NewToken("receiver", "2h")
	f.secret(token)
	tokenFile, config := filepath.Join(dir, "token"), filepath.Join(dir, "agent.hcl")
	rendered = filepath.Join(dir, "keyring.json")
	text := fmt.Sprintf(`vault { address = %q }
auto_auth {
  method "token_file" { config = { token_file_path = %q } }
}
template_config { static_secret_render_interval = "1s" }
template {
  contents    = "{{ with secret \"secret/data/tiw/%s\" }}{{ .Data.data | toJSON }}{{ end }}"
  destination = %q
  perms       = "0600"
}
`, f.vault.Addr, tokenFile, k.target, rendered)
	for path, content := range map[string]string{tokenFile: token, config: text} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	p := f.startProgram(vaultProgram, []string{"agent", "-config", config})
	f.await("the agent renders "+rendered, func() bool {
		if p.exited() {
			f.t.Fatalf("vault agent ended with %d:\n%s", p.code, tail(p.String()))
		}
		_, err := os.Stat(rendered)
		return err == nil
	})
	return rendered
}

// processes are n receivers made from a recipe, all fed with one file.
func (f *fleet) processes(k *kind, keyring, program string, args []string, n int) {
	f.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		f.t.Fatalf("%s is not there: apt-get install %s", program, map[string]string{"node": "nodejs"}[program]+program)
	}
	for range n {
		address, port := testport.Free(f.t)
		p := f.startProgram(path, args, "KEYRING="+keyring, "SDK_APP_ID="+strconv.FormatInt(k.target.SdkAppID, 10), "PORT="+port)
		f.await(k.name+" listens", func() bool {
			if p.exited() {
				f.t.Fatalf("%s ended with %d:\n%s", k.name, p.code, tail(p.String()))
			}
			c, err := net.Dial("tcp", address)
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
		k.urls = append(k.urls, "http://"+address)
	}
}

// TestFleetOfAllKinds rotates thirty times under the callbacks of fifty receivers of every kind,
// with the propagation that each kind needs.
func TestFleetOfAllKinds(t *testing.T) {
	f := newFleet(t)
	// An agent reads the secret every second, and some more passes until the file is there.
	const agentFed = 6 * time.Second
	golang, proxied := f.add("Go middleware", 0), f.add("proxy", 0)
	python, node := f.add("Python fed by Vault Agent", agentFed), f.add("Node.js fed by Vault Agent", agentFed)
	for _, k := range f.kinds {
		f.serve(k)
	}
	f.goReceivers(golang, f.vault.Addr, 20)
	f.proxies(proxied, 10)
	f.processes(python, f.agent(python), "python3", []string{"../../docs/receivers/receiver.py"}, 10)
	f.processes(node, f.agent(node), "node", []string{"../../docs/receivers/receiver.mjs"}, 10)
	f.send(fleetRate())
	f.rotate(30)
}
