//go:build linux

package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tiwkeyd/internal/doctor"
)

// TestCheckReadOnlyDisk looks at a directory that nobody can write, root neither. It runs in a
// mount namespace of its own.
func TestCheckReadOnlyDisk(t *testing.T) {
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
	for _, fault := range []planted{
		{"little space", func(*clinic) {}, doctor.Directory, doctor.Warn, "0 MiB are free", "free some space", 0},
		{"no space", func(c *clinic) { must(os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 64<<10), 0o600)) }, doctor.Directory, doctor.Fail, "0 MiB are free", "free some space", 2},
		{"read-only", func(*clinic) { must(unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) }, doctor.Directory, doctor.Fail, "make the file system writable", "on a disk that can be written", 2},
	} {
		for _, dir := range []string{disk, filepath.Join(disk, "not", "there", "yet")} {
			c := &clinic{rig: newRig(t)}
			c.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
			c.set("TIWKEYD_STORE=file://"+dir, "TIWKEYD_PROPAGATION=6m", "TIWKEYD_SCHEDULE=0 3 * * *")
			fault.plant(c)
			all, code := c.findings()
			c.found(fault, all, code)
		}
	}
	left, err := os.ReadDir(disk)
	must(err)
	if len(left) != 1 {
		t.Errorf("check wrote in the directory: %v", left)
	}
}

// TestCheckLost: a report of which a line was lost is no good news.
func TestCheckLost(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	lines := &findingLines{out: full}
	if lines.print(doctor.Finding{Check: doctor.Vault, What: "it answers"}); lines.err == nil {
		t.Error("nobody is told")
	}
}
