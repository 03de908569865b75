package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// keepOutOfCoreDumps has the process leave no core dump: its memory holds keys.
func keepOutOfCoreDumps() error {
	return errors.Join(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}), undumpable())
}
