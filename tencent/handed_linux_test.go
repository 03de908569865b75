package tencent

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandedOut: a file in memory that root put there, as orchestrators do, may be read by others; not written.
func TestHandedOut(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "tiwkeyd")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	memory := os.Getuid() == 0 && fs.Type == unix.TMPFS_MAGIC
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o644: memory, 0o440: memory, 0o664: false, 0o602: false} {
		path := dir + "/credentials"
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte("[default]\nsecret_id = me\nsecret_key = CANARYkey\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if c, err := readProfile(path); (err == nil) != good || good && c.id != "me" {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
