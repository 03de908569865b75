package private

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandedOut: root's files in memory, or on a read-only mount of their own, may be read by others, which costs one
// warning for each file; they may not be written by others, nor be anybody else's.
func TestHandedOut(t *testing.T) {
	if os.Getenv("PRIVATE_MOUNTS") == "" { // mounts are made where nobody else sees them
		c := exec.Command(os.Args[0], "-test.run=^TestHandedOut$", "-test.v")
		c.Env = append(os.Environ(), "PRIVATE_MOUNTS=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := c.CombinedOutput()
		if err != nil && (os.IsPermission(err) || strings.Contains(err.Error(), "not permitted")) {
			t.Skip("this machine makes no mount namespace")
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	log := heard(t)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	must(t, os.Chmod(filepath.Dir(base), 0o711))
	for _, place := range []struct {
		name   string
		mount  func(dir string) error
		seal   func(dir string) error
		handed bool
	}{
		{"a disk", nil, nil, false},
		{"tmpfs", func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }, nil, true},
		{"ramfs", func(dir string) error { return unix.Mount("ramfs", dir, "ramfs", 0, "") }, nil, true},
		{"bound", func(dir string) error { return unix.Mount(dir, dir, "", unix.MS_BIND, "") }, nil, false},
		{"bound, read-only", func(dir string) error { return unix.Mount(dir, dir, "", unix.MS_BIND, "") },
			func(dir string) error {
				return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
			}, true},
	} {
		for mode, c := range map[os.FileMode]struct{ readable, writable bool }{0o600: {}, 0o400: {}, 0o440: {readable: true}, 0o640: {readable: true}, 0o444: {readable: true}, 0o644: {readable: true}, 0o666: {true, true}, 0o660: {true, true}} {
			for _, as := range [][2]int{{0, 0}, {0, 12345}, {12345, 0}, {12345, 12345}, {12345, 54321}} { // who runs this, and whose the file is
				us, owner := as[0], as[1]
				dir := filepath.Join(base, "d")
				must(t, os.MkdirAll(dir, 0o755))
				if place.mount != nil {
					must(t, place.mount(dir))
				}
				path := put(t, dir, mode, owner)
				if place.seal != nil {
					must(t, place.seal(dir))
				}
				told.Clear()
				log.Reset()
				good := (owner == 0 || owner == us) && !c.writable && (!c.readable || place.handed && owner == 0)
				if us != 0 && owner == 0 && !c.readable {
					good = false // the system's own doing
				}
				must(t, syscall.Seteuid(us))
				for range 3 {
					if got, err := ReadFile(path, 100); (err == nil) != good || good && string(got) != canary {
						t.Errorf("%s, mode %04o, user %d, as %d: %v", place.name, mode, owner, us, err)
					}
				}
				must(t, syscall.Seteuid(0))
				warned := strings.Count(log.String(), "level=WARN")
				if want := good && c.readable; want != (warned == 1) || warned > 1 || strings.Contains(log.String(), canary) || want && !strings.Contains(log.String(), path) {
					t.Errorf("%s, mode %04o, user %d, as %d: warned %d times: %s", place.name, mode, owner, us, warned, log)
				}
				if place.mount != nil {
					must(t, unix.Unmount(dir, 0))
				}
			}
		}
	}
	must(t, unix.Mount("tmpfs", filepath.Join(base, "d"), "tmpfs", 0, ""))
	pipe := filepath.Join(base, "d", "pipe")
	must(t, unix.Mkfifo(pipe, 0o644))
	w, err := os.OpenFile(pipe, os.O_RDWR, 0)
	must(t, err)
	_, err = w.WriteString("x")
	must(t, err)
	go func() {
		for { // until it is read
			if n, err := unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ); n == 0 || err != nil {
				break
			}
		}
		_ = w.Close()
	}()
	if _, err := ReadFile(pipe, 100); err == nil || !strings.Contains(err.Error(), "chmod go=") {
		t.Errorf("a pipe: %v", err) // nobody hands these out
	}
	must(t, unix.Unmount(filepath.Join(base, "d"), 0))
	// What is read-only as all of the host is was handed out by nobody: systemd's ProtectSystem=strict.
	path := put(t, base, 0o644, 0)
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Skip("the root's mount cannot be made read-only: ", err)
	}
	defer func() { _ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") }()
	var of unix.Statfs_t
	must(t, unix.Statfs(path, &of))
	if of.Type == unix.TMPFS_MAGIC || of.Flags&unix.ST_RDONLY == 0 {
		t.Skip("the temporary files are elsewhere")
	}
	if _, err := ReadFile(path, 100); err == nil || !strings.Contains(err.Error(), "chmod go=") {
		t.Errorf("under a read-only root: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
