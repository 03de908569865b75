package tencent

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// handedOut reports whether a file was put there by who runs the container or unit, in memory or not to be written to:
// Kubernetes' Secrets, Docker's and systemd's credentials. Their modes are not the user's to choose.
func handedOut(path string) bool {
	var fs unix.Statfs_t
	info, err := os.Stat(path)
	if err != nil || unix.Statfs(path, &fs) != nil {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && owner.Uid == 0 && info.Mode().Perm()&0o022 == 0 && (fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC || fs.Flags&unix.ST_RDONLY != 0)
}
