package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
)

// noTime is what the time that is none looks like, and the time since it.
var noTime = []string{"0001-01-01", "2562047h", "9223372036"}

// TestNextIsNoTime: the announcement of a daemon that knows of no run to come.
func TestNextIsNoTime(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]string{
		"when the keyrings are found": "TIWKEYD_TARGETS=",
		"on demand":                   "TIWKEYD_TARGETS=" + testTarget.String(), // which is paused
		"now":                         "TIWKEYD_TARGETS=" + testTarget.String() + ",1400000077",
	} {
		r := newRig(t)
		r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
		r.finishes(nil, "enroll", testTarget.String())
		r.finishes(nil, "set", testTarget.String(), "paused=true")
		d := r.daemon("TIWKEYD_DISCOVER=true", env)
		d.signal(syscall.SIGTERM)
		<-d.done
		if !strings.Contains(d.String(), `"next":"`+want+`"`) {
			t.Errorf("it does not say %q:\n%s", want, d)
		}
		for _, bad := range noTime {
			if strings.Contains(d.String(), bad) {
				t.Errorf("%q: it says %s:\n%s", want, bad, d)
			}
		}
	}
}

// TestKeyringWithoutTimes: every time in a keyring may be missing. None is told in its place.
func TestKeyringWithoutTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	current, previous := r.newKey(), r.newKey()
	k := &rotator.Keyring{Target: testTarget, Keys: []rotator.Entry{{Key: current, State: rotator.Current}, {Key: previous, State: rotator.Previous}, {Key: r.newKey(), State: rotator.Pending}},
		Rotation: &rotator.Rotation{ID: "r", Reason: rotator.ByCommand, LastError: &rotator.Failure{Code: "InternalError"}}}
	if _, err := r.store.Write(t.Context(), testTarget, k, 0); err != nil {
		t.Fatal(err)
	}
	says := func(out string) {
		t.Helper()
		for _, bad := range noTime {
			if strings.Contains(out, bad) {
				t.Errorf("it says %s:\n%s", bad, out)
			}
		}
	}
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"check"}, {"set", testTarget.String()}} {
		out, _ := r.run(args)
		says(out)
	}
	callback := r.signed(testTarget.SdkAppID, previous, time.Now().Add(time.Minute))
	v := r.verified("previous", callback, nil, nil, 0, "", ", the previous one.")
	says(strings.Join(v.Words, " "))
}
