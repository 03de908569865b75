package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestVaultTrouble has Vault seal itself, restart, deny and forget the token under a running
// daemon. While the keyring cannot be written nothing is set at Tencent; when Vault is well
// again the daemon goes on by itself.
func TestVaultTrouble(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	r := newRig(t)
	tokenFile := r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.load(200)
	d := r.daemon()
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })

	good := readmePolicy(t)
	for _, trouble := range []struct {
		name, says   string
		begin, mend  func()
		duringTheWay bool // begins after the new key was written
	}{
		{"slow", "did not answer in time", v.Freeze, v.Thaw, false},
		{"sealed", "unseal it", v.Seal, v.Unseal, false},
		{"sealed while receivers come to accept a key", "unseal it", v.Seal, v.Unseal, true},
		{"restarted", "check VAULT_ADDR", v.Stop, v.Restart, false},
		{"stopped while receivers come to accept a key", "check VAULT_ADDR", v.Stop, v.Restart, true},
		{"policy denied", "lacks the capability create and update", func() {
			v.Policy("tiwkeyd", `path "secret/data/tiw/*" { capabilities = ["read"] }`)
		}, func() { v.Policy("tiwkeyd", good) }, false},
		{"token lost", "not valid any more", func() {
			old, err := os.ReadFile(tokenFile)
			if err != nil {
				t.Fatal(err)
			}
			v.Revoke(string(old))
		}, func() {
			fresh := v.NewToken("tiwkeyd", "2h")
			r.secret(fresh)
			if err := os.WriteFile(tokenFile, []byte(fresh), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		before, sets, seen := r.currentID(), r.setCalls(), len(d.String())
		if trouble.duringTheWay {
			d.signal(syscall.SIGUSR1)
			r.await("a key is pending", func() bool { k := r.keyring(); return k != nil && k.Pending() != nil })
			trouble.begin()
		} else {
			trouble.begin()
			d.signal(syscall.SIGUSR1)
		}
		r.await(trouble.name+": the daemon says what is wrong", func() bool { return strings.Contains(d.String()[seen:], trouble.says) })
		if r.setCalls() != sets {
			t.Errorf("%s: something was set at Tencent", trouble.name)
		}
		trouble.mend()
		r.await(trouble.name+": the rotation is done when it is mended", func() bool { return r.settled() && r.currentID() != before })
	}
	out, code := func() (string, int) {
		v.Seal()
		defer v.Unseal()
		return r.run([]string{"rotate"})
	}()
	if code != exitUnsettled || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "unseal it") {
		t.Errorf("rotate with a sealed Vault: %d\n%s", code, out)
	}
}

// TestSignals are those of a daemon.
func TestSignals(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	env := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("TIWKEYD_KEY_LENGTH=40\n")
	d := r.start([]string{"run", "--env-file", env})
	r.awaitOutput(d, "serves these targets")
	length := func() int { return len(r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))) }
	r.await("a rotation", func() bool { return r.settled() && length() == 40 })

	write("TIWKEYD_KEY_LENGTH=7\n")
	d.signal(syscall.SIGHUP)
	r.awaitOutput(d, "the old one goes on")
	r.awaitOutput(d, "TIWKEYD_KEY_LENGTH: 7 is outside 32 to 64")
	// What shows only when the parts are made is as good a reason to keep the old ones.
	for n, bad := range []string{"TIWKEYD_ON_DRIFT=x", "TIWKEYD_TENCENT_CREDENTIALS=vault:secret/x\nVAULT_TOKEN=t\nVAULT_CACERT=/nope", "TIWKEYD_SPLAY=TZ=UTC", "not a variable {"} {
		write("TIWKEYD_KEY_LENGTH=40\n" + bad + "\n")
		d.signal(syscall.SIGHUP)
		r.await("it refuses "+bad, func() bool { return strings.Count(d.String(), "the old one goes on") == n+2 || d.exited() })
	}
	d.signal(syscall.SIGUSR1)
	before := r.currentID()
	r.await("a rotation with the old configuration", func() bool { return r.settled() && r.currentID() != before && length() == 40 })

	write("TIWKEYD_KEY_LENGTH=48\n")
	d.signal(syscall.SIGHUP)
	r.awaitOutput(d, `"msg":"reloaded"`)
	r.await("it serves again", func() bool { return strings.Count(d.String(), "serves these targets") == 2 })
	d.signal(syscall.SIGUSR1)
	r.await("a rotation with the new configuration", func() bool { return r.settled() && length() == 48 })
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d.signal(s)
		<-d.done
		if d.code != 0 || !strings.Contains(d.String(), `"msg":"stopped"`) {
			t.Errorf("%s: %d\n%s", s, d.code, tail(d.String()))
		}
		d = r.daemon()
	}
}

