package main

import (
	"os"
	"path/filepath"

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
