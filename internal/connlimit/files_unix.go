//go:build unix

package connlimit

import "syscall"

// files asks the system. The runtime has raised the limit as far as it may be by now.
func files() int {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return enough
	}
	return int(min(uint64(r.Cur), 1<<20)) //nolint:gosec,unconvert // it is signed on some systems
}
