package vaulttest

import (
	"os/exec"
	"syscall"
)

// endWithUs has the system end a child when the thread that starts it ends.
func endWithUs(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
