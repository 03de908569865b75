package connlimit

import (
	"errors"
	"log/slog"
	"syscall"
)

// enough is how many files a process needs to be able to open if it is to go on without worry.
const enough = 256

// Files is how many files the process may have open, of which each connection is one. Where
// they are few, the log says so.
func Files(log *slog.Logger) int {
	n := files()
	if n < enough {
		log.Warn("very few files may be open at a time; it does what it can with them, but raise nofile (ulimit -n, LimitNOFILE=, --ulimit nofile=)", "nofile", n, "needed", enough)
	}
	return n
}

// The shares of the files. What they leave is for standard streams, listeners, the store,
// Tencent, the log and the keyrings' own files.

// Page is how many connections the page, metrics and health of `run` may hold.
func Page(files int) int { return min(max(files/4, 8), 256) }

// Metrics is how many the proxy's metrics and health may hold. Callbacks have their own.
func Metrics(files int) int { return min(max(files/16, 4), 64) }

// Callbacks is how many connections callbacks may come on, and as many more lead to the receiver.
func Callbacks(files int) int {
	reserve := min(max(files/4, 16), 256)
	return min(max((files-reserve)/2, 8), 16384)
}

// outOfFiles reports whether the process, or the machine, has no more descriptors.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
