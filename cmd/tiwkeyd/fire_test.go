package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// killPoints is every place between two steps where the daemon can die.
func killPoints() []string {
	var points []string
	for _, step := range []rotator.Step{rotator.StepObserve, rotator.StepAdopt, rotator.StepStage, rotator.StepPush, rotator.StepCommit,
		rotator.StepRetire, rotator.StepRollback, rotator.StepClaim, rotator.StepReassert, rotator.StepRaise} {
		for _, phase := range []rotator.Kind{rotator.Begin, rotator.Done} {
			points = append(points, fmt.Sprintf("%s:%s:KILL", step, phase))
		}
	}
	return append(points, "push:error:KILL", "observe:error:KILL")
}

// fireFaults is every way for a call to Tencent to go wrong.
func fireFaults() []tiwtest.Fault {
	return []tiwtest.Fault{
		tiwtest.Refuse("ResourceUnavailable.ServiceExpired"), tiwtest.Refuse("InternalError"), tiwtest.Delay(300 * time.Millisecond), tiwtest.Drop(),
		tiwtest.ApplyThenDrop(), tiwtest.DropThenApply(500 * time.Millisecond), tiwtest.DropThenApply(4 * time.Second), tiwtest.Garbage(), tiwtest.HTTPError(),
		tiwtest.SlowLoris(), tiwtest.ApplyThenError(), tiwtest.WrongShape(),
	}
}

// TestUnderFire is the promise: real Vault, 500 callbacks a second from a sender that uses a
// new key the moment it is set, receivers that see the secret late, fifty rotations with
// every fault, the daemon killed between any two steps. No callback is refused.
func TestUnderFire(t *testing.T) {
	t.Parallel()
	const rotations = 50
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.load(500)

	faults, points := fireFaults(), killPoints()
	reached := map[string]int{}
	done, started, last := 0, 0, ""
	missing := func() []string {
		return slices.DeleteFunc([]string{"observe:begin:KILL", "observe:done:KILL", "stage:begin:KILL", "stage:done:KILL", "push:begin:KILL", "push:done:KILL",
			"push:error:KILL", "commit:begin:KILL", "commit:done:KILL"}, func(point string) bool { return reached[point] > 0 })
	}
	for round := 0; done < rotations || len(missing()) > 0; round++ {
		if round > 10*rotations {
			t.Fatalf("after %d rounds there are only %d rotations, and the daemon was never killed at %v", round, done, missing())
		}
		// What leads to the rarer steps: a foreign key, and a takeover.
		point := points[round%len(points)]
		if point[:8] == "reassert" && r.settled() {
			r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)))
		}
		r.server.Plan("Set", 0, faults[round%len(faults)])
		if round%3 == 0 {
			r.server.Plan("Describe", 0, faults[(round/3)%len(faults)])
		}
		failed := func() rotator.Rotation {
			if k := r.keyring(); k != nil && k.Pending() == nil && k.Rotation != nil {
				return rotator.Rotation{ID: k.Rotation.ID, Attempts: k.Rotation.Attempts}
			}
			return rotator.Rotation{}
		}
		before := failed()
		rolledBack := func() bool {
			f := failed()
			return f.Attempts > 0 && (f.ID != before.ID || f.Attempts != before.Attempts)
		}
		d := r.daemon("TEST_SIGNAL_AT=" + point)
		d.signal(syscall.SIGUSR1)
		started++
		changed := func() bool {
			id := r.currentID()
			return id != "" && id != last && r.settled()
		}
		// Who dies after the commit has changed the keyring before.
		lives := func() bool { return point != "commit:done:KILL" }
		r.await("a rotation, or the daemon's death", func() bool { return d.exited() || changed() && lives() || rolledBack() })
		if d.exited() {
			reached[point]++
			d = r.daemon()
			d.signal(syscall.SIGUSR1)
			r.await("a rotation after the daemon's death", func() bool { return changed() || rolledBack() })
		}
		if changed() {
			done++
			last = r.currentID()
		}
		d.signal(syscall.SIGTERM)
		<-d.done
		if d.code != 0 && !strings.Contains(d.String(), "test: KILL") {
			t.Errorf("SIGTERM ended it with %d", d.code)
		}
	}
	d := r.daemon()
	d.signal(syscall.SIGUSR1)
	r.await("everything is settled at the end", func() bool { return r.settled() && len(r.keyring().Keys) == 1 && r.currentID() != last })
	for kind, n := range r.server.Hits() {
		t.Logf("fault %s: met %d times", kind, n)
	}
	for _, kind := range tiwtest.Kinds() {
		if r.server.Hits()[kind] < 2 {
			t.Errorf("the fault %s was met %d times", kind, r.server.Hits()[kind])
		}
	}
	t.Logf("%d rotations in %d rounds; killed at %v", done, started, reached)
}
