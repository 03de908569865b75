package private

import (
	"os"

	"golang.org/x/sys/unix"
)

// handedOut reports whether a file is in memory, or on a mount of its own that cannot be written to. The root's mount
// is no such one: systemd's ProtectSystem= and a container's read-only root make it so for all that a host has.
func handedOut(f *os.File) bool {
	var of unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &of) != nil {
		return false
	}
	if of.Type == unix.TMPFS_MAGIC || of.Type == unix.RAMFS_MAGIC {
		return true
	}
	own := mount(int(f.Fd()), "")
	return of.Flags&unix.ST_RDONLY != 0 && (own == 0 || own != mount(unix.AT_FDCWD, "/"))
}

// mount is the number of the mount that a file is on, 0 if the system does not tell.
func mount(dir int, path string) uint64 {
	var of unix.Statx_t
	if unix.Statx(dir, path, unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &of) != nil || of.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return of.Mnt_id
}
