package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
)

const tooMany = "no store holds so many"

// TestCrowdedSettings: of all targets. Too many keys are refused at start and by check, many are warned of.
func TestCrowdedSettings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, command := range []string{"run", "check", "status"} {
		out, code := r.run([]string{command}, "TIWKEYD_SCHEDULE=@every 1m", "TIWKEYD_GRACE=24h", "TIWKEYD_RATE=?")
		if code != exitUsage || !strings.Contains(out, `"@every 1m" replaces more than 500 keys within TIWKEYD_GRACE (24h), and `+tooMany) || !strings.Contains(out, "TIWKEYD_SCHEDULE") || !strings.Contains(out, "TIWKEYD_RATE") {
			t.Errorf("%s: %d\n%s", command, code, out)
		}
	}
	for _, c := range []struct {
		grace string
		warns bool
	}{{"24h", false}, {"100h", true}} {
		env := []string{"TIWKEYD_SCHEDULE=@every 1h", "TIWKEYD_GRACE=" + c.grace}
		out, _ := r.run([]string{"check"}, env...)
		if strings.Contains(out, "keys or more accepted at a time → rotate less often, or shorten the grace") != c.warns {
			t.Errorf("%s: check\n%s", c.grace, out)
		}
		d := r.daemon(env...)
		d.signal(syscall.SIGTERM)
		<-d.done
		if strings.Contains(d.String(), manyKeys) != c.warns || d.code != 0 {
			t.Errorf("%s: %d\n%s", c.grace, d.code, d)
		}
	}
}

// TestCrowdedTarget: of one target. What set and enroll are asked for they refuse; what an older program
// wrote is served.
func TestCrowdedTarget(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.env = append(r.env, "TIWKEYD_SCHEDULE=@every 4h", "TIWKEYD_GRACE="+(speed*24*time.Hour).String())
	target := testTarget.String()
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	list := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(list, []byte("target,schedule\n"+target+",@every 2m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := r.run([]string{"enroll", "--from-file", list}); code != exitUsage || !strings.Contains(out, tooMany) || r.keyring() != nil {
		t.Errorf("enroll: %d\n%s", code, out)
	}
	r.finishes(nil, "enroll", target)
	set := func(code int, says string, pairs ...string) {
		t.Helper()
		before := r.keyring()
		out, got := r.run(append([]string{"set", target}, pairs...))
		changed := r.keyring().Revision != before.Revision
		if got != code || changed != (code == 0) || !strings.Contains(out, says) || (says == "" && strings.Contains(out, manyKeys)) {
			t.Errorf("set %q: %d, changed: %t\n%s", pairs, got, changed, out)
		}
	}
	set(0, "", "grace=48h")
	set(0, manyKeys, "grace=400h")
	set(exitUsage, `schedule "@every 4h" (from TIWKEYD_SCHEDULE) replaces more than 500 keys within grace 4000h0m0s (from the keyring)`, "grace=4000h")
	set(0, "", "grace=")
	set(exitUsage, `schedule "@every 2m" (from the keyring) replaces more than 500 keys within grace 24h0m0s (from TIWKEYD_GRACE)`, "schedule=@every 2m")
	set(0, "", "schedule=@every 2m", "grace=10m")
	set(exitUsage, tooMany, "grace=")
	set(0, manyKeys, "schedule=@every 11m", "grace=170h", "propagation=10m")
	set(exitUsage, tooMany, "propagation=")
	older := func(o rotator.Overrides) {
		s, err := r.store.Read(t.Context(), testTarget)
		if err == nil {
			next := s.Keyring.With(o)
			next.RotatedAt = time.Now()
			_, err = r.store.Write(t.Context(), testTarget, next, s.Version)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	older(rotator.Overrides{Schedule: "@every 2s", Grace: 24 * time.Hour})
	set(exitUsage, tooMany, "grace=48h")
	if out, code := r.run([]string{"check"}); code != 0 || !strings.Contains(out, "501 keys or more accepted at a time") {
		t.Errorf("check: %d\n%s", code, out)
	}
	before := r.keyring().CallbackKey().ID()
	d := r.daemon()
	r.await("a rotation", func() bool { return r.keyring().CallbackKey().ID() != before })
	d.signal(syscall.SIGTERM)
	<-d.done
	set(0, manyKeys, "paused=true")
	if out, _ := r.run([]string{"check"}); !strings.Contains(out, ", paused") {
		t.Errorf("check: %s", out)
	}
	set(0, "", "schedule=")
}