// TestMissedRun is made up for at start: the schedule's time passed while nobody ran.
func TestMissedRun(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.rotated()
	before := r.currentID()
	old := r.keyring()
	old.RotatedAt = old.RotatedAt.AddDate(-2, 0, 0)
	s, err := r.store.Read(t.Context(), testTarget)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Write(t.Context(), testTarget, old, s.Version); err != nil {
		t.Fatal(err)
	}
	d := r.daemon()
	if !strings.Contains(d.String(), `"next":"20`) {
		t.Errorf("the announcement does not tell the next run:\n%s", d)
	}
	r.await("the missed run", func() bool { return r.settled() && r.currentID() != before })
}

// TestBadInputs: exit status 2, the variable named, nothing contacted.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var contacts atomic.Int32
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			contacts.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-accepting })
	r := newRig(t)
	here := "http://" + l.Addr().String()
	r.env = append(r.env, "VAULT_ADDR="+here, "VAULT_TOKEN=t", "TIWKEYD_TENCENT_ENDPOINT="+here)
	for _, c := range []struct{ set, want string }{
		{"TIWKEYD_TARGETS=", "TIWKEYD_TARGETS"}, {"TIWKEYD_TARGETS=0", "positive"}, {"TIWKEYD_TARGETS=-1", "positive"}, {"TIWKEYD_TARGETS=9223372036854775808", "whole number"},
		{"TIWKEYD_TARGETS=1/chat", "whiteboard-push, online-record"}, {"TIWKEYD_KEY_LENGTH=31", "TIWKEYD_KEY_LENGTH"}, {"TIWKEYD_KEY_LENGTH=65", "TIWKEYD_KEY_LENGTH"},
		{"TIWKEYD_SCHEDULE=never", "TIWKEYD_SCHEDULE"}, {"TIWKEYD_TENCENT_ENDPOINT=http://tiw.tencentcloudapi.com", "https://"}, {"TIWKEYD_GRACE=1m", "TIWKEYD_GRACE"},
		{"TIWKEYD_PROPAGATION=soon", "TIWKEYD_PROPAGATION"}, {"TIWKEYD_STORE=ftp://x", "TIWKEYD_STORE"}, {"TIWKEYD_RATE=-1", "TIWKEYD_RATE"}, {"TIWKEYD_LOG_LEVEL=x", "TIWKEYD_LOG_LEVEL"},
		{"TIWKEYD_SCHEDULE=CRON_TZ=UTC", "TIWKEYD_SCHEDULE"}, {"TIWKEYD_SPLAY=-1m", "TIWKEYD_SPLAY"}, {"TIWKEYD_RECONCILE=1ms", "TIWKEYD_RECONCILE"}, {"TIWKEYD_VAULT_MOUNT=a b", "TIWKEYD_VAULT_MOUNT"},
		{"TIWKEYD_VAULT_PREFIX=..", "TIWKEYD_VAULT_PREFIX"}, {"TIWKEYD_VAULT_KEEP_VERSIONS=2", "TIWKEYD_VAULT_KEEP_VERSIONS"}, {"TIWKEYD_TENCENT_REGION=a b", "TIWKEYD_TENCENT_REGION"}, {"TIWKEYD_TENCENT_SITE=china", "TIWKEYD_TENCENT_SITE"},
		{"TIWKEYD_LOG_FORMAT=x", "TIWKEYD_LOG_FORMAT"}, {"VAULT_ADDR=http://u:p@127.0.0.1", "VAULT_ADDR"}, {"VAULT_AUTH_METHOD=magic", "VAULT_AUTH_METHOD"}, {"TIWKEYD_ATTEMPT_LIMIT=x", "TIWKEYD_ATTEMPT_LIMIT"}, {"TIWKEYD_ON_DRIFT=x", "TIWKEYD_ON_DRIFT"}, {"TIWKEYD_TENCENT_CREDENTIALS=x", "TIWKEYD_TENCENT_CREDENTIALS"},
	} {
		for _, command := range []string{"run", "rotate", "status"} {
			out, code := r.run([]string{command}, c.set, "TIWKEYD_STORE=vault", c.set)
			if code != exitUsage || !strings.Contains(out, c.want) || !strings.HasPrefix(out, "tiwkeyd: ") {
				t.Errorf("%s with %s: %d\n%s", command, c.set, code, out)
			}
		}
		if out, code := r.run([]string{"check"}, c.set, "TIWKEYD_STORE=vault", c.set); code != exitUsage || !strings.Contains(out, c.want) || !strings.Contains(out, "FAIL  configuration  ") {
			t.Errorf("check with %s: %d\n%s", c.set, code, out)
		}
	}
	for _, args := range [][]string{{"dance"}, {"run", "extra"}, {"rotate", "7"}, {"rotate", "x"}, {"rotate", "--odd"}, {"status", "x"}, {"check", "x"}, {"check", "--odd"}, {"demo", "--rotations", "-1"}, {"rotate", "--revoke", "--no-wait"},
		{"rotate", "--timeout", "-1s"}, {"run", "--env-file", "/does/not/exist"}} {
		if out, code := r.run(args); code != exitUsage || out == "" {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
	// What is wrong is told all at once.
	if out, _ := r.run([]string{"run"}, "TIWKEYD_KEY_LENGTH=1", "TIWKEYD_GRACE=1s", "TIWKEYD_TARGETS=0"); strings.Count(out, "tiwkeyd: TIWKEYD_") != 3 {
		t.Errorf("not three errors:\n%s", out)
	}
	if n := contacts.Load(); n != 0 {
		t.Errorf("something was contacted %d times", n)
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--help"}, "Available Commands"}, {[]string{"run", "--help"}, "TIWKEYD_PROPAGATION (default 6m)"}, {[]string{"rotate", "--help"}, "Exit status"},
		{[]string{"demo", "--help"}, "--rotations"}, {[]string{"status", "--help"}, "--json"}, {[]string{"check", "--help"}, "Exit status: 0 nothing failed; 2 something did"}, {[]string{"version"}, "tiwkeyd "}, {[]string{"version", "--json"}, `"go":"go1`},
		{[]string{"completion", "bash"}, "bash completion"},
	} {
		if out, code := r.run(c.args); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%v: %d, %q is not in:\n%s", c.args, code, c.want, out)
		}
	}
}

func TestDemo(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	out, code := r.run([]string{"demo", "--rotations", "4"})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if code != 0 || !strings.HasPrefix(last, "rotations=4 callbacks=") || !strings.HasSuffix(last, " refused=0") {
		t.Errorf("%d\n%s", code, out)
	}
	if !strings.Contains(out, "rolled_back=1") {
		t.Errorf("no fault showed:\n%s", out)
	}
}

// TestNoCoreDump: the memory, which holds keys, is not written to disk at a crash.
func TestNoCoreDump(t *testing.T) {
	t.Parallel()
	needsProc(t)
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.cmd.Process.Pid))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("%v\n%s", err, limits)
	}
}
