//go:build linux

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tiwkeyd/secrets/file"
)

// TestFileStoreTrouble fills the disk under a running daemon and makes it read-only: nothing
// is set at Tencent that could not be written first, and it goes on when the disk is mended.
// It runs in a mount namespace of its own, on a small file system.
func TestFileStoreTrouble(t *testing.T) {
	slow(t)
	t.Parallel()
	if os.Getenv("TEST_ON_SMALL_DISK") == "" {
		inMountNamespace(t, io.Discard)
		return
	}
	disk := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("tmpfs", disk, "tmpfs", 0, "size=96k,mode=0700"))
	t.Cleanup(func() { must(unix.Unmount(disk, unix.MNT_DETACH)) })
	r := newRig(t)
	store, err := file.Open(filepath.Join(disk, "keys"))
	must(err)
	r.store = store
	r.env = append(r.env, "TIWKEYD_STORE="+store.String())
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.load(200)
	d := r.daemon()
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })

	filler := filepath.Join(disk, "filler")
	fill := func() {
		f, err := os.Create(filler)
		must(err)
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		must(f.Close())
	}
	for _, trouble := range []struct {
		name, says  string
		begin, mend func()
	}{
		{"disk full", "free some space", fill, func() { must(os.Remove(filler)) }},
		{"read-only", "make the file system writable", func() { must(unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) },
			func() { must(unix.Mount("", disk, "", unix.MS_REMOUNT, "")) }},
	} {
		before, sets, seen := r.currentID(), r.setCalls(), len(d.String())
		trouble.begin()
		d.signal(syscall.SIGUSR1)
		r.await(trouble.name+": the daemon says what is wrong", func() bool { return strings.Contains(d.String()[seen:], trouble.says) })
		out, code := r.run([]string{"rotate"})
		if code != exitUnsettled || !strings.Contains(out, trouble.says) || !strings.Contains(out, "nothing was changed") {
			t.Errorf("%s: rotate: %d\n%s", trouble.name, code, out)
		}
		if r.setCalls() != sets {
			t.Errorf("%s: something was set at Tencent", trouble.name)
		}
		trouble.mend()
		r.await(trouble.name+": the rotation is done when it is mended", func() bool { return r.settled() && r.currentID() != before })
	}
}

// inMountNamespace runs the test that calls it in another process, where it may mount. What that
// prints is shown at the end if it fails, and to watch at once.
func inMountNamespace(t *testing.T, watch io.Writer) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), "TEST_ON_SMALL_DISK=1")
	runtime.LockOSThread() // the parent of Pdeathsig is this thread
	defer runtime.UnlockOSThread()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	}
	var out output
	c.Stdout = io.MultiWriter(&out, watch)
	c.Stderr = c.Stdout
	if err := c.Run(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace of its own: %v\n%s", err, out.String())
	}
}
