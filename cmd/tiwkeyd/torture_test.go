//go:build torture

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

const (
	// tortured is the propagation that daemons are told. Everything else is as fast as in the
	// other tests: a minute of Tencent's is a second.
	tortured = 6 * time.Second
	// lateness is how late the strict receiver sees the secret: spells without a store that
	// are shorter than three looks of the daemon are the receivers' own affair.
	lateness = tortured - 3*tortured/8
	// atOnce is how much goes wrong at the same time, at most.
	atOnce = 4
	// callbackRate is how many are sent a second, to all receivers together.
	callbackRate = 250
)

// torture is real processes to which everything happens that can: three daemons, three nodes
// of Vault, receivers of three kinds.
type torture struct {
	*fleet
	random  *rand.Rand
	cluster *vaulttest.Cluster
	disks   []string       // of the nodes
	nodes   []*vault.Store // as the test asks them
	memory  *memory        // what they told
	app     *kind          // whose callbacks are sent
	other   *kind          // whose keyring suffers what would cost callbacks
	others  *anyNode       // where that one is read

	daemons    []*victim
	laggards   []*laggard // before the daemons' nodes
	toReceiver []*wire

	pausing, remaking bool // how far the other keyring is on its way to be made anew
	spared            bool // the mishap that was to begin did not happen
	restored          int  // repairs of what was changed by hand that were looked at

	picture *timeline
	busy    map[string]bool // what something befalls at present
	alone   map[string]bool // by kind: nothing else may
	ends    []ending
	befell  map[string]int
}

// victim is a daemon with its own ways to everything, its own clock and its own token.
type victim struct {
	*process
	name, clock, tokenFile, token string
	settings                      string // a file of variables, which is read anew at each reload
	env                           []string
	toVault, toTencent            *wire
}

// ending is a mishap that ends at a time.
type ending struct {
	at     time.Time
	victim string
	undo   func() error
	done   func(time.Time)
}

// TestTorture has three daemons rotate while a nemesis has everything go wrong, for as long as
// TIWKEYD_TORTURE_TIME says; TIWKEYD_TORTURE_SEED is what the nemesis draws from. In the end no callback was
// refused or lost, and all is settled. A picture of it goes to TIWKEYD_TORTURE_PICTURE.
func TestTorture(t *testing.T) {
	if os.Getenv("TEST_ON_SMALL_DISK") == "" {
		inMountNamespace(t, os.Stdout)
		return
	}
	length, err := time.ParseDuration(os.Getenv("TIWKEYD_TORTURE_TIME"))
	if err != nil {
		t.Fatalf("TIWKEYD_TORTURE_TIME: %v", err)
	}
	seed, err := strconv.ParseUint(os.Getenv("TIWKEYD_TORTURE_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("TIWKEYD_TORTURE_SEED: %v", err)
	}
	w := newTorture(t, seed)
	stop := w.send(callbackRate)
	began, over := time.Now(), time.Now().Add(length)
	defer func() { // whatever becomes of it
		stop()
		w.noSecretShows()
		w.tell(began, over, seed)
	}()
	w.run(over)
	w.settle()
}

func newTorture(t *testing.T, seed uint64) *torture {
	w := &torture{fleet: &fleet{rig: newRig(t)}, random: rand.New(rand.NewPCG(seed, 0)), picture: newTimeline(), busy: map[string]bool{}, alone: map[string]bool{}, befell: map[string]int{},
		memory: &memory{told: map[string][]tale{}}}
	w.env = slices.DeleteFunc(w.env, func(v string) bool { // daemons have them from a file
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"TIWKEYD_TARGETS", "TIWKEYD_PROPAGATION", "TIWKEYD_SCHEDULE", "TIWKEYD_GRACE", "TIWKEYD_RECONCILE"}, name)
	})
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		disk := t.TempDir()
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=128m,mode=0700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
		w.disks = append(w.disks, disk)
	}
	w.cluster = vaulttest.StartClusterIn(t, w.disks...)
	w.vault = w.cluster.Nodes[0]
	w.useVault(w.vault)
	w.vault.Policy("receiver", receiverPolicy)
	w.secret(foreignKey)
	for _, node := range w.cluster.Nodes {
		w.nodes = append(w.nodes, storeIn(w.t, node.Addr, node.Token))
	}
	w.store, w.others = w.anyNode(w.picture.read), w.anyNode(func(rotator.Snapshot) {})
	w.server.OnApply(func(a tiwtest.Applied) {
		if a.App == testTarget.SdkAppID {
			w.picture.applied(a)
		}
	})
	w.watch = w.picture.answered

	w.app = w.add("strict, Go middleware and proxies", tortured)
	w.other = w.add("none", tortured)
	ways := newWires(t)
	for i, node := range w.cluster.Nodes {
		l, front := w.before(node.Addr, seed+uint64(i))
		w.laggards = append(w.laggards, l)
		w.daemons = append(w.daemons, w.newVictim(ways, i, front))
		w.setClock(i, 0)
		w.give(i, w.first())
	}
	w.picture.began = time.Now()
	for _, d := range w.daemons {
		w.launch(d)
	}
	w.await("the application is adopted and rotated", func() bool { return w.rotated(w.app) && w.right(w.other) == nil })
	w.receivers(ways)
	return w
}

