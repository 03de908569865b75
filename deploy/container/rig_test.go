//go:build deploy

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sys/unix"

	"tiwkeyd/tencent/tiwtest"
)

const (
	image     = "localhost/tiwkeyd:latest"
	app       = 1400000001
	service   = "whiteboard-push"
	secretID  = "AKIDtest"
	secretKey = "CANARY-secret-key-of-tencent"
	oldKey    = "CANARY-key-from-before-tiwkeyd"
	user      = 65532
)

// inside marks the process that has namespaces of its own.
const inside = "TIWKEYD_TEST_INSIDE"

// TestMain runs the tests in a mount and a network namespace of their own: bridges, packet
// filters and mounts of containers end with them, and never touch the machine's.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(enter())
	}
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func enter() int {
	for _, p := range []struct{ program, pkg string }{{"buildah", "buildah"}, {"podman", "podman"}, {"crun", "crun"}, {"podman-compose", "podman-compose"}, {"iptables", "iptables"}, {"ip", "iproute2"}} {
		if _, err := exec.LookPath(p.program); err != nil {
			fmt.Fprintf(os.Stderr, "there is no %s: apt-get install %s\n", p.program, p.pkg)
			return 1
		}
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := exec.Command(self, os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintf(os.Stderr, "namespaces of the tests' own: %v: run them as root\n", err)
		return 1
	}
	return 0
}

// outside is an address of the tests' own that containers reach as they would the internet.
const outside = "192.0.2.1"

func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	// crun refuses a machine that has both versions of control groups; what it sees here has the second alone.
	if err := unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2 in the tests' namespace: %w", err)
	}
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", outside + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// host is storage for images and containers, a TIW server, and a memory of all that containers print.
type host struct {
	*testing.T
	dir     string
	storage []string
	tiw     *tiwtest.Server

	mu      sync.Mutex
	secrets []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	// Not the test's directory: sockets in it would have too long a path.
	dir, err := os.MkdirTemp("", "box")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, dir: dir, storage: []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay"}, secrets: []string{secretKey, oldKey}}
	t.Cleanup(func() {
		h.podman("rm", "--all", "--force", "--time", "0")
		_ = unix.Unmount(filepath.Join(dir, "root", "overlay"), unix.MNT_DETACH)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if h.tiw, err = tiwtest.Start(tiwtest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.tiw.Close)
	h.tiw.OnApply(func(a tiwtest.Applied) { h.secret(a.Key) })
	h.tiw.AddCredential(secretID, secretKey, "")
	h.tiw.AddApp(app)
	h.tiw.SetKey(app, service, oldKey)
	return h
}

// podmanOptions choose the storage, and what works where containers have no groups of their own.
func (h *host) podmanOptions() []string {
	return append(h.storage, "--cgroup-manager", "cgroupfs", "--runtime", "crun", "--log-level", "error")
}

func (h *host) podman(args ...string) string {
	h.Helper()
	return h.command("podman", append(h.podmanOptions(), args...)...)
}

func (h *host) command(name string, args ...string) string {
	h.Helper()
	out, err := h.try(exec.Command(name, args...))
	if err != nil {
		h.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// try gives what a command printed on its standard output; with an error, all of it.
func (h *host) try(c *exec.Cmd) (string, error) {
	h.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	h.noSecretIn(filepath.Base(c.Path)+" prints", stdout.String()+stderr.String())
	if err != nil {
		return stdout.String() + stderr.String(), err
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (h *host) noSecretIn(what, text string) {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.secrets {
		if strings.Contains(text, s) {
			h.Errorf("a secret shows in what %s", what)
		}
	}
}

func (h *host) secret(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.secrets = append(h.secrets, s)
}

// build makes the image from a source tree into a storage.
func (h *host) build(tree string, storage ...string) {
	h.Helper()
	c := exec.Command(filepath.Join(tree, "deploy", "container", "build"), append([]string{image}, storage...)...)
	c.Env = append(os.Environ(), "VERSION=1.2.3-test")
	if out, err := h.try(c); err != nil {
		h.Fatalf("build: %v\n%s", err, out)
	}
}

// file writes a file that the image's user alone can read.
func (h *host) file(path, content string) string {
	h.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o400), os.Chown(path, user, user)); err != nil {
		h.Fatal(err)
	}
	return path
}

// hang ends a wait that would never end; nothing is measured with it.
const hang = 2 * time.Minute

func (h *host) await(what string, condition func() bool, look func() string) {
	h.Helper()
	limit := time.NewTimer(hang)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			h.Fatalf("it never came to this: %s\n%s", what, look())
		}
	}
}

// inspect reads what podman knows of a container or an image.
func (h *host) inspect(kind, name string, into any) {
	h.Helper()
	if err := json.Unmarshal([]byte(h.podman(kind, "inspect", name)), into); err != nil {
		h.Fatal(err)
	}
}

// logs is all that a container has printed.
func (h *host) logs(name string) string {
	h.Helper()
	out, err := exec.Command("podman", append(h.podmanOptions(), "logs", name)...).CombinedOutput()
	if err != nil {
		h.Fatalf("podman logs %s: %v\n%s", name, err, out)
	}
	h.noSecretIn(name+" prints", string(out))
	return string(out)
}

// settled reports whether Vault has the key in force as the current one, and nothing is in hand.
func (h *host) settled(c *api.Client) bool {
	s, err := c.KVv2("secret").Get(context.Background(), fmt.Sprintf("tiw/%d/%s", app, service))
	return err == nil && s.Data["rotation"] == nil && s.Data["callback_key"] == h.tiw.KeyInForce(app, service)
}
