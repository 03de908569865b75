// Package vaulttest starts real Vault servers for tests: one alone, or a raft cluster, on
// free loopback ports.
//
// The server is `vault` from PATH where there is one (1.12 or newer), else a smaller program
// around Vault's own code ([./server]) that `make vault` builds into the user's cache. The
// few tests that need the command line or the agent use the whole program, which `make
// vault-full` builds.
package vaulttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Version is the one that is built; the module beside this package names it too.
const Version = "1.21.0"

// Program is one of the two that can be built.
type Program struct {
	Name    string // of the folder that it is kept in, after the version
	Package string // that it is built from, in the module beside this package
	Target  string // of make
	Takes   string // to build on two quiet cores
}

// The server alone, and the whole program.
var (
	ServerOnly = Program{"-server", ".", "vault", "three minutes"}
	Full       = Program{"", "github.com/hashicorp/vault", "vault-full", "ten minutes"}
)

// Path is where the built program is kept.
func (p Program) Path() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(cache, "tiwkeyd", "vault-"+Version+p.Name, "vault"), nil
}

// Find gives the program to use: `vault` from PATH, or p. The error says which command
// builds p.
func (p Program) Find() (string, error) {
	if path, err := exec.LookPath("vault"); err == nil && newEnough(path) {
		return path, nil
	}
	path, err := p.Path()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no Vault to test with, neither on PATH nor built: run `make %s` once, which takes about %s on two cores", p.Target, p.Takes)
	}
	return path, nil
}

// Need is Find for a test: without the program the test fails. In a short run, which needs
// no Vault, the test is skipped.
func (p Program) Need(tb testing.TB) string {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs a Vault server: runs with `make test`")
	}
	path, err := p.Find()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// newEnough reads "Vault v1.21.0 (…), built …".
func newEnough(path string) bool {
	out, err := exec.Command(path, "version").Output()
	_, version, ok := strings.Cut(string(out), "Vault v")
	parts := strings.SplitN(version, ".", 3)
	if err != nil || !ok || len(parts) < 3 {
		return false
	}
	major, errMajor := strconv.Atoi(parts[0])
	minor, errMinor := strconv.Atoi(parts[1])
	return errMajor == nil && errMinor == nil && (major > 1 || (major == 1 && minor >= 12))
}
