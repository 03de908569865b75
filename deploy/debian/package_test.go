//go:build deploy

// Package debian tries how the Debian package is built; deploy/systemd tries what it does.
package debian

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPackage builds the package twice: both are the same, and lintian has nothing to say.
func TestPackage(t *testing.T) {
	var built [2][]byte
	var path string
	for i := range built {
		dir := t.TempDir()
		run(t, "./build", "1.2.3", dir)
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("it built %q, %v", all, err)
		}
		path = all[0]
		if built[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("two builds give two packages")
	}
	t.Logf("%s: %d bytes, SHA-256 %x", filepath.Base(path), len(built[0]), sha256.Sum256(built[0]))
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Fatal("there is no lintian to judge the package: apt-get install lintian")
	}
	if out := run(t, "lintian", "--allow-root", "--fail-on", "error,warning", path); out != "" {
		t.Errorf("lintian says:\n%s", out)
	}

	tree := t.TempDir()
	run(t, "dpkg-deb", "-x", path, tree)
	for _, want := range []struct {
		path string
		mode os.FileMode
	}{{"usr/bin/tiwkeyd", 0o755}, {"etc/tiwkeyd/tiwkeyd.env", 0o644}, {"etc/tiwkeyd/credentials", os.ModeDir | 0o700}} {
		info, err := os.Stat(filepath.Join(tree, want.path))
		if err != nil || info.Mode() != want.mode {
			t.Errorf("%s: %v, %v", want.path, info, err)
		}
	}
	rules, err := os.ReadFile(filepath.Join(tree, "usr/share/tiwkeyd/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := strings.Count(string(rules), "- alert: ")
	for _, m := range regexp.MustCompile(`runbook_url: file://(.*)#(.*)`).FindAllStringSubmatch(string(rules), -1) {
		page, err := os.ReadFile(filepath.Join(tree, m[1]))
		if alerts--; err != nil || !strings.Contains(strings.ToLower(string(page)), "\n### "+m[2]+"\n") {
			t.Errorf("an alert leads to %s#%s: %v", m[1], m[2], err)
		}
	}
	if alerts != 0 {
		t.Errorf("%d alerts lead nowhere", alerts)
	}
	if got := run(t, "dpkg-deb", "-f", path, "Version"); got != "1.2.3\n" {
		t.Errorf("its version is %s", got)
	}
	if got := run(t, filepath.Join(tree, "usr/bin/tiwkeyd"), "version"); !strings.HasPrefix(got, "tiwkeyd 1.2.3 ") {
		t.Errorf("it says of itself: %s", got)
	}
	// Every command has a page, and the example's variables are ones that there are.
	for _, page := range []string{"tiwkeyd", "tiwkeyd-run", "tiwkeyd-rotate", "tiwkeyd-check", "tiwkeyd-status"} {
		if _, err := os.Stat(filepath.Join(tree, "usr/share/man/man1", page+".1.gz")); err != nil {
			t.Error(err)
		}
	}
	help := run(t, filepath.Join(tree, "usr/bin/tiwkeyd"), "run", "--help")
	example, err := os.ReadFile(filepath.Join(tree, "etc/tiwkeyd/tiwkeyd.env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(example)) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "#"), "="); ok && strings.HasPrefix(name, "TIWKEYD_") && !strings.Contains(help, "  "+name) {
			t.Errorf("the example names %s, and `tiwkeyd run --help` does not", name)
		}
	}
}

// TestRunbookURL: the alerts of a package lead where its builder says, if that is an address.
func TestRunbookURL(t *testing.T) {
	for _, bad := range []string{"wiki", "https://", "https://wiki.example/a#b", "https://wiki.example/|e id|", "ftp://wiki.example/", "https://wiki.example/\nhttps://x"} {
		t.Setenv("RUNBOOK_URL", bad)
		out, err := exec.Command("./build", "1.2.3", t.TempDir()).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "RUNBOOK_URL") {
			t.Errorf("%q: %v, %s", bad, err, out)
		}
	}
	t.Setenv("RUNBOOK_URL", "https://wiki.example/tiwkeyd?page=1")
	dir, tree := t.TempDir(), t.TempDir()
	run(t, "./build", "1.2.3", dir)
	all, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	run(t, "dpkg-deb", "-x", all[0], tree)
	rules, err := os.ReadFile(filepath.Join(tree, "usr/share/tiwkeyd/rules.yaml"))
	if err != nil || strings.Count(string(rules), "runbook_url: https://wiki.example/tiwkeyd?page=1#tiwkeyd") != strings.Count(string(rules), "- alert: ") {
		t.Errorf("%v\n%s", err, rules)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
