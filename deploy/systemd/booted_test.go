//go:build booted

package systemd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPackage is the life of an installation, from the first to the last command.
func TestPackage(t *testing.T) {
	w := newWorld(t)
	before := files(t)
	w.run("dpkg", "-i", "/opt/parts/tiwkeyd_1.0.0_amd64.deb")
	w.installed()
	w.firstStart()
	w.load()
	w.reload()
	w.demand()
	w.crash()
	w.ended()
	w.approle()
	w.watchdog()
	w.upgrade()
	w.fileStore()
	w.nothingShows()
	w.stop()
	w.uninstall(before)
}

// installed: nothing runs before it is configured, and what systemd thinks of the unit.
func (w *world) installed() {
	w.Helper()
	if state := w.property("ActiveState") + " " + w.property("UnitFileState"); state != "inactive disabled" {
		w.Errorf("after the installation it is %s", state)
	}
	if out := w.run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/tiwkeyd.service"); out != "" {
		w.Errorf("systemd-analyze verify:\n%s", out)
	}
	out := w.run("systemd-analyze", "security", "--no-pager", "tiwkeyd.service")
	score := regexp.MustCompile(`Overall exposure level for tiwkeyd.service: ([0-9.]+) `).FindStringSubmatch(out)
	if score == nil {
		w.Fatalf("systemd-analyze security:\n%s", out)
	}
	version, _, _ := strings.Cut(w.run("systemctl", "--version"), "\n")
	w.Logf("%s; exposure level %s", version, score[1])
	if level, err := strconv.ParseFloat(score[1], 64); err != nil || level > 1.3 {
		w.Errorf("systemd-analyze security:\n%s", out)
	}
	// A wrong configuration is told at once, and nobody has to start it again.
	if out, err := w.try("systemctl", "start", "tiwkeyd"); err == nil {
		w.Errorf("it starts with no configuration: %s", out)
	}
	if got := w.property("SubState") + " " + w.property("ExecMainStatus"); got != "auto-restart 2" || w.said("TIWKEYD_TARGETS: is empty") == 0 {
		w.Errorf("with no configuration it is %s:\n%s", got, w.journal())
	}
}

// firstStart is what docs/operations.md tells to do after the installation.
func (w *world) firstStart() {
	w.Helper()
	w.write(settings, w.env, 0o644)
	w.write(credentials+"vault-token", w.token+"\n", 0o600)
	w.write(credentials+"tencent", "[default]\nsecret_id = "+secretID+"\nsecret_key = "+secretKey+"\n", 0o600)
	w.Logf("check:\n%s", w.run("tiwkeyd", "check", "--env-file", settings))
	w.run("systemctl", "enable", "--now", "tiwkeyd")
	if state := w.property("ActiveState"); state != "active" {
		w.Fatalf("after the start it is %s:\n%s", state, w.journal())
	}
	w.await("the key in force is taken over, and replaced", func() bool { return w.settled("") && !w.keyring().RotatedAt.IsZero() })
	w.await("it tells how it is", func() bool { return strings.HasPrefix(w.property("StatusText"), "1 targets: 1 settled") })
	pid := w.property("MainPID")
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		w.Fatal(err)
	}
	for _, line := range []string{`Uid:\t[1-9][0-9]+`, `CapPrm:\t0+\n`, `CapBnd:\t0+\n`, `NoNewPrivs:\t1`, `Seccomp:\t2`} {
		if !regexp.MustCompile(line).Match(status) {
			w.Errorf("its process has no %s:\n%s", line, status)
		}
	}
}

// reload: a good configuration is taken, a wrong one is not, and the daemon is the same.
func (w *world) reload() {
	w.Helper()
	pid := w.property("MainPID")
	for _, change := range []struct{ line, says string }{{"TIWKEYD_KEY_LENGTH=40\n", `"msg":"reloaded"`}, {"TIWKEYD_KEY_LENGTH=7\n", "the old one goes on"}, {"VAULT_TOKEN=" + w.token + "\n", settings + " can be read by others (mode 0644, of user 0)"}} {
		w.write(settings, w.env+change.line, 0o644)
		w.run("systemctl", "reload", "tiwkeyd")
		w.await("it says "+change.says, func() bool { return w.said(change.says) == 1 })
		w.await("it is ready again", func() bool { return w.property("ActiveState") == "active" })
		if now := w.property("MainPID"); now != pid {
			w.Errorf("after a reload it is process %s, and not %s:\n%s", now, pid, w.journal())
		}
	}
	w.write(settings, w.env+"TIWKEYD_KEY_LENGTH=40\n", 0o644)
}

// demand rotates by the signal.
func (w *world) demand() {
	w.Helper()
	was := w.current()
	w.run("systemctl", "kill", "--signal", "USR1", "tiwkeyd")
	w.await("the signal's rotation", func() bool { return w.settled(was) })
	if n := len(w.keyring().CallbackKey().Reveal()); n != 40 {
		w.Errorf("the key has %d characters: the reload is not in force", n)
	}
}

