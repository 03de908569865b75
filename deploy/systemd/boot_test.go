//go:build deploy

// Package systemd tries the unit and the Debian package where they are meant to be: in Debian,
// under its systemd, booted in a root and namespaces of its own. What happens there is in
// booted_test.go.
package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// suites are the Debians that it is tried in.
var suites = []string{"bookworm", "trixie"}

// TestBooted boots each Debian and has booted_test.go run there.
func TestBooted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("only root can boot a systemd: run this test as root")
	}
	vault := vaulttest.ServerOnly.Need(t)
	parts := t.TempDir()
	for _, version := range []string{"1.0.0", "1.0.1"} {
		run(t, "../debian/build", version, parts)
	}
	run(t, "cp", "../vault/policy.hcl", parts)
	test := exec.Command("go", "test", "-c", "-tags", "booted", "-o", filepath.Join(parts, "booted.test"), ".")
	test.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := test.CombinedOutput(); err != nil {
		t.Fatalf("build the tests that run inside: %v\n%s", err, out)
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel() // most of the time both wait for the lease of a replica that was killed
			root := t.TempDir()
			run(t, "tar", "-xf", debian(t, suite), "-C", root)
			boot(t, root, parts, filepath.Dir(vault))
		})
	}
}

// trial is the service that runs the tests in the booted system, and ends it.
const trial = `[Unit]
Description=Tests of the package
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
Environment=PATH=/opt/vault:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ExecStart=/opt/parts/booted.test -test.v -test.timeout 8m
StandardOutput=file:/output
StandardError=inherit
TimeoutStartSec=infinity
[Install]
WantedBy=multi-user.target
`

func boot(t *testing.T, root, parts, vault string) {
	t.Helper()
	units := filepath.Join(root, "etc/systemd/system")
	if err := errors.Join(os.WriteFile(filepath.Join(units, "trial.service"), []byte(trial), 0o644),
		os.MkdirAll(filepath.Join(units, "multi-user.target.wants"), 0o755),
		os.Symlink("../trial.service", filepath.Join(units, "multi-user.target.wants/trial.service"))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./boot", root, newCgroup(t), parts, "/opt/parts", vault, "/opt/vault")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the parent of Pdeathsig is this thread
	defer runtime.UnlockOSThread()
	said, err := cmd.CombinedOutput()
	output, readErr := os.ReadFile(filepath.Join(root, "output"))
	t.Logf("in the booted system:\n%s", output)
	if err != nil || readErr != nil || !strings.HasSuffix(strings.TrimSpace(string(output)), "PASS") {
		t.Fatalf("%v, %v, and it said:\n%s", err, readErr, said)
	}
}

// newCgroup makes a cgroup below that of this process, and takes it away at the end.
func newCgroup(t *testing.T) string {
	t.Helper()
	mount := strings.TrimSpace(run(t, "findmnt", "--noheadings", "--first-only", "--types", "cgroup2", "--output", "TARGET"))
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			mount = filepath.Join(mount, path)
		}
	}
	dir, err := os.MkdirTemp(mount, "tiwkeyd-try-")
	if err != nil {
		t.Fatalf("make a cgroup, which takes a cgroup2 file system that can be written to: %v", err)
	}
	t.Cleanup(func() {
		var all []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all) // the innermost first
		for _, path := range all {
			if err := syscall.Rmdir(path); err != nil {
				t.Errorf("%s is left: %v", path, err)
			}
		}
	})
	return dir
}

// debian gives a small root of a suite, made once and kept in the user's cache.
func debian(t *testing.T, suite string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(cache, "tiwkeyd", "debian-"+suite+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("there is no mmdebstrap to make a Debian with: apt-get install mmdebstrap")
	}
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		t.Fatal(err)
	}
	made := fmt.Sprintf("%s.%d.tar", archive, os.Getpid())
	defer func() { _ = os.Remove(made) }()
	run(t, "mmdebstrap", "--mode=root", "--variant=essential", "--include=systemd,systemd-sysv,ca-certificates", suite, made)
	if err := os.Rename(made, archive); err != nil {
		t.Fatal(err)
	}
	return archive
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
