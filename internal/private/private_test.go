package private

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const canary = "CANARY-of-the-file"

func put(t *testing.T, dir string, mode os.FileMode, owner int) string {
	t.Helper()
	path := filepath.Join(dir, "f")
	_ = os.Remove(path)
	if err := os.WriteFile(path, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	if owner != 0 {
		if err := os.Chown(path, owner, -1); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// disk gives a directory that is neither in memory nor read-only, with which the rule is the ordinary one.
func disk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if handedOut(f) {
		t.Skip("the directory of temporary files is in memory: set TMPDIR to one on a disk")
	}
	return dir
}

// TestRule is the rule on an ordinary file system: the message names the file, its mode and owner, and what mends it.
func TestRule(t *testing.T) {
	t.Parallel()
	dir := disk(t)
	for _, c := range []struct {
		mode   os.FileMode
		owner  int // 0: who runs this
		any    string
		secret string
	}{
		{0o600, 0, "", ""}, {0o400, 0, "", ""}, {0o700, 0, "", ""}, {0o500, 0, "", ""}, {0o711, 0, "", ""},
		{0o640, 0, "", "chmod go= "}, {0o604, 0, "", "chmod go= "}, {0o444, 0, "", "chmod go= "}, {0o755, 0, "", "chmod go= "},
		{0o620, 0, "chmod go-w ", ""}, {0o602, 0, "chmod go-w ", ""}, {0o666, 0, "chmod go-w ", ""}, {0o664, 0, "chmod go-w ", ""},
		{0o600, 12345, "belongs to user 12345", ""}, {0o644, 12345, "belongs to user 12345", ""}, {0o666, 12345, "belongs to user 12345", ""},
	} {
		if c.owner != 0 && os.Geteuid() != 0 {
			continue
		}
		path := put(t, dir, c.mode, c.owner)
		f, err := Read(path, 100)
		for what, got := range map[string]struct {
			err  error
			want string
		}{"without a secret": {err, c.any}, "with one": {f.Secret(), c.secret}} {
			switch {
			case (got.err == nil) != (got.want == ""):
				t.Errorf("%s, mode %04o, user %d: %v", what, c.mode, c.owner, got.err)
			case got.err == nil:
			case !strings.Contains(got.err.Error(), got.want) || !strings.Contains(got.err.Error(), path) || !strings.Contains(got.err.Error(), "mode 0"):
				t.Errorf("%s, mode %04o, user %d: %v", what, c.mode, c.owner, got.err)
			case strings.Contains(got.err.Error(), canary):
				t.Errorf("%v shows the secret", got.err)
			}
		}
		content, err := ReadFile(path, 100)
		if good := c.any+c.secret == ""; good != (err == nil) || good != (string(content) == canary) {
			t.Errorf("mode %04o, user %d: %q, %v", c.mode, c.owner, content, err)
		}
	}
}

// TestLinks: the rule is for the file that a link leads to, as Kubernetes makes them.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir := disk(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	put(t, dir, 0o644, 0)
	if _, err := ReadFile(link, 100); err == nil || !strings.Contains(err.Error(), "chmod go= "+link) {
		t.Error(err)
	}
	put(t, dir, 0o600, 0)
	if got, err := ReadFile(link, 100); err != nil || string(got) != canary {
		t.Errorf("%q, %v", got, err)
	}
}

// TestKinds: what is no file is refused, a pipe is read to its end, and one at whose other end is nobody is not
// waited for.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "is not a file", "/dev/zero": "is not a file", filepath.Join(dir, "none"): "no such file"} {
		if _, err := ReadFile(path, 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFile(pipe, 100); err == nil || !strings.Contains(err.Error(), "nobody writes to") || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	patience = 20 * time.Millisecond
	if _, err := ReadFile(pipe, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("whoever holds the other end says nothing: %v", err)
	}
	patience = time.Minute
	for range 2 {
		if _, err := w.WriteString(strings.Repeat("x", 60)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadFile(pipe, 100); err == nil || !strings.Contains(err.Error(), "larger") { // it does not end
		t.Error(err)
	}
	_ = w.Close()
	for text, want := range map[string]string{"\ufeff" + canary: canary, "\ufeff": "", "\xff\xfea\x00": "!UTF-16", "\xfe\xff\x00a": "!UTF-16", strings.Repeat("x", 101): "!larger"} {
		path := put(t, dir, 0o600, 0)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path, 100)
		if cause, wrong := strings.CutPrefix(want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), cause) || !strings.Contains(err.Error(), path) || got != nil {
				t.Errorf("%q: %q, %v", text, got, err)
			}
		} else if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// heard has slog's default log until the test's end.
func heard(t *testing.T) *bytes.Buffer {
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	return &log
}
