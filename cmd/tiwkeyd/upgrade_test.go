//go:build torture

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/tencent/tiwtest"
)

// lastLanded is the version that people run: who upgrades comes from it, and goes back to it.
// When a change has landed that the next one must stand beside, put its commit here. Nothing else
// names it; the program is built anew.
const lastLanded = "7b9338fd0d15c74bd26299a72a0937c009a954cd"

// lastProgram is the test program of cmd/tiwkeyd as it was at lastLanded, so that it runs as fast as
// this one. It is built once, into the user's cache, from the history of this repository.
func lastProgram(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(cache, "tiwkeyd", "tiwkeyd-"+lastLanded, "tiwkeyd.test")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if out, err := exec.Command("git", "cat-file", "-e", lastLanded+"^{commit}").CombinedOutput(); err != nil {
		t.Fatalf("this clone lacks commit %s, the version to upgrade from: run `git fetch --unshallow`, or `git fetch origin %s`: %v %s", lastLanded, lastLanded, err, out)
	}
	source := t.TempDir()
	archive := exec.Command("git", "-C", top, "archive", lastLanded)
	tree, err := archive.Output()
	if err != nil {
		t.Fatalf("git archive %s: %v", lastLanded, err)
	}
	unpack := exec.Command("tar", "-x", "-C", source)
	unpack.Stdin = bytes.NewReader(tree)
	built := filepath.Join(source, "tiwkeyd.test")
	build := exec.Command("go", "test", "-c", "-o", built, "./cmd/tiwkeyd")
	build.Dir = source
	for _, c := range []*exec.Cmd{unpack, build} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	next := fmt.Sprintf("%s.%d", program, os.Getpid()) // others may build it, too
	if err := os.WriteFile(next, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, program); err != nil {
		t.Fatal(err)
	}
	return program
}

// upgrades is four daemons at one Vault, of the last version and of this one, that take each other's place.
type upgrades struct {
	*fleet
	random   *rand.Rand
	programs [2]string // the last version's, this one's
	names    [2]string
	env      []string
	daemons  [4]*process
	versions [4]int // 0 or 1, as in programs
	commands []*process

	did   map[string]int
	every map[*kind]string // its schedule, as somebody last set it
	past  map[*kind]int    // how many rotations the history had
}

// TestUpgradeAndBack has daemons of the last version and of this one serve the same targets, and
// puts one in the other's place again and again, for as long as TIWKEYD_UPGRADE_TIME says. Keys are
// rotated all the while, by schedule and on demand, by both. In the end no callback was refused,
// nothing is stuck, and the keyrings have what either version wrote, and what neither knows.
// With TIWKEYD_UPGRADE_FROM_ONLY=1 all daemons are of the last version: whether this world is one
// in which that one has no trouble.
func TestUpgradeAndBack(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("TIWKEYD_UPGRADE_TIME"))
	if err != nil {
		t.Fatalf("TIWKEYD_UPGRADE_TIME: %v", err)
	}
	seed, err := strconv.ParseUint(os.Getenv("TIWKEYD_TORTURE_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("TIWKEYD_TORTURE_SEED: %v", err)
	}
	u := newUpgrades(t, seed)
	stop := u.send(callbackRate)
	u.run(time.Now().Add(length))
	u.settle()
	stop()
	for _, what := range slices.Sorted(maps.Keys(u.did)) {
		t.Logf("%4d × %s", u.did[what], what)
	}
}

func newUpgrades(t *testing.T, seed uint64) *upgrades {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrades{fleet: newFleet(t), random: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{}, every: map[*kind]string{}, past: map[*kind]int{},
		programs: [2]string{lastProgram(t), self}, names: [2]string{lastLanded[:7], "this version"}}
	if os.Getenv("TIWKEYD_UPGRADE_FROM_ONLY") != "" {
		u.programs[1] = u.programs[0]
	}
	var targets []string
	for i := range 3 {
		targets = append(targets, u.add(fmt.Sprint("application ", i+1), tortured).target.String())
	}
	u.env = []string{"TIWKEYD_TARGETS=" + strings.Join(targets, ","), "TIWKEYD_PROPAGATION=" + tortured.String(), "TIWKEYD_SCHEDULE=@every 15s"}
	for i := range u.daemons {
		u.versions[i] = i % 2
		u.launch(i)
	}
	for _, k := range u.kinds {
		u.await(k.name+": it is adopted and rotated", func() bool { return u.rotated(k) })
		u.strange(k)
		u.goReceivers(k, u.vault.Addr, 1)
		u.strict(k)
		for _, program := range u.programs {
			u.program = program
			u.proxies(k, 1)
		}
	}
	return u
}

// strict adds a receiver that is as late as receivers may be.
func (u *upgrades) strict(k *kind) {
	r := tiwtest.NewReceiver(lateness, 100*time.Millisecond)
	web := httptest.NewServer(http.HandlerFunc(r.ServeHTTP))
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.Watch(ctx, u.store, k.target) })
	u.t.Cleanup(func() { cancel(); group.Wait(); web.Close() })
	k.urls = append(k.urls, web.URL)
	u.await("the strict receiver has read the keyring", func() bool { return r.Ready(k.target) })
}

// launch starts a daemon in place i.
func (u *upgrades) launch(i int) {
	u.program = u.programs[u.versions[i]]
	u.daemons[i] = u.daemon(u.env...)
}

