//go:build torture

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// mishap is one thing that can go wrong, for some of so many victims of a kind. One that lasts
// returns how it is undone; one whose undoing fails is undone later.
type mishap struct {
	name        string
	often       int
	kind        string
	victims     int
	alone       bool // nothing else of its kind goes on meanwhile
	least, most time.Duration
	begin       func(i int) (undo func() error)
}

// veryWrong is by so much that Tencent refuses.
const veryWrong = "clock very wrong"

// patience is for a node that does not answer.
const patience = 3 * time.Second

// mishaps lists everything that can go wrong.
func (w *torture) mishaps() []mishap {
	const s = time.Second
	all := []mishap{
		{"daemon killed", 4, "process", 3, false, 0, 5 * s, w.killed},
		{"daemon stopped for a while", 5, "process", 3, false, s / 5, 13 * s, w.stopped},
		{"daemon told to end", 1, "process", 3, false, 0, 3 * s, w.ended},
		{"daemon told to reload", 1, "process", 3, false, 0, 0, w.signalled(syscall.SIGHUP)},
		{"daemon told to rotate", 8, "process", 3, false, 0, 0, w.signalled(syscall.SIGUSR1)},
		{"command rotate", 2, "command", 3, false, 0, 0, w.commanded},
		{"clock a little wrong", 2, "clock", 3, false, s, 20 * s, w.wrongClock(time.Millisecond, 1400*time.Millisecond)},
		{veryWrong, 3, "clock", 3, false, s, 20 * s, w.wrongClock(7*s, 300*24*time.Hour)},
		{"token revoked", 2, "token", 3, false, s / 2, 6 * s, w.revoked},
		{"Vault node sealed", 3, "node", 3, false, s / 2, 12 * s, w.sealed},
		{"Vault node killed", 2, "node", 3, false, s / 2, 8 * s, w.nodeKilled},
		{"Vault node stopped for a while", 2, "node", 3, false, s / 2, 8 * s, w.frozen},
		{"Vault node's disk full", 3, "node", 3, true, s, 10 * s, w.diskFull},
		{"Vault leader steps down", 2, "node", 3, false, 0, 0, w.steppedDown},
		{"Tencent refuses for a while", 2, "Tencent", 1, false, s, 8 * s, w.expired},
		{"Tencent's next answers go wrong", 14, "plan", 1, false, 0, 0, w.planned},
		{"receiver cut off from Vault", 1, "receiver", 4, false, s / 5, 3 * s / 2, func(i int) func() error { w.toReceiver[i].cut(); return w.toReceiver[i].mend }},
		{"receiver far from Vault", 1, "receiver", 4, false, s / 5, 8 * s, w.spoiled(func(i int) *wire { return w.toReceiver[i] }, "latency", map[string]int{"latency": 200, "jitter": 150})},
	}
	for _, name := range []string{"Vault", "Tencent"} {
		kind, to := "way to "+name, func(i int) *wire { return w.daemons[i].toVault }
		if name == "Tencent" {
			to = func(i int) *wire { return w.daemons[i].toTencent }
		}
		all = append(all,
			mishap{"daemon cut off from " + name, 3, kind, 3, false, s / 5, 10 * s, func(i int) func() error { to(i).cut(); return to(i).mend }},
			mishap{"daemon far from " + name, 2, kind, 3, false, s / 2, 10 * s, w.spoiled(to, "latency", map[string]int{"latency": 600, "jitter": 500})},
			mishap{"nothing gets through to or from " + name, 2, kind, 3, false, s / 2, 10 * s, w.spoiled(to, "timeout", map[string]int{"timeout": 0})},
			mishap{"answers break off from " + name, 1, kind, 3, false, s / 2, 5 * s, w.spoiled(to, "limit_data", map[string]int{"bytes": 90})},
			mishap{"answers drip from " + name, 1, kind, 3, false, s / 2, 5 * s, w.spoiled(to, "slicer", map[string]int{"average_size": 40, "size_variation": 30, "delay": 30_000})},
			mishap{"connections are reset from " + name, 1, kind, 3, false, s / 2, 5 * s, w.spoiled(to, "reset_peer", map[string]int{"timeout": 20})})
	}
	return all
}

