//go:build receivers

package receivers_test

import (
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

const (
	app     = 1400000001
	appText = "1400000001"
)

// The keys of the tests are 64 characters long and found again wherever they leak.
var (
	previous = canary("previous")
	current  = canary("current")
	pending  = canary("pending")
	foreign  = canary("foreign")
)

const mark = "CanaryOfTheReceivers"

func canary(name string) string { return (mark + name + strings.Repeat("0", 64))[:64] }

// refuseCanaries fails the test where a key is found; it does not show it.
func refuseCanaries(t *testing.T, where, text string) {
	t.Helper()
	if strings.Contains(text, mark) {
		t.Errorf("a key is in %s", where)
	}
}

// keyring is the stored form of a keyring in the middle of a rotation, as the daemon writes
// it. The current key is empty where there is none yet.
func keyring(t *testing.T, previous, current, pending string) []byte {
	t.Helper()
	now := time.Now()
	k := rotator.Keyring{Target: target(), RotatedAt: now,
		Rotation: &rotator.Rotation{ID: "rotation", Reason: rotator.BySchedule, StartedAt: now}}
	for _, e := range []struct {
		value string
		state rotator.State
	}{{previous, rotator.Previous}, {current, rotator.Current}, {pending, rotator.Pending}} {
		if e.value != "" {
			k.Keys = append(k.Keys, rotator.Entry{Key: secrets.NewKey("id-"+string(e.state), e.value), State: e.state, CreatedAt: now})
		}
	}
	encoded, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func target() secrets.Target {
	return secrets.Target{SdkAppID: app, Service: secrets.WhiteboardPush}
}

// callback is a callback as Tencent sends it, signed with a key.
func callback(key string) []byte {
	return tiwtest.Callback(app, "WhiteboardPushStopped", 1, key, time.Now().Add(10*time.Minute))
}
