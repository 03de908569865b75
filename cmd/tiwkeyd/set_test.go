package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestSet gives a target settings of its own, in a real Vault, and takes them back.
func TestSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	target := testTarget.String()
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	if out, code := r.run([]string{"set", target, "paused=true"}); code != exitUsage || !strings.Contains(out, "has no keyring") {
		t.Errorf("without a keyring: %d\n%s", code, out)
	}
	if out, code := r.run([]string{"rotate"}); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	for _, step := range []struct {
		args []string
		want rotator.Overrides
		says []string
	}{
		{nil, rotator.Overrides{Propagation: new(propagation)}, []string{"propagation  1s       from the keyring", "schedule     @yearly  from TIWKEYD_SCHEDULE", "paused       false    from default"}},
		{[]string{"schedule=0 4 * * 0", "grace=48h", "propagation=90s", "paused=true"},
			rotator.Overrides{Schedule: "0 4 * * 0", Grace: 48 * 3600e9, Propagation: new(90 * time.Second), Paused: true}, []string{"0 4 * * 0  from the keyring", "48h0m0s", "1m30s", "true"}},
		{[]string{"grace="}, rotator.Overrides{Schedule: "0 4 * * 0", Propagation: new(90 * time.Second), Paused: true}, []string{"from TIWKEYD_GRACE"}},
		{nil, rotator.Overrides{Schedule: "0 4 * * 0", Propagation: new(90 * time.Second), Paused: true}, []string{"from TIWKEYD_GRACE"}},
	} {
		out, code := r.run(append([]string{"set", target}, step.args...))
		var got rotator.Overrides
		if o := r.keyring().Overrides; o != nil {
			got = *o
		}
		if code != 0 || overridesText(&got) != overridesText(&step.want) {
			t.Errorf("set %q: %d, %+v\n%s", step.args, code, got, out)
		}
		for _, want := range step.says {
			if !strings.Contains(out, want) {
				t.Errorf("set %q does not say %q:\n%s", step.args, want, out)
			}
		}
	}
	st := r.statusJSON()
	if !st.Paused || st.Next != nil || !slices.Equal(st.Overrides, []string{"schedule=0 4 * * 0", "propagation=1m30s", "paused=true"}) {
		t.Errorf("status: %+v", st)
	}
	if out, code := r.run([]string{"status"}); code != 0 || !strings.Contains(out, "paused") {
		t.Errorf("status: %d\n%s", code, out)
	}
	p := r.start([]string{"set", "--json", target}, "TIWKEYD_LOG_LEVEL=error")
	<-p.done
	var shown struct {
		Target   string
		Settings []setting
	}
	if err := json.Unmarshal([]byte(p.String()), &shown); err != nil || shown.Target != target || len(shown.Settings) != 4 || shown.Settings[2] != (setting{"propagation", "1m30s", "the keyring"}) {
		t.Errorf("--json: %+v, %v\n%s", shown, err, p)
	}
}

// TestSetRefuses has everything wrong that can be, and changes nothing.
func TestSetRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	target := testTarget.String()
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	if out, code := r.run([]string{"rotate"}); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	for _, bad := range []struct {
		args  []string
		wants []string
	}{
		{[]string{"abc", "paused=true"}, []string{`"abc"`}},
		{[]string{target, "paused"}, []string{"NAME=VALUE"}},
		{[]string{target, "pause=true", "grace=soon", "paused=perhaps", "grace=1h"}, []string{`"pause" is no setting`, `"soon" is not a duration`, `"perhaps"`, "twice"}},
		{[]string{target, "grace=-5m"}, []string{"grace"}},
		{[]string{target, "propagation=-1s"}, []string{`"-1s" is not a duration`}},
		{[]string{target, "propagation=25h"}, []string{"from 0s to 24h"}},
		{[]string{"--all", "propagation=25h"}, []string{"from 0s to 24h"}},
		{[]string{"--all", target}, []string{"NAME=VALUE"}},
		{[]string{target, "grace=1m", "propagation=10ms", "schedule=@never"}, []string{"grace: 1m0s", "propagation: 10ms", "schedule"}},
		{nil, []string{"requires at least 1 arg"}},
	} {
		out, code := r.run(append([]string{"set"}, bad.args...))
		for _, want := range bad.wants {
			if !strings.Contains(out, want) {
				t.Errorf("set %q does not say %q:\n%s", bad.args, want, out)
			}
		}
		if code != exitUsage || overridesText(r.keyring().Overrides) != [4]string{"", "", "1s", ""} {
			t.Errorf("set %q: %d, %+v\n%s", bad.args, code, r.keyring().Overrides, out)
		}
	}
}
