// Package vaulttest starts real Vault servers for tests: one alone, or a raft cluster, on
// free loopback ports. The program is `vault` from PATH where there is one (1.12 or newer),
// else one built once from its Go module into the user's cache.
package vaulttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Version is the one that is built; the module beside this package names it too.
const Version = "1.21.0"

// BuiltPath is where the built program is kept.
func BuiltPath() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(cache, "tiwkeyd", "vault-"+Version, "vault"), nil
}

// Find gives the program to use. Its error says what mends it.
func Find() (string, error) {
	if path, err := exec.LookPath("vault"); err == nil && newEnough(path) {
		return path, nil
	}
	path, err := BuiltPath()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no Vault to test with (neither on PATH nor built): run `make vault`, which takes about twelve minutes on two cores, once")
	}
	return path, nil
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