// newVictim gives a daemon that is yet to be started.
func (w *torture) newVictim(ways *wires, i int, vaultURL string) *victim {
	dir := w.t.TempDir()
	d := &victim{name: string(rune('A' + i)), clock: filepath.Join(dir, "clock"), tokenFile: filepath.Join(dir, "token"), settings: filepath.Join(dir, "settings")}
	var toVault, toTencent string
	d.toVault, toVault = ways.to("vault", vaultURL)
	d.toTencent, toTencent = ways.to("tencent", w.server.URL)
	d.env = []string{"VAULT_ADDR=" + toVault, "VAULT_TOKEN_FILE=" + d.tokenFile, "TIWKEYD_TENCENT_ENDPOINT=" + toTencent, "TEST_CLOCK_STEP=" + d.clock}
	if err := w.newToken(d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

// receivers starts those that callbacks are sent to.
func (w *torture) receivers(ways *wires) {
	w.receiver = tiwtest.NewReceiver(lateness, 100*time.Millisecond)
	web := httptest.NewServer(http.HandlerFunc(w.receiver.ServeHTTP))
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { w.receiver.Watch(ctx, w.store, w.app.target) })
	w.t.Cleanup(func() { stop(); group.Wait(); web.Close() })
	w.app.urls = append(w.app.urls, web.URL)
	for i := range 4 {
		cluster := httptest.NewServer(w.balancer())
		w.t.Cleanup(cluster.Close)
		to, url := ways.to("receiver", cluster.URL)
		w.toReceiver = append(w.toReceiver, to)
		if i < 2 {
			w.goReceivers(w.app, url, 1)
		} else {
			w.env = append(w.env, "VAULT_ADDR="+url)
			w.proxies(w.app, 1)
		}
	}
	w.await("the receivers have read the keyring", func() bool { return w.receiver.Ready(w.app.target) })
}

// anyNode reads from whichever node answers; saw is told of each keyring that was read.
func (w *torture) anyNode(saw func(rotator.Snapshot)) *anyNode {
	return &anyNode{Store: w.store, nodes: w.nodes, lives: map[string]bool{}, saw: func(s rotator.Snapshot) {
		saw(s)
		for _, k := range s.Keyring.Accept() {
			w.secret(k.Reveal())
		}
	}}
}

// anyNode is the store as who asks all nodes sees it. A node that was deposed and does not know
// it yet tells what it knew; that is not believed. A keyring that was deleted cannot be read.
type anyNode struct {
	rotator.Store
	nodes []*vault.Store
	saw   func(rotator.Snapshot) // is told of each keyring that was read

	mu     sync.Mutex
	newest int64
	lives  map[string]bool // those that are gone
}

// isGone is told of the end of a keyring's life: its metadata were deleted, and versions are
// numbered from one again.
func (a *anyNode) isGone(life string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lives[life], a.newest = true, 0
}

func (a *anyNode) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		rotator.Snapshot
		err error
	}
	answers := make(chan answer, len(a.nodes))
	for _, node := range a.nodes {
		go func() {
			s, err := node.Read(ctx, t)
			answers <- answer{s, err}
		}()
	}
	var errs []error
	var newest rotator.Snapshot
	var others <-chan time.Time // when the rest are waited for no more
	for range a.nodes {
		var got answer
		select {
		case got = <-answers:
		case <-others:
			got.err = errors.New("it is slower than the others")
		}
		a.mu.Lock()
		switch {
		case got.err != nil:
		case got.Keyring == nil:
			got.err = errors.New("there is no keyring")
		case got.Version < a.newest || a.lives[got.Keyring.Life]:
			got.err = fmt.Errorf("version %d was there before", a.newest)
		}
		if got.err == nil && got.Version >= newest.Version {
			a.newest, newest = got.Version, got.Snapshot
		}
		a.mu.Unlock()
		errs = append(errs, got.err)
		if got.err == nil && others == nil {
			// One that was deposed has the answer at hand, and the others have to ask their leader.
			others = time.After(nodePatience)
		}
	}
	if newest.Keyring == nil {
		return rotator.Snapshot{}, errors.Join(errs...)
	}
	a.saw(newest)
	return newest, nil
}