// begin begins a rotation and gives the pending key.
func (w *world) begin() string {
	w.Helper()
	w.run("systemctl", "kill", "--signal", "USR1", "tiwkeyd")
	w.await("a pending key", func() bool { return w.pending() != "" })
	return w.pending()
}

// crash kills the daemon in the midst of a rotation: it starts again and goes on with it.
func (w *world) crash() {
	w.Helper()
	pending, restarts := w.begin(), w.property("NRestarts")
	w.run("systemctl", "kill", "--signal", "KILL", "tiwkeyd")
	w.await("it is started again", func() bool { return w.property("NRestarts") != restarts && w.property("ActiveState") == "active" })
	w.await("the rotation is brought to its end", func() bool { return w.settled("") && w.current() == pending })
}

// ended ends the daemon in a way that systemd takes for a wish: it starts again.
func (w *world) ended() {
	w.Helper()
	restarts := w.property("NRestarts")
	w.run("systemctl", "kill", "--signal", "TERM", "tiwkeyd")
	w.await("it is started again", func() bool { return w.property("NRestarts") != restarts && w.property("ActiveState") == "active" })
}

// approle has the daemon log in another way, with a credential that was not there at first.
func (w *world) approle() {
	w.Helper()
	role, secret := w.vault.AppRole("tiwkeyd", "tiwkeyd", "1h", "2h")
	w.secret(secret)
	w.write(credentials+"vault-secret-id", secret+"\n", 0o600)
	w.env = strings.Replace(w.env, "VAULT_TOKEN_FILE="+credentials+"vault-token\n", "VAULT_ROLE_ID="+role+"\nVAULT_SECRET_ID_FILE="+credentials+"vault-secret-id\n", 1)
	w.write(settings, w.env, 0o644)
	w.run("systemctl", "restart", "tiwkeyd")
	was := w.current()
	w.run("systemctl", "kill", "--signal", "USR1", "tiwkeyd")
	w.await("a rotation by AppRole", func() bool { return w.settled(was) })
}

// watchdog stops the process: it is killed, and started again.
func (w *world) watchdog() {
	w.Helper()
	const dropIn = "/etc/systemd/system/tiwkeyd.service.d/try.conf"
	if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
		w.Fatal(err)
	}
	w.write(dropIn, "[Service]\nWatchdogSec=4s\n", 0o644)
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "restart", "tiwkeyd")
	restarts, pid := w.property("NRestarts"), w.property("MainPID")
	w.run("systemctl", "kill", "--signal", "STOP", "tiwkeyd")
	w.await("it is started again", func() bool {
		return w.property("NRestarts") != restarts && w.property("ActiveState") == "active" && w.property("MainPID") != pid
	})
	if w.said("Watchdog timeout") != 1 {
		w.Errorf("it was not the watchdog:\n%s", w.journal())
	}
	if err := os.RemoveAll(filepath.Dir(dropIn)); err != nil {
		w.Fatal(err)
	}
	w.run("systemctl", "daemon-reload")
}

// upgrade installs a newer package while a rotation is in hand: it goes on, with the settings.
// The way back is as good.
func (w *world) upgrade() {
	w.Helper()
	pending, pid := w.begin(), w.property("MainPID")
	w.run("dpkg", "-i", "/opt/parts/tiwkeyd_1.0.1_amd64.deb")
	if now := w.property("MainPID"); w.property("ActiveState") != "active" || now == pid {
		w.Errorf("after the upgrade it is %s, process %s:\n%s", w.property("ActiveState"), now, w.journal())
	}
	if w.said(`"version":"1.0.1"`) != 1 {
		w.Errorf("the new version does not run:\n%s", w.journal())
	}
	w.await("the rotation is brought to its end", func() bool { return w.settled("") && w.current() == pending })
	back := w.said(`"version":"1.0.0"`) + 1
	w.run("dpkg", "-i", "/opt/parts/tiwkeyd_1.0.0_amd64.deb")
	if w.property("ActiveState") != "active" || w.said(`"version":"1.0.0"`) != back {
		w.Errorf("after the way back it is %s:\n%s", w.property("ActiveState"), w.journal())
	}
	if text, err := os.ReadFile(settings); err != nil || !strings.HasPrefix(string(text), w.env) {
		w.Errorf("the settings are others: %v\n%s", err, text)
	}
}

