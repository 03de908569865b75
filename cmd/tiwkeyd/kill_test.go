package main

import (
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/tencent/tiwtest"
)

// leads gives for each place between two steps what leads the daemon there.
func leads() map[string]func(*rig) {
	service := string(testTarget.Service)
	nothing := func(*rig) {}
	plan := func(faults ...tiwtest.Fault) func(*rig) {
		return func(r *rig) { r.server.Plan("Set", 0, faults...) }
	}
	// Another daemon that began a rotation and was killed.
	abandoned := func(r *rig) {
		d := r.daemon("TEST_SIGNAL_AT=stage:done:KILL")
		d.signal(syscall.SIGUSR1)
		<-d.done
	}
	// Tencent comes back to the key that a finished rotation replaced.
	older := func(r *rig) {
		r.rotated()
		r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	}
	// A shell that was told of no lag made the keyring; the daemon was told of one.
	quicker := func(r *rig) { r.finishes([]string{"TIWKEYD_PROPAGATION=0s"}, "enroll", testTarget.String()) }
	return map[string]func(*rig){
		"observe:begin": nothing, "observe:done": nothing, "adopt:begin": nothing, "adopt:done": nothing, "stage:begin": nothing, "stage:done": nothing,
		"push:begin": nothing, "push:done": nothing, "commit:begin": nothing, "commit:done": nothing,
		"push:error": plan(tiwtest.ApplyThenDrop()), "rollback:begin": plan(tiwtest.Refuse("AuthFailure")), "rollback:done": plan(tiwtest.Refuse("AuthFailure")),
		"observe:error": func(r *rig) { r.server.Plan("Describe", 0, tiwtest.Drop()) },
		"claim:begin":   abandoned, "claim:done": abandoned, "reassert:begin": older, "reassert:done": older,
		"raise:begin": quicker, "raise:done": quicker, "retire:begin": (*rig).rotated, "retire:done": (*rig).rotated,
	}
}

// TestKilledAtEveryStep leads the daemon to every place between two steps and kills it there.
// The next start must go on from what is in the store, and no callback be refused.
func TestKilledAtEveryStep(t *testing.T) {
	slow(t)
	t.Parallel()
	atEveryStep(t, "KILL", func(*testing.T, *process, string) {})
}

// TestTerminatedAtEveryStep has it told to stop there: it finishes the step in hand, no more,
// and ends by itself within its own limit (after which it would end with another status).
func TestTerminatedAtEveryStep(t *testing.T) {
	slow(t)
	t.Parallel()
	atEveryStep(t, "TERM", func(t *testing.T, d *process, place string) {
		step, phase, _ := strings.Cut(place, ":")
		_, after, _ := strings.Cut(d.String(), "TERM at "+place)
		if d.code != 0 || !strings.Contains(after, `"msg":"stopped"`) {
			t.Errorf("it ended with %d:\n%s", d.code, tail(d.String()))
		}
		ended := `"msg":"` + step + map[string]string{"begin": ` done"`, "done": ` done"`, "error": ` failed"`}[phase]
		if step == "observe" && phase != "error" {
			ended = `"msg":"observe"`
		}
		// A step whose keyring was changed meanwhile, or that the store took too long to confirm, ends with another read.
		if !strings.Contains(after, ended) && !strings.Contains(after, "the keyring is read again") {
			t.Errorf("the step in hand was not finished:\n%s", tail(d.String()))
		}
		if n := strings.Count(after, ` begins"`); (phase == "begin") != (n == 1) || n > 1 {
			t.Errorf("%d steps were begun after it:\n%s", n, after)
		}
	})
}

func atEveryStep(t *testing.T, signal string, check func(t *testing.T, d *process, place string)) {
	lead := leads()
	for _, point := range killPoints() {
		place := strings.TrimSuffix(point, ":KILL")
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
			r.load(50)
			lead[place](r)
			d := r.daemon("TEST_SIGNAL_AT=" + place + ":" + signal)
			if !strings.HasPrefix(place, "re") { // these come by themselves
				d.signal(syscall.SIGUSR1)
			}
			<-d.done
			if !strings.Contains(d.String(), signal+" at "+place) {
				t.Fatalf("it ended with %d somewhere else:\n%s", d.code, d)
			}
			check(t, d, place)
			before := r.currentID()
			again := r.daemon()
			again.signal(syscall.SIGUSR1)
			r.await("the next start goes on", func() bool { return r.settled() && (r.currentID() != before || place == "commit:done") })
			again.signal(syscall.SIGTERM)
			<-again.done
			if again.code != 0 {
				t.Errorf("SIGTERM ended it with %d", again.code)
			}
		})
	}
}

// TestStoppedBeforePush stops a daemon for longer than its push deadline between reading the
// keyring and pushing, beside another daemon and a rotate command, and lets it go on: there
// is one rotation and one Set call, and nothing is refused.
func TestStoppedBeforePush(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	service := string(testTarget.Service)
	r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	r.load(200)
	r.rotated()
	sets, first := r.setCalls(), r.currentID()

	a := r.daemon("TEST_SIGNAL_AT=push:begin:STOP")
	a.signal(syscall.SIGUSR1)
	r.await("the first daemon begins a rotation", func() bool { return r.keyring().Pending() != nil })
	b := r.daemon()
	command := r.start([]string{"rotate"})
	r.awaitOutput(a, "test: STOP at push:begin")
	<-command.done
	if command.code != 0 {
		t.Errorf("rotate beside it: %d\n%s", command.code, command)
	}
	r.await("the others finish its rotation", func() bool { return r.settled() && r.currentID() != first })
	second := r.currentID()
	if n := r.setCalls() - sets; n != 1 {
		t.Errorf("%d Set calls for one rotation", n)
	}
	// It is stopped for far longer than its deadline of two minutes (two seconds here) by now,
	// because the others waited for its lease to end.
	a.signal(syscall.SIGCONT)
	r.awaitOutput(a, "changed by somebody else")
	r.await("the daemon that was stopped sees what happened", func() bool { return r.settled() })
	for _, d := range []*process{a, b} {
		d.signal(syscall.SIGTERM)
		<-d.done
	}
	if n := r.setCalls() - sets; n != 1 || r.currentID() != second {
		t.Errorf("%d Set calls, and the key is %s, after %s", n, r.currentID(), second)
	}
}

// TestSeveralAtOnce has two daemons and a command begin at the same time: whoever comes
// second joins the rotation of the first, and each rotation costs one Set call.
func TestSeveralAtOnce(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.load(200)
	r.rotated()
	sets := r.setCalls()
	daemons := []*process{r.daemon(), r.daemon()}
	commands := []*process{r.start([]string{"rotate"})}
	for _, d := range daemons {
		d.signal(syscall.SIGUSR1)
	}
	<-commands[0].done
	for _, d := range daemons {
		r.awaitOutput(d, "as SIGUSR1 asked for")
		d.signal(syscall.SIGTERM)
		<-d.done
	}
	// On a slow machine a signal may have come after the first rotation and begun another.
	commands = append(commands, r.start([]string{"rotate"}))
	<-commands[1].done
	rotations := 0
	for _, p := range append(daemons, commands...) {
		if p.code != 0 {
			t.Errorf("%v: %d\n%s", p.cmd.Args[1:], p.code, p)
		}
		rotations += strings.Count(p.String(), `"msg":"commit done"`)
	}
	if n := r.setCalls() - sets; n != rotations || n < 2 || n > 4 || !r.settled() {
		t.Errorf("%d Set calls for %d rotations", n, rotations)
	}
}
