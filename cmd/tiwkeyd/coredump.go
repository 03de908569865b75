package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// keepOutOfCoreDumps makes the process undumpable: its memory holds keys.
func keepOutOfCoreDumps() error {
	return errors.Join(
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
	)
}