// secretOf gives what is in Vault of a target, as it is there.
func (u *upgrades) secretOf(k *kind) *api.KVSecret {
	u.t.Helper()
	s, err := u.vault.Client(u.vault.Token).KVv2("secret").Get(u.t.Context(), "tiw/"+k.target.String())
	if err != nil {
		u.t.Fatal(err)
	}
	return s
}

// strange writes what neither version knows into a keyring.
func (u *upgrades) strange(k *kind) {
	u.set(k, 0)
	u.await("members of a later version are written", func() bool {
		s := u.secretOf(k)
		s.Data["of_a_later_version"] = []any{"kept"}
		s.Data["overrides"].(map[string]any)["of_a_later_version"] = "kept, too"
		_, err := u.vault.Client(u.vault.Token).KVv2("secret").Put(u.t.Context(), "tiw/"+k.target.String(), s.Data, api.WithCheckAndSet(s.VersionMetadata.Version))
		return err == nil
	})
}

// set gives a target another schedule, by the command of a version.
func (u *upgrades) set(k *kind, version int) {
	u.every[k] = fmt.Sprintf("@every %ds", 12+u.random.IntN(9))
	u.program = u.programs[version]
	u.finishes(u.env, "set", k.target.String(), "schedule="+u.every[k])
}

// run does one thing after another until it is over.
func (u *upgrades) run(over time.Time) {
	for time.Now().Before(over) {
		i, version, k := u.random.IntN(len(u.daemons)), u.random.IntN(2), u.kinds[u.random.IntN(len(u.kinds))]
		what := ""
		switch n := u.random.IntN(10); {
		case n < 5:
			what = "a daemon in another's place, after SIGTERM: " + u.names[u.versions[i]] + " to " + u.names[1-u.versions[i]]
			s := syscall.SIGTERM
			if n < 2 {
				what, s = strings.Replace(what, "SIGTERM", "kill -9", 1), syscall.SIGKILL
			}
			u.end(i, s)
			u.versions[i] = 1 - u.versions[i]
			u.launch(i)
		case n < 7:
			what = "SIGUSR1 to " + u.names[u.versions[i]]
			u.daemons[i].signal(syscall.SIGUSR1)
		case n < 8:
			what = "tiwkeyd set of " + u.names[version]
			u.set(k, version)
		default:
			what = "tiwkeyd rotate of " + u.names[version]
			u.program = u.programs[version]
			u.commands = append(u.commands, u.start([]string{"rotate", k.target.String()}, u.env...))
		}
		u.did[what]++
		u.watched()
		timer := time.NewTimer(time.Duration(u.random.IntN(3000)) * time.Millisecond)
		<-timer.C
	}
}

// end ends a daemon, which must have been there.
func (u *upgrades) end(i int, s syscall.Signal) {
	d := u.daemons[i]
	if d.exited() {
		u.t.Fatalf("a daemon of %s ended by itself with %d:\n%s", u.names[u.versions[i]], d.code, tail(d.String()))
	}
	d.signal(s)
	u.await("a daemon ends", d.exited)
	if s == syscall.SIGTERM && d.code != 0 {
		u.t.Errorf("a daemon of %s ended with %d:\n%s", u.names[u.versions[i]], d.code, tail(d.String()))
	}
}

// watched looks at what must stay in the keyrings.
func (u *upgrades) watched() {
	for _, k := range u.kinds {
		u.rotated(k)
		s := u.secretOf(k).Data
		own, _ := s["overrides"].(map[string]any)
		if fmt.Sprint(s["of_a_later_version"], own["of_a_later_version"], own["schedule"]) != fmt.Sprint([]any{"kept"}, "kept, too", u.every[k]) {
			u.t.Fatalf("%s: a member was lost: %v and %v are left", k.name, s["of_a_later_version"], own)
		}
		history, _ := s["history"].([]any)
		if n := len(history); n < u.past[k] || n == 0 {
			u.t.Fatalf("%s: the history had %d rotations and has %d", k.name, u.past[k], n)
		}
		u.past[k] = len(history)
	}
}

// settle waits until all is as it should be. Then every daemon is told to rotate, and each of the two
// versions serves alone.
func (u *upgrades) settle() {
	for _, c := range u.commands {
		u.await("rotate ends", c.exited)
		if c.code != 0 {
			u.t.Errorf("%s rotate ended with %d:\n%s", c.cmd.Path, c.code, tail(c.String()))
		}
	}
	rotates := func(d *process) {
		for _, k := range u.kinds {
			u.await(k.name+": it settles", func() bool { return u.rotated(k) || u.rests(k) })
		}
		d.signal(syscall.SIGUSR1)
		for _, k := range u.kinds {
			u.await(k.name+": one more rotation ends", func() bool { return u.rotated(k) })
		}
		u.watched()
	}
	for _, d := range u.daemons {
		rotates(d)
	}
	for i := range u.daemons {
		u.end(i, syscall.SIGTERM)
	}
	for version := range u.programs {
		u.versions[0] = version
		u.launch(0)
		rotates(u.daemons[0])
		u.program = u.programs[version]
		if out, code := u.fleet.run([]string{"status"}, u.env...); code != 0 || strings.Count(out, "settled") < len(u.kinds) {
			u.t.Errorf("status of %s ends with %d:\n%s", u.names[version], code, out)
		}
		u.end(0, syscall.SIGTERM)
	}
}

// rests reports whether the last rotation that was counted is still the last one.
func (u *upgrades) rests(k *kind) bool {
	s, err := u.store.Read(context.Background(), k.target)
	return err == nil && s.Keyring != nil && s.Keyring.Rotation == nil && s.Keyring.CallbackKey().ID() == k.last
}