// befall has one of them happen to a victim that nothing of the kind befalls yet.
func (w *torture) befall(all []mishap) {
	total := 0
	for _, m := range all {
		total += m.often
	}
	n := w.random.IntN(total)
	var m mishap
	for _, m = range all {
		if n -= m.often; n < 0 {
			break
		}
	}
	i, lasts := w.random.IntN(m.victims), m.least
	if m.most > m.least {
		lasts += time.Duration(w.random.Int64N(int64(m.most - m.least)))
	}
	victim := fmt.Sprintf("%s %c", m.kind, 'A'+i)
	for j := range m.victims {
		other := fmt.Sprintf("%s %c", m.kind, 'A'+j)
		if w.busy[other] && (other == victim || m.alone || w.alone[m.kind]) {
			return
		}
	}
	began := time.Now()
	undo := m.begin(i)
	if w.spared {
		w.spared = false
		return
	}
	w.befell[m.name]++
	done := w.picture.mishap(m.name, victim, began)
	if undo == nil {
		done(time.Now())
		return
	}
	w.busy[victim], w.alone[m.kind] = true, m.alone
	w.ends = append(w.ends, ending{began.Add(lasts), victim, undo, done})
}

// wellNodes are those that nothing befalls.
func (w *torture) wellNodes() []*vaulttest.Server {
	var well []*vaulttest.Server
	for i, node := range w.cluster.Nodes {
		if !w.busy[fmt.Sprintf("node %c", 'A'+i)] {
			well = append(well, node)
		}
	}
	return well
}

// living is a daemon that must not have ended by itself.
func (w *torture) living(i int) *victim {
	d := w.daemons[i]
	if d.exited() {
		w.t.Errorf("daemon %s ended by itself with %d:\n%s", d.name, d.code, tail(d.String()))
	}
	return d
}

func (w *torture) killed(i int) func() error {
	d := w.living(i)
	_ = d.cmd.Process.Kill()
	<-d.done
	return func() error { w.launch(d); return nil }
}

func (w *torture) stopped(i int) func() error {
	d := w.living(i)
	d.signal(syscall.SIGSTOP)
	return func() error { d.signal(syscall.SIGCONT); return nil }
}

// ended has a daemon finish what it is at; it is started again after it has.
func (w *torture) ended(i int) func() error {
	d := w.living(i)
	d.signal(syscall.SIGTERM)
	return func() error {
		if !d.exited() {
			return fmt.Errorf("it is still at it")
		}
		if d.code != 0 {
			w.t.Errorf("daemon %s ended with %d", d.name, d.code)
		}
		w.launch(d)
		return nil
	}
}

func (w *torture) signalled(s syscall.Signal) func(int) func() error {
	return func(i int) func() error { w.living(i).signal(s); return nil }
}

// commanded has somebody rotate by hand, beside the daemons.
func (w *torture) commanded(i int) func() error {
	if w.pausing {
		return w.spare()
	}
	p := w.start([]string{"rotate", "--env-file", w.daemons[i].settings}, w.daemons[i].env...)
	return func() error {
		if !p.exited() {
			return fmt.Errorf("it is still at it")
		}
		switch p.code {
		case 0, exitRefused, exitUnsettled:
		default:
			w.t.Errorf("rotate: %d\n%s", p.code, tail(p.String()))
		}
		return nil
	}
}

// wrongClock sets a daemon's clock wrong, ahead or behind, by so little that clocks agree still,
// or by so much that Tencent refuses: evenly in orders of magnitude.
func (w *torture) wrongClock(least, most time.Duration) func(int) func() error {
	return func(i int) func() error {
		by := least
		for by < most/2 && w.random.IntN(5) > 0 {
			by *= 2
		}
		by += time.Duration(w.random.Int64N(int64(min(by, most-by))))
		if w.random.IntN(2) == 0 {
			by = -by
		}
		w.setClock(i, by)
		return func() error { w.setClock(i, 0); return nil }
	}
}

