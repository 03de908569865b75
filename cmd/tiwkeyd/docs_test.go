package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestReadmeFiveMinutes runs the README's commands for production as they stand there, with
// values of this machine in place of the examples'.
func TestReadmeFiveMinutes(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "**Run**")
	_, rest, ok2 := strings.Cut(rest, "```sh\n")
	script, _, ok3 := strings.Cut(rest, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("the README has no commands to run it")
	}
	r := newRig(t)
	tokenFile := r.useVault(vaulttest.Start(t))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	values := map[string]string{"TIWKEYD_TARGETS": testTarget.String(), "VAULT_ADDR": lastOf(r.env, "VAULT_ADDR"), "VAULT_TOKEN_FILE": tokenFile,
		"TENCENTCLOUD_SECRET_ID": testID, "TENCENTCLOUD_SECRET_KEY": testKey}
	exported := regexp.MustCompile(`([A-Z_]+)=(\S+)`)
	script = exported.ReplaceAllStringFunc(script, func(pair string) string {
		name, _, _ := strings.Cut(pair, "=")
		value, known := values[name]
		if !known {
			t.Errorf("the README exports %s, which this test does not know", name)
		}
		delete(values, name)
		return name + "=" + value
	})
	for name := range values {
		t.Errorf("the README does not export %s", name)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "bin", "tiwkeyd")); err != nil {
		t.Fatal(err)
	}
	// All but the variables under test come as they do for every other test.
	r.env = without(r.env, "TIWKEYD_TARGETS", "TIWKEYD_STORE", "VAULT_ADDR", "VAULT_TOKEN_FILE", "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "five-minutes.sh")
	script = "set -e\ncd " + dir + "\n" + strings.Replace(script, "bin/tiwkeyd run", "exec bin/tiwkeyd run", 1)
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	d := r.startProgram(shell, []string{path})
	r.awaitOutput(d, "in force, and current")
	r.awaitOutput(d, "serves these targets")
	d.signal(syscall.SIGTERM)
	<-d.done
	if d.code != 0 {
		t.Errorf("it ended with %d:\n%s", d.code, tail(d.String()))
	}
}

func lastOf(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

func without(env []string, names ...string) []string {
	var left []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
			left = append(left, e)
		}
	}
	return left
}

// TestCommandsDocumented has every command that --help lists in the README's table.
func TestCommandsDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range (&program{}).rootCommand().Commands() {
		if !c.Hidden && !strings.Contains(string(readme), "| `tiwkeyd "+c.Name()) {
			t.Errorf("the README does not have the command %s", c.Name())
		}
	}
}

// TestPolicy has the policy of the README and of deploy/ be the same. The tests that use
// Vault run with it.
func TestPolicy(t *testing.T) {
	text, err := os.ReadFile("../../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	plain := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				lines = append(lines, line)
			}
		}
		return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
	}
	if a, b := plain(readmePolicy(t)), plain(string(text)); a != b {
		t.Errorf("the README's policy is\n%s\nand that of deploy/vault is\n%s", a, b)
	}
}

// TestModestDocumented: what operations.md tells of the garbage collector is what the daemon does.
func TestModestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil || !strings.Contains(string(text), fmt.Sprintf("(`GOGC=%d`)", modestGC)) {
		t.Errorf("operations.md does not tell of %d: %v", modestGC, err)
	}
}
