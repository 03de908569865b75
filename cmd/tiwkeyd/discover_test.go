package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
)

// discovering is a rig without configured targets.
func discovering(t *testing.T, apps ...int64) *rig {
	r := newRig(t)
	for _, app := range apps {
		r.server.AddApp(app)
		r.server.SetKey(app, string(secrets.WhiteboardPush), fmt.Sprintf("CANARY-key-of-%d", app))
		r.secret(fmt.Sprintf("CANARY-key-of-%d", app))
	}
	r.env = append(r.env, "TIWKEYD_TARGETS=", "TIWKEYD_DISCOVER=true")
	return r
}

func (r *rig) keyringOf(app int64) *rotator.Keyring {
	r.t.Helper()
	s, err := r.store.Read(r.t.Context(), secrets.Target{SdkAppID: app, Service: secrets.WhiteboardPush})
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Keyring
}

// TestDiscover: a daemon finds what is enrolled before it starts and while it runs, rotates it, and
// leaves alone what is taken out.
func TestDiscover(t *testing.T) {
	t.Parallel()
	const first, second, third = 1500000001, 1500000002, 1500000003
	r := discovering(t, first, second, third)
	v := vaulttest.Start(t)
	r.useVault(v)
	enroll := func(want string, apps ...string) {
		t.Helper()
		if out, code := r.run(append([]string{"enroll"}, apps...)); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("enroll %v: %d\n%s", apps, code, out)
		}
	}
	enroll("enrolled=1 already_there=0 failed=0", "1500000001")
	if k := r.keyringOf(first); k == nil || k.Current() == nil || k.Pending() != nil || r.setCalls() != 0 {
		t.Fatalf("enrolled: %+v", k)
	}
	d := r.daemon()
	rotated := func(app int64) func() bool {
		return func() bool { k := r.keyringOf(app); return k != nil && !k.RotatedAt.IsZero() && k.Pending() == nil }
	}
	r.await("the first to be rotated", rotated(first))
	enroll("enrolled=1 already_there=1 failed=0", "1500000002", "1500000001")
	d.signal(syscall.SIGHUP) // else it is found within minutes
	r.await("the second to be rotated", rotated(second))
	before := map[int64]string{first: r.keyringOf(first).CallbackKey().ID(), second: r.keyringOf(second).CallbackKey().ID()}
	d.signal(syscall.SIGUSR1)
	for app, id := range before {
		r.await("a demand for all", func() bool { k := r.keyringOf(app); return k.Pending() == nil && k.CallbackKey().ID() != id })
	}
	// One is taken out: its key at Tencent stays as it is.
	if err := v.Client(v.Token).KVv2("secret").DeleteMetadata(t.Context(), "tiw/1500000001/whiteboard-push"); err != nil {
		t.Fatal(err)
	}
	key := r.server.KeyInForce(first, string(secrets.WhiteboardPush))
	id := r.keyringOf(second).CallbackKey().ID()
	d.signal(syscall.SIGUSR1)
	r.await("the other to be rotated", func() bool { return r.keyringOf(second).CallbackKey().ID() != id })
	r.awaitOutput(d, "the keyring is gone")
	if r.keyringOf(first) != nil || r.server.KeyInForce(first, string(secrets.WhiteboardPush)) != key {
		t.Error("what was taken out was taken in again")
	}
	if out, code := r.run([]string{"check"}); !strings.Contains(out, "1500000002/whiteboard-push") || code != 0 {
		t.Errorf("check: %d\n%s", code, out)
	}
	out, code := r.run([]string{"status"}, "TIWKEYD_LOG_LEVEL=error")
	if code != 0 || !strings.Contains(out, "1500000002/whiteboard-push") || strings.Contains(out, "1500000001") {
		t.Errorf("status: %d\n%s", code, out)
	}
	if out, code := r.run([]string{"rotate", "1500000002"}); code != 0 {
		t.Errorf("rotate: %d\n%s", code, out)
	}
	if out, code := r.run([]string{"rotate", "1500000003"}); code != exitUsage || !strings.Contains(out, "TIWKEYD_DISCOVER") {
		t.Errorf("rotate of one that has no keyring: %d\n%s", code, out)
	}
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestDiscoverDenied: a token that may not list is told so, and the configured targets are served.
func TestDiscoverDenied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	v.Policy("tiwkeyd", strings.ReplaceAll(readmePolicy(t), `"list"`, `"deny"`))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon("TIWKEYD_DISCOVER=true")
	r.awaitOutput(d, "the keyrings could not be listed")
	r.awaitOutput(d, "lacks the capability list")
	r.await("the configured target to be rotated", r.settled)
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestEnrollFile: a file with everything in it, what Tencent refuses, and a second run.
func TestEnrollFile(t *testing.T) {
	t.Parallel()
	r := discovering(t, 1500000001, 1500000002)
	if out, code := r.run([]string{"check"}); code != exitUsage || !strings.Contains(out, "begin with tiwkeyd enroll") {
		t.Errorf("check of nothing: %d\n%s", code, out)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	table := write("apps.csv", "\xef\xbb\xbfname,sdk_app_id,Service,grace,paused\nA,1500000001,,48h,\nB,1500000002,whiteboard-push,,true\n\"C, the third\",1500000009,transcode,,\n")
	out, code := r.run([]string{"enroll", "--from-file", table})
	if code != exitRefused || !strings.Contains(out, "enrolled=2 already_there=0 failed=1") || !strings.Contains(out, "1500000009/transcode") || !strings.Contains(out, "RequestId ") {
		t.Errorf("%d\n%s", code, out)
	}
	if a, b := r.keyringOf(1500000001).Overrides, r.keyringOf(1500000002).Overrides; a == nil || a.Grace.Hours() != 48 || b == nil || !b.Paused {
		t.Errorf("%+v, %+v", a, b)
	}
	r.server.AddApp(1500000009)
	list := write("apps.json", "\ufeff"+`["1500000001", {"sdk_app_id": 1500000002}, {"target": "1500000009/transcode", "propagation": "90s"}]`)
	if out, code = r.run([]string{"enroll", "--from-file", list, "--json"}, "TIWKEYD_LOG_LEVEL=error"); code != 0 || !strings.Contains(out, `"enrolled": 1`) || !strings.Contains(out, `"already_there": 2`) {
		t.Errorf("%d\n%s", code, out)
	}
	if r.setCalls() != 0 {
		t.Errorf("%d keys were set", r.setCalls())
	}
}

// TestEnrollKilled: an enrollment that was killed in the middle goes on when it is run again, and what was
// enrolled before is left as it was.
func TestEnrollKilled(t *testing.T) {
	slow(t)
	t.Parallel()
	var apps []int64
	var args []string
	for i := range int64(40) {
		apps = append(apps, 1500000001+i)
		args = append(args, fmt.Sprint(1500000001+i))
	}
	r := discovering(t, apps...)
	there := func() (ids []string) {
		for _, app := range apps {
			if k := r.keyringOf(app); k != nil {
				ids = append(ids, fmt.Sprint(app, k.Current().Key.ID()))
			}
		}
		return ids
	}
	args = append([]string{"enroll"}, args...)
	d := r.start(args, "TIWKEYD_RATE=20")
	r.await("some to be enrolled", func() bool { return len(there()) >= 5 })
	d.signal(syscall.SIGKILL)
	<-d.done
	before := there()
	if len(before) == len(apps) {
		t.Fatal("it was killed too late")
	}
	out, code := r.run(args)
	if want := fmt.Sprintf("enrolled=%d already_there=%d failed=0", len(apps)-len(before), len(before)); code != 0 || !strings.Contains(out, want) {
		t.Errorf("%d, want %s\n%s", code, want, out)
	}
	after := there()
	for _, id := range before {
		if !slices.Contains(after, id) {
			t.Errorf("%s was changed", id)
		}
	}
	for _, app := range apps {
		if k := r.keyringOf(app); k == nil || k.CallbackKey().Reveal() != r.server.KeyInForce(app, string(secrets.WhiteboardPush)) || r.setCalls() != 0 {
			t.Errorf("%d: it does not have the key in force", app)
		}
	}
}

// TestEnrollRefuses: what is wrong is told, all of it, before anything is contacted.
func TestEnrollRefuses(t *testing.T) {
	t.Parallel()
	r := discovering(t)
	dir := t.TempDir()
	for i, bad := range []struct {
		ext, text string
		wants     []string
	}{
		{"csv", "", []string{"no header"}},
		{"csv", "app\n1\n", []string{"neither a column target nor sdk_app_id"}},
		{"csv", "target\n", []string{"no target in it"}},
		{"csv", "target,paused\n1500000001,perhaps\nx,\n1500000001/recording,\n1500000002\n1500000003,\n1500000003,\n",
			[]string{"line 2", `"perhaps"`, `line 3: target "x"`, "line 4", "unknown", "line 5: it has 1 fields", "line 7: 1500000003/whiteboard-push is there twice, first in line 6"}},
		{"csv", "target\n\"15", []string{"quote"}},
		{"csv", "target,sdk_app_id\n5,5\n", []string{"both a target and a sdk_app_id"}},
		{"csv", "target,propagation\n5,10ms\n", []string{"propagation: 10ms"}},
		{"csv", "target\n" + strings.Repeat("x\n", 30), []string{"line 21", "and 10 more"}},
		{"json", "{}", []string{"not a JSON list"}},
		{"json", "\xff\xfe[\x00]\x00", []string{"it is in UTF-16"}},
		{"json", `["1500000001", 5, {"app": 7}, {"sdk_app_id": 7.5}]`, []string{"entry 2: it is neither", `entry 3: it has the unknown member "app"`, "entry 4", "7.5"}},
		{"txt", "", []string{"neither .csv nor .json"}},
	} {
		path := filepath.Join(dir, fmt.Sprintf("%d.%s", i, bad.ext))
		if err := os.WriteFile(path, []byte(bad.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, code := r.run([]string{"enroll", "--from-file", path})
		for _, want := range bad.wants {
			if !strings.Contains(out, want) {
				t.Errorf("%q: %q is not told:\n%s", bad.text, want, out)
			}
		}
		if code != exitUsage || r.server.Calls("DescribeWhiteboardPushCallback") != 0 {
			t.Errorf("%q: exit status %d\n%s", bad.text, code, out)
		}
	}
	for _, args := range [][]string{nil, {"5", "--from-file", "x.csv"}, {"--from-file", filepath.Join(dir, "none.csv")}, {"5", "5"}, {"abc"}} {
		if out, code := r.run(append([]string{"enroll"}, args...)); code != exitUsage {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
}