// setClock writes in place: the daemon has the file mapped.
func (w *torture) setClock(i int, by time.Duration) {
	f, err := os.OpenFile(w.daemons[i].clock, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by)), 0); err != nil {
		w.t.Fatal(err)
	}
}

func (w *torture) revoked(i int) func() error {
	d := w.daemons[i]
	for _, node := range w.wellNodes() {
		if w.client(node).Auth().Token().RevokeTree(d.token) == nil {
			break
		}
	}
	return func() error { return w.newToken(d) }
}

// newToken writes a token into a daemon's file.
func (w *torture) newToken(d *victim) error {
	err := errors.New("no node is well")
	for _, node := range w.wellNodes() {
		var token string
		if token, err = node.TryNewToken("tiwkeyd", "240h"); err == nil {
			d.token = token
			w.secret(token)
			next := d.tokenFile + ".next"
			if err := os.WriteFile(next, []byte(d.token), 0o600); err != nil {
				return err
			}
			return os.Rename(next, d.tokenFile)
		}
	}
	return err
}

// sealed seals the active node. Another one cannot be told to; it is sealed when it starts.
func (w *torture) sealed(i int) func() error {
	node := w.cluster.Nodes[i]
	if w.client(node).Sys().Seal() != nil {
		node.Stop()
		node.Launch()
	}
	return w.well(i)
}

// client is one that does not wait for long.
func (w *torture) client(node *vaulttest.Server) *api.Client {
	c := node.Client(node.Token)
	c.SetClientTimeout(patience)
	return c
}

func (w *torture) nodeKilled(i int) func() error {
	w.cluster.Nodes[i].Stop()
	return w.well(i)
}

func (w *torture) frozen(i int) func() error {
	w.cluster.Nodes[i].Freeze()
	return w.well(i)
}

func (w *torture) diskFull(i int) func() error {
	f, err := os.Create(filepath.Join(w.disks[i], "filler"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 1 << 10} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
	return w.well(i)
}

func (w *torture) steppedDown(i int) func() error {
	_ = w.client(w.cluster.Nodes[i]).Sys().StepDown() // whom another one has it forwarded to
	return nil
}

// well has a node be as it should, whatever befell it.
func (w *torture) well(i int) func() error {
	return func() error {
		node := w.cluster.Nodes[i]
		if err := os.Remove(filepath.Join(w.disks[i], "filler")); err != nil && !os.IsNotExist(err) {
			return err
		}
		if node.Exited() {
			node.Launch()
		} else {
			node.Thaw()
		}
		return node.TryOpen()
	}
}

func (w *torture) expired(int) func() error {
	refuse := func(code string) {
		for _, verb := range []string{"Set", "Describe"} {
			w.server.RefuseAlways(w.app.target.SdkAppID, verb, code)
		}
	}
	refuse("ResourceUnavailable.ServiceExpired")
	return func() error { refuse(""); return nil }
}

// planned has the next calls go wrong.
func (w *torture) planned(int) func() error {
	faults := append(fireFaults(), tiwtest.Refuse("UnauthorizedOperation.SdkAppId"), tiwtest.Refuse("RequestLimitExceeded"),
		tiwtest.DropThenApply(time.Duration(w.random.IntN(5000))*time.Millisecond), tiwtest.DropThenApply(4900*time.Millisecond))
	verb := "Set"
	if w.random.IntN(4) == 0 {
		verb = "Describe"
	}
	w.server.ForgetPlans() // those that were not met
	for range 1 + w.random.IntN(3) {
		w.server.Plan(verb, 0, faults[w.random.IntN(len(faults))])
	}
	return nil
}

// spoiled has a toxic act on a wire.
func (w *torture) spoiled(to func(int) *wire, kind string, attributes map[string]int) func(int) func() error {
	return func(i int) func() error {
		stream := "downstream"
		if (kind == "latency" || kind == "timeout") && w.random.IntN(3) == 0 {
			stream = "upstream"
		}
		if err := to(i).spoil(kind, stream, attributes); err != nil {
			w.t.Fatal(err)
		}
		return to(i).mend
	}
}