// fileStore has another application's keyring in the unit's state directory, which is a link for the daemon's user,
// another one at every start.
func (w *world) fileStore() {
	w.Helper()
	const dropIn, state, app = "/etc/systemd/system/tiwkeyd.service.d/state.conf", "/var/lib/tiwkeyd", 1400000002
	service := string(target.Service)
	w.server.AddApp(app)
	w.server.SetKey(app, service, oldKey)
	if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
		w.Fatal(err)
	}
	w.write(dropIn, "[Service]\nStateDirectory=tiwkeyd\n", 0o644)
	w.write(settings, strings.Replace(w.env, target.String(), strconv.Itoa(app), 1)+"TIWKEYD_STORE=file://"+state+"\n", 0o644)
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "restart", "tiwkeyd")
	w.await("a rotation in the file store", func() bool { return w.server.KeyInForce(app, service) != oldKey })
	w.await("it is settled", func() bool { return strings.HasPrefix(w.property("StatusText"), "1 targets: 1 settled") })
	link, err := os.Lstat(state)
	dir, statErr := os.Stat(state)
	if err != nil || statErr != nil || link.Mode()&os.ModeSymlink == 0 || dir.Mode().Perm() != 0o700 {
		w.Errorf("the state directory is %v, %v (%v, %v)", link, dir, err, statErr)
	}
	before := w.server.KeyInForce(app, service)
	w.run("systemctl", "restart", "tiwkeyd")
	w.run("systemctl", "kill", "--signal", "USR1", "tiwkeyd")
	w.await("a rotation by another user", func() bool { return w.server.KeyInForce(app, service) != before })
	w.run("systemctl", "stop", "tiwkeyd")
	if err := errors.Join(os.Remove(state), os.RemoveAll("/var/lib/private"), os.RemoveAll(filepath.Dir(dropIn))); err != nil {
		w.Fatal(err)
	}
	w.write(settings, w.env, 0o644)
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "start", "tiwkeyd")
}

// stop: within TimeoutStopSec= the daemon ends by itself, or the result would be another.
func (w *world) stop() {
	w.Helper()
	w.run("systemctl", "stop", "tiwkeyd")
	if got := w.property("ActiveState") + " " + w.property("Result") + " " + w.property("ExecMainStatus"); got != "inactive success 0" {
		w.Errorf("after the stop it is %s:\n%s", got, w.journal())
	}
}

// nothingShows: no key and no credential is in the journal, or in what systemd tells of the unit.
func (w *world) nothingShows() {
	w.Helper()
	text := w.run("journalctl", "--no-pager", "--output", "export", "--all") + w.run("systemctl", "show", "tiwkeyd") + w.run("systemctl", "status", "--no-pager", "--full", "tiwkeyd")
	if len(w.secrets) < 9 || !strings.Contains(text, w.current()) {
		w.Errorf("%d secrets are known, and the key's id %s is to be seen: %t", len(w.secrets), w.current(), strings.Contains(text, w.current()))
	}
	for s := range w.secrets {
		if strings.Contains(text, s) {
			w.Error("a secret shows")
		}
	}
	if strings.Contains(text, "Permission denied") || strings.Contains(text, "SIGSYS") {
		w.Errorf("something was denied:\n%s", w.journal())
	}
}

// uninstall leaves what the administrator wrote, and a purge nothing at all.
func (w *world) uninstall(before []string) {
	w.Helper()
	override := "/etc/systemd/system/tiwkeyd.service.d"
	if err := os.MkdirAll(override, 0o755); err != nil {
		w.Fatal(err)
	}
	w.write(override+"/override.conf", "[Service]\nEnvironment=A=B\n", 0o600)
	w.run("systemctl", "mask", "tiwkeyd")
	w.run("dpkg", "-r", "tiwkeyd")
	if state := w.property("LoadState") + " " + w.property("ActiveState"); state != "masked inactive" {
		w.Errorf("after the removal it is %s", state)
	}
	left := added(before, files(w.T))
	w.Logf("after the removal there is %q", left)
	if !slices.Equal(left, []string{"/etc/systemd/system/multi-user.target.wants/tiwkeyd.service", "/etc/systemd/system/tiwkeyd.service", override, override + "/override.conf", "/etc/tiwkeyd", "/etc/tiwkeyd/credentials", credentials + "tencent", credentials + "vault-secret-id", credentials + "vault-token", settings}) {
		w.Errorf("after the removal there is %q", left)
	}
	w.run("dpkg", "-P", "tiwkeyd")
	if left := added(before, files(w.T)); len(left) > 0 {
		w.Errorf("after the purge there is %q", left)
	}
	if state := w.property("LoadState"); state != "not-found" {
		w.Errorf("after the purge it is %s", state)
	}
}

// files lists all there are, but for the records of the package manager and of the journal.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if slices.Contains([]string{"/proc", "/sys", "/dev", "/run", "/tmp", "/opt", "/var/lib/dpkg", "/var/log/journal", "/var/tmp"}, path) {
			return fs.SkipDir
		}
		if err == nil {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func added(before, after []string) []string {
	var all []string
	for _, path := range after {
		if !slices.Contains(before, path) && path != "/var/log/dpkg.log" {
			all = append(all, path)
		}
	}
	return all
}