// run has the nemesis at work for as long as it should, with a rest now and then, so that
// there is something to destroy.
func (w *torture) run(over time.Time) {
	all := append(w.mishaps(), w.handiwork()...)
	for next, reload := time.Now(), time.Now().Add(reloadEvery); ; {
		now := time.Now()
		switch first := w.firstEnding(); {
		case first != nil && !first.at.After(now):
			w.end(first)
		case !now.Before(over):
			return
		case !reload.After(now):
			w.reload()
			reload = reload.Add(reloadEvery)
		case !next.After(now):
			if len(w.ends) < atOnce {
				w.befall(all)
			}
			next = now.Add(time.Duration(w.random.IntN(2000)) * time.Millisecond)
			if w.random.IntN(12) == 0 {
				next = now.Add(15 * time.Second)
			}
		default:
			until := next
			if reload.Before(until) {
				until = reload
			}
			if first != nil && first.at.Before(until) {
				until = first.at
			}
			timer := time.NewTimer(until.Sub(now))
			<-timer.C
		}
	}
}

func (w *torture) firstEnding() *ending {
	if len(w.ends) == 0 {
		return nil
	}
	first := &w.ends[0]
	for i := range w.ends {
		if w.ends[i].at.Before(first.at) {
			first = &w.ends[i]
		}
	}
	return first
}

// end ends a mishap, or tries again a second later.
func (w *torture) end(e *ending) {
	if err := e.undo(); err != nil {
		e.at = time.Now().Add(time.Second)
		return
	}
	e.done(time.Now())
	delete(w.busy, e.victim)
	w.ends = slices.DeleteFunc(w.ends, func(other ending) bool { return other.victim == e.victim })
}

// settle ends all mishaps, and waits until all is as it should be.
func (w *torture) settle() {
	w.await("all mishaps end", func() bool {
		for _, e := range slices.Clone(w.ends) {
			w.end(&e)
		}
		return len(w.ends) == 0
	})
	w.server.ForgetPlans()
	for i, node := range w.cluster.Nodes {
		w.takesWrites(i, node)
	}
	for _, d := range w.daemons {
		seen := len(d.String())
		again := []func() bool{w.rotatesAgain(w.app), w.rotatesAgain(w.other)}
		d.signal(syscall.SIGUSR1)
		w.await("daemon "+d.name+" rests after another rotation", func() bool {
			return again[0]() && again[1]() && strings.Contains(d.String()[seen:], `"why":"settled"`)
		})
	}
	for i, d := range w.daemons { // else a new key comes before the last ones have gone
		w.give(i, strings.Replace(w.first(), "@every 20s", "@yearly", 1))
		d.signal(syscall.SIGHUP)
	}
	w.await("the older keys are retired", func() bool {
		one, err := w.read(w.app)
		other, otherErr := w.read(w.other)
		return err == nil && otherErr == nil && len(one.Keyring.Keys) == 1 && len(other.Keyring.Keys) == 1 && w.settled()
	})
	for _, d := range w.daemons {
		d.signal(syscall.SIGTERM)
		w.await("daemon "+d.name+" ends", d.exited)
		if d.code != 0 {
			w.t.Errorf("daemon %s ended with %d", d.name, d.code)
		}
	}
}

// takesWrites waits until a node takes writes. A leader that was stopped and deposed meanwhile sometimes never
// learns it: it goes on answering reads with old versions, and refuses each write ("node is not the leader"). A
// daemon that is bound to it has no store, so the test starts the node anew, as an operator would.
func (w *torture) takesWrites(i int, node *vaulttest.Server) {
	since := time.Now()
	w.await(fmt.Sprintf("node %c takes writes", 'A'+i), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := w.client(node).KVv2("secret").Put(ctx, "ready", map[string]any{"ready": true}); err == nil {
			return true
		}
		if time.Since(since) > 20*time.Second {
			since = time.Now()
			w.befell["Vault node started anew at the end: it did not know that it was deposed"]++
			node.Stop()
			node.Launch()
		}
		_ = w.well(i)()
		return false
	})
}

