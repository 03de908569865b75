package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tiwkeyd/internal/doctor"
)

// configurationFaults and storeFaults are on this machine.
func configurationFaults() []planted {
	env := func(env ...string) func(*clinic) { return func(c *clinic) { c.set(env...) } }
	const propagation = "set TIWKEYD_PROPAGATION to the time after which the slowest receiver"
	return []planted{
		{"no targets", env("TIWKEYD_TARGETS="), doctor.Configuration, doctor.Fail, "TIWKEYD_TARGETS: is empty", "set TIWKEYD_TARGETS: what to serve: 1400000001", 2},
		{"bad schedule", env("TIWKEYD_SCHEDULE=at night"), doctor.Configuration, doctor.Fail, `schedule "at night"`, "set TIWKEYD_SCHEDULE: when to rotate: cron (five fields)", 2},
		{"a schedule that never comes", env("TIWKEYD_SCHEDULE=0 0 30 2 *"), doctor.Configuration, doctor.Fail, "never comes", "set TIWKEYD_SCHEDULE", 2},
		{"a zone that is none", env("TZ=Asia/Nowhere"), doctor.Schedule, doctor.Fail, `TZ="Asia/Nowhere" is no time zone, so that times are UTC`, "correct TZ, or unset it", 2},
		{"misspelt variable", env("TIWKEYD_PROPOGATION=0"), doctor.Variables, doctor.Warn, "TIWKEYD_PROPOGATION: it is set and means nothing", "set TIWKEYD_PROPAGATION if that is meant", 0},
		{"a proxy that nothing goes by", env("ALL_PROXY=http://user:secret@proxy:3128"), doctor.Variables, doctor.Warn, "ALL_PROXY: it is set, and nothing here goes by it", "set HTTPS_PROXY", 0},
		{"wrong region syntax", env("TIWKEYD_TENCENT_REGION=ap singapore"), doctor.Configuration, doctor.Fail, "not the name of a region", "set TIWKEYD_TENCENT_REGION: if not the site", 2},
		{"no login", func(c *clinic) { c.env = without(c.env, "VAULT_TOKEN_FILE") }, doctor.Configuration, doctor.Fail, "no way to log in to Vault", "set VAULT_TOKEN, VAULT_TOKEN_FILE", 2},
		{"a CA file that is not there", env("VAULT_CACERT=/nowhere/ca.pem"), doctor.Configuration, doctor.Fail, "/nowhere/ca.pem", "correct the VAULT_… variable", 2},
		{"propagation 0", env("TIWKEYD_PROPAGATION=0"), doctor.Receivers, doctor.Warn, "`tiwkeyd proxy` and the Go package webhook alone", propagation, 0},
		{"propagation shorter than a Vault Agent's", env("TIWKEYD_PROPAGATION=2m"), doctor.Receivers, doctor.Warn, "behind a Vault Agent sees a change up to 5m0s late", propagation, 0},
	}
}

func storeFaults() []planted {
	fileStore := func(prepare func(c *clinic, dir string)) func(*clinic) {
		return func(c *clinic) {
			dir := filepath.Join(c.t.TempDir(), "keys")
			prepare(c, dir)
			c.set("TIWKEYD_STORE=file://" + dir)
		}
	}
	must := func(c *clinic, err error) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
	const mend = "install -d -m 700"
	return []planted{
		{"file store where a file is", fileStore(func(c *clinic, dir string) { must(c, os.WriteFile(dir, nil, 0o600)) }), doctor.Directory, doctor.Fail, "is not a directory", mend, 2},
		{"file store below a file", func(c *clinic) { c.set("TIWKEYD_STORE=file:///dev/null/keys") }, doctor.Directory, doctor.Fail, "/dev/null is not a directory", mend, 2},
		{"file store open to others", fileStore(func(c *clinic, dir string) { must(c, os.Mkdir(dir, 0o700)); must(c, os.Chmod(dir, 0o755)) }), doctor.Directory, doctor.Fail, "can be read by others (mode 0755)", mend, 2},
		{"file store not there yet", fileStore(func(*clinic, string) {}), doctor.Directory, doctor.OK, "it will be made in", "", 0},
		{"file store with a file of somebody else's", fileStore(func(c *clinic, dir string) {
			app := filepath.Join(dir, "1400000001")
			must(c, os.MkdirAll(app, 0o700))
			must(c, os.WriteFile(filepath.Join(app, "whiteboard-push.json"), []byte(`{"callback_key":"`+oldKey+`"}`), 0o600))
		}), doctor.Keyring, doctor.Fail, "is not one of this store", "put the file back from a backup", 2},
	}
}

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
