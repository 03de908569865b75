//go:build linux

package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tiwkeyd/secrets/storetest"
)

func init() { children["mounted"] = mounted }

// mounted runs in a mount namespace of its own: it fills a small real file system, makes it
// read-only, and mends both.
func mounted() int {
	dir := os.Getenv("FILE_TEST_DIR")
	step := func(name string, err error) { fmt.Printf("%s: %v\n", name, err) }
	step("private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	step("mount", unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"))
	s, err := Open(filepath.Join(dir, "keys"))
	if err != nil {
		step("open", err)
		return 1
	}
	write := func(name string, n int) {
		read, err := s.Read(context.Background(), childTarget)
		step(name+" read", err)
		_, err = s.Write(context.Background(), childTarget, storetest.Keyring(childTarget, n), read.Version)
		step(name, err)
	}
	write("at first", 1)
	filler := filepath.Join(dir, "filler")
	for size := 1 << 16; size > 0; size /= 2 {
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = f.Write(make([]byte, size))
			_ = f.Close()
		}
	}
	write("full", 2)
	step("free", os.Remove(filler))
	write("freed", 3)
	step("read-only", unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	write("read-only write", 4)
	step("writable", unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	write("mended", 5)
	read, err := s.Read(context.Background(), childTarget)
	step(fmt.Sprintf("at last version %d", read.Version), err)
	return 0
}

func TestFullAndReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	c := child(t, "mounted", t.TempDir())
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	} else {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	}
	out, err := c.Output()
	if err != nil {
		t.Fatalf("the child, which needs a mount namespace: %v\n%s", err, out)
	}
	for _, want := range []string{
		"mount: <nil>", "at first: <nil>", "full read: <nil>", "no space left on device: free some space", "freed: <nil>",
		"read-only: <nil>", "read-only write read: <nil>", "read-only file system: make the file system writable", "mended: <nil>", "at last version 3: <nil>",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), storetest.Canary) {
		t.Error("the output shows a key")
	}
}