// rotatesAgain gives what tells that a keyring has another current key than now, which is in force.
func (w *torture) rotatesAgain(k *kind) func() bool {
	last := ""
	if s, err := w.read(k); err == nil {
		last = s.Keyring.CallbackKey().ID()
	}
	return func() bool {
		s, err := w.read(k)
		return err == nil && s.Keyring.Rotation == nil && s.Keyring.CallbackKey().ID() != last &&
			s.Keyring.CallbackKey().Reveal() == w.server.KeyInForce(k.target.SdkAppID, string(k.target.Service))
	}
}

// felt tells what was noticed, and done about it: a mishap that nobody felt is none.
func (w *torture) felt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts := map[string]int{}
	for _, text := range []string{"no space left", "vault is sealed", "stepped down from active"} {
		for _, node := range w.cluster.Nodes {
			counts["printed by Vault: "+text] += strings.Count(node.Output(), text)
		}
	}
	for _, text := range []string{"AuthFailure.SignatureExpire", "permission denied", "Vault is sealed", "connection refused", "connection reset", "EOF",
		"deadline exceeded", "took too long to confirm", "changed by somebody else", "NotInForce", "before the request was sent", "without a break", "changed by hand", "deleted and made anew", `"msg":"reloaded"`, "the new configuration is wrong", `"restore done"`, `"raise done"`,
		`"adopt done"`, `"stage done"`, `"claim done"`, `"push done"`, `"reassert done"`, `"commit done"`, `"rollback done"`, `"retire done"`} {
		for _, o := range w.outputs {
			counts["printed by tiwkeyd: "+text] += strings.Count(o.String(), text)
		}
	}
	counts["repairs by tiwkeyd, before anything else, of what was changed by hand"] = w.restored
	for _, l := range w.laggards {
		l.mu.Lock()
		counts["answers of Vault that were not true any more"] += l.told
		l.mu.Unlock()
	}
	for _, text := range slices.Sorted(maps.Keys(counts)) {
		w.t.Logf("%5d × %s", counts[text], text)
	}
	if n := counts["printed by tiwkeyd: the new configuration is wrong"]; n > 0 {
		w.t.Errorf("%d reloads were refused", n)
	}
	if w.befell[veryWrong] > 0 && counts["printed by tiwkeyd: AuthFailure.SignatureExpire"] == 0 {
		w.t.Error("the daemons' clocks cannot be set wrong: the test is to be built with the overlay of internal/wrongclock")
	}
}

// tell gives the figures and the verdict.
func (w *torture) tell(began, over time.Time, seed uint64) {
	var sent, refused, lost int64
	for _, s := range w.app.senders {
		c := s.Counts()
		sent, refused, lost = sent+c.Sent, refused+c.Refused, lost+c.Failed
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(w.befell)) {
		total += w.befell[name]
		w.t.Logf("%4d × %s", w.befell[name], name)
	}
	for kind, n := range w.server.Hits() {
		w.t.Logf("%4d × Tencent: %s", n, kind)
	}
	w.felt()
	rotations, rolledBack := w.picture.rotations(began, over)
	if rotations == 0 {
		w.t.Error("there was no rotation while things went wrong")
	}
	verdict := "no genuine callback was refused or lost, and all is settled"
	if refused+lost > 0 || w.t.Failed() {
		verdict = "FAILED"
	}
	w.t.Logf("torture of %s with seed %d: mishaps=%d rotations=%d rolled_back=%d callbacks=%d refused=%d lost=%d: %s", over.Sub(began).Round(time.Second), seed, total, rotations, rolledBack, sent, refused, lost, verdict)
	if path := os.Getenv("TIWKEYD_TORTURE_PICTURE"); path != "" {
		if err := w.picture.save(path); err != nil {
			w.t.Error(err)
		}
		w.t.Logf("the picture is in %s", path)
		if w.t.Failed() || refused+lost > 0 {
			w.keep(path)
		}
	}
}

// keep writes down what everybody printed, beside the picture, for who has to find out why.
func (w *torture) keep(path string) {
	var daemons bytes.Buffer
	for i, o := range w.outputs {
		fmt.Fprintf(&daemons, "== process %d\n%s", i, o.String())
	}
	logs := map[string]string{".daemons.log": daemons.String()}
	for i, node := range w.cluster.Nodes {
		logs[fmt.Sprintf(".vault-%d.log", i)] = node.Output()
	}
	for name, text := range logs {
		if err := os.WriteFile(path+name, []byte(text), 0o600); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Logf("what all printed is beside it")
}
