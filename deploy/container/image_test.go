//go:build deploy

package container

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tiwkeyd/secrets/vault/vaulttest"
)

const source = "../.."

type imageFacts struct {
	ID     string `json:"Id"`
	Digest string
	Size   int64
	Config struct {
		User   string
		Labels map[string]string
	}
}

// TestReproducible builds the image twice: from this tree, and from a copy of it elsewhere, whose
// files have other times and modes, in another time zone and storage, under another umask.
func TestReproducible(t *testing.T) {
	h := newHost(t)
	h.build(source, h.storage...)
	var first, second []imageFacts
	h.inspect("image", image, &first)

	other := filepath.Join(t.TempDir(), "a-tree-elsewhere")
	files := h.command("git", "-C", source, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimRight(files, "\x00"), "\x00") {
		copyFile(t, filepath.Join(source, name), filepath.Join(other, name))
	}
	t.Setenv("TZ", "Asia/Shanghai")
	storage := h.storage
	h.storage = []string{"--root", filepath.Join(h.dir, "root2"), "--runroot", filepath.Join(h.dir, "run2"), "--storage-driver", "vfs"}
	umask := unix.Umask(0o077)
	h.build(other, h.storage...)
	unix.Umask(umask)
	h.inspect("image", image, &second)
	h.storage = storage

	t.Logf("image id %s, digest %s, %d bytes; the second: %s, %s", first[0].ID, first[0].Digest, first[0].Size, second[0].ID, second[0].Digest)
	if first[0].ID != second[0].ID || first[0].Digest != second[0].Digest || first[0].Digest == "" {
		t.Error("two builds of the same source are two images")
	}
	if v := first[0].Config.Labels["org.opencontainers.image.version"]; v != "1.2.3-test" {
		t.Errorf("the image's version is %q", v)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if os.IsNotExist(err) {
		return // deleted, and not committed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(from); err == nil && info.Mode()&0o100 != 0 {
		mode = 0o700
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, mode); err != nil {
		t.Fatal(err)
	}
}

// hardened is how the daemon's container is run: docs/operations.md tells the same. The last
// options are for machines on which containers have no control groups of their own.
var hardened = []string{"--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt", "no-new-privileges",
	"--ulimit", "core=0:0", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cgroups=disabled"}

// TestDaemon runs the image as a daemon with a real Vault: it rotates when told to, is well, is
// nobody in particular, writes nothing, and stops in time.
func TestDaemon(t *testing.T) {
	h := newHost(t)
	h.build(source, h.storage...)
	v := vaulttest.Start(t)
	policy, err := os.ReadFile(filepath.Join(source, "deploy/vault/policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	v.Policy("tiwkeyd", string(policy))
	token := v.NewToken("tiwkeyd", "1h")
	h.secret(token)
	tokenFile := h.file(filepath.Join(h.dir, "token"), token)
	// CRON_TZ, because the image has no zone files but those in the binary.
	env := h.file(filepath.Join(h.dir, "env"), fmt.Sprintf("TIWKEYD_TARGETS=%d\nTIWKEYD_SCHEDULE='CRON_TZ=Asia/Shanghai 0 3 1 1 *'\nTIWKEYD_PROPAGATION=1s\nTIWKEYD_TENCENT_ENDPOINT=%s\nTENCENTCLOUD_SECRET_ID=%s\nTENCENTCLOUD_SECRET_KEY=%s\nVAULT_ADDR=%s\nVAULT_TOKEN_FILE=/run/vault-token\n",
		app, h.tiw.URL, secretID, secretKey, v.Addr))
	h.podman(slices.Concat([]string{"run", "--detach", "--name", "daemon", "--network", "host", "--health-cmd", `["/tiwkeyd", "health"]`, "--volume", env + ":/run/tiwkeyd.env:ro", "--volume", tokenFile + ":/run/vault-token:ro"},
		hardened, []string{image, "--env-file", "/run/tiwkeyd.env", "run"})...)
	logs := func() string { return h.logs("daemon") }
	h.await("the daemon is well", func() bool {
		_, err := h.try(exec.Command("podman", append(h.podmanOptions(), "healthcheck", "run", "daemon")...))
		return err == nil
	}, logs)
	h.await("the daemon is ready", func() bool {
		_, err := h.try(exec.Command("podman", append(h.podmanOptions(), "exec", "daemon", "/tiwkeyd", "health", "--ready")...))
		return err == nil
	}, logs)
	var facts []struct {
		State struct {
			Pid      int
			ExitCode int
		}
	}
	h.inspect("container", "daemon", &facts)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", facts[0].State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "Gid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process is not %q:\n%s", want, status)
		}
	}
	client := v.Client(v.Token)
	h.await("the key in force is adopted, and replaced for the first time", func() bool { return h.tiw.KeyInForce(app, service) != oldKey && h.settled(client) }, logs)
	first := h.tiw.KeyInForce(app, service)
	h.podman("kill", "--signal", "USR1", "daemon")
	h.await("another key is in force, and committed", func() bool { return h.tiw.KeyInForce(app, service) != first && h.settled(client) }, logs)

	h.podman("stop", "--time", "10", "daemon")
	h.inspect("container", "daemon", &facts)
	if facts[0].State.ExitCode != 0 || !strings.Contains(logs(), `"stopped"`) {
		t.Errorf("it did not stop within ten seconds: exit code %d\n%s", facts[0].State.ExitCode, logs())
	}
	for line := range strings.Lines(h.podman("diff", "daemon")) {
		// What podman itself puts there, and the places of mounts.
		if f := strings.Fields(line); !slices.Contains([]string{"/etc", "/etc/group", "/etc/passwd", "/run", "/run/tiwkeyd.env", "/run/vault-token"}, f[1]) {
			t.Errorf("the container's root was written to: %s", line)
		}
	}
	h.noSecretIn("podman knows of the container", h.podman("inspect", "daemon"))
}

// TestContents looks at all files of the image.
func TestContents(t *testing.T) {
	h := newHost(t)
	h.build(source, h.storage...)
	h.podman("create", "--name", "looked-at", image)
	tarball := filepath.Join(t.TempDir(), "files.tar")
	h.podman("export", "--output", tarball, "looked-at")
	list := strings.Fields(h.command("tar", "--list", "--file", tarball))
	var files []string
	for _, name := range list {
		if !strings.HasSuffix(name, "/") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	if want := []string{"etc/ssl/certs/ca-certificates.crt", "tiwkeyd"}; !slices.Equal(files, want) {
		t.Errorf("the image holds %q, want %q", files, want)
	}
	var facts []imageFacts
	h.inspect("image", image, &facts)
	if facts[0].Config.User != "65532:65532" {
		t.Errorf("it runs as %q", facts[0].Config.User)
	}
	if out := h.podman(slices.Concat([]string{"run", "--rm", "--network", "none"}, hardened, []string{image, "version"})...); !strings.Contains(out, "tiwkeyd 1.2.3-test ") {
		t.Errorf("version says %q", out)
	}
}
