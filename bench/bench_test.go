//go:build bench

package bench

import (
	"context"
	"fmt"
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

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/vault/vaulttest"
)

// size is how many targets a run has, and may be given with TIWKEYD_BENCH_TARGETS.
func size(t *testing.T, n int) int {
	t.Helper()
	if v := os.Getenv("TIWKEYD_BENCH_TARGETS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// inMinutes is a schedule that comes once a day, d from now or up to a minute later.
func inMinutes(d time.Duration) (spec string, at time.Time) {
	at = time.Now().UTC().Add(d + time.Minute).Truncate(time.Minute)
	return fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), at
}

// sets waits until n keys were set since the first of them, and gives the times.
func (w *world) sets(n int, limit time.Duration) []time.Time {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		w.mu.Lock()
		applied := slices.Clone(w.applied)
		w.mu.Unlock()
		if len(applied) >= n {
			return applied
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d of %d keys were set", len(applied), n)
		}
	}
}

// TestLimit has one replica, and three together, rotate all targets: how much of Tencent's limit is
// used, what it costs, and that no callback is refused.
func TestLimit(t *testing.T) {
	program := build(t)
	fmt.Println("\n| replicas | targets | rotations/s | of the limit | RequestLimitExceeded | callbacks | refused | Vault: writes | reads | destroys | Tencent: sets | looks | per rotation |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			limit(t, program, replicas, size(t, 10000))
		})
	}
}

func limit(t *testing.T, program string, replicas, n int) {
	w := newWorld(t, n)
	w.seed()
	// Each replica looks at every target once before they are due: a quarter of the limit, and a half more.
	spec, due := inMinutes(time.Duration(float64(n)/5*1.3) * time.Second)
	var daemons []*daemon
	for range replicas {
		d := start(t, program, environment(w, "TIWKEYD_SCHEDULE="+spec))
		daemons = append(daemons, d)
		d.ready(t, time.Now())
	}
	r, end := w.callbacks(t.Context(), 100, w.keyringKeys)
	defer end()
	time.Sleep(time.Until(due.Add(-2 * time.Second)))
	before := w.counts()
	looksBefore := before.calls["describe"]
	applied := w.sets(n, time.Duration(n)*time.Second/5+10*time.Minute)
	wave := w.counts()
	span := applied[n-1].Sub(applied[0])
	perSecond := float64(n-1) / span.Seconds()
	calls := wave.calls["set"] + wave.calls["describe"] - before.calls["set"] - looksBefore
	limited := wave.limited - before.limited
	fmt.Printf("| %d | %d | %.2f | %.3f | %.3f %% | %d | %d | | | | %.3f | %.3f | when the last key is set |\n", replicas, n, perSecond, perSecond/20, 100*float64(limited)/float64(calls),
		r.sent.Load(), r.refused.Load(), float64(wave.calls["set"]-before.calls["set"])/float64(n), float64(wave.calls["describe"]-looksBefore)/float64(n))
	// Old keys go after the grace, with the looks.
	interval := time.Duration(daemons[0].metric(t, "tiwkeyd_look_interval_seconds")) * time.Second
	time.Sleep(10*time.Minute + interval + 3*time.Minute)
	after := w.counts()
	per := func(kind string) float64 { return float64(after.requests[kind]-before.requests[kind]) / float64(n) }
	fmt.Printf("| %d | %d | %.2f | %.3f | %.3f %% | %d | %d | %.3f | %.3f | %.3f | %.3f | %.3f | when the old keys are gone, with the looks of %s |\n", replicas, n, perSecond, perSecond/20, 100*float64(limited)/float64(calls),
		r.sent.Load(), r.refused.Load(), per("write"), per("read"), per("destroy"), float64(after.calls["set"]-before.calls["set"])/float64(n), float64(after.calls["describe"]-looksBefore)/float64(n), time.Since(due).Round(time.Second))
	old := 0
	for _, t := range w.targets[:min(n, 500)] {
		if s, err := w.store.Read(context.Background(), t); err != nil || len(s.Keyring.Keys) != 1 {
			old++
		}
	}
	if r.refused.Load() != 0 || old > 0 {
		t.Errorf("%d callbacks were refused; %d targets still have their old key", r.refused.Load(), old)
	}
}

// TestIdle has one daemon look after settled targets, a hundred, a thousand, ten thousand.
func TestIdle(t *testing.T) {
	program := build(t)
	fmt.Println("\n| targets | bare LIST and reads | start to ready, all read | CPU, of one core | resident | largest | looks every |\n|---|---|---|---|---|---|---|")
	for _, n := range []int{100, 1000, size(t, 10000)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, n)
			w.seed()
			bare := w.bare()
			began := time.Now()
			d := start(t, program, environment(w, "TIWKEYD_SCHEDULE=@yearly"))
			for ready := false; !ready; time.Sleep(50 * time.Millisecond) {
				d.ready(t, began)
				ready = d.metric(t, "tiwkeyd_targets") == float64(n) && w.counts().requests["read"] >= n
			}
			took := time.Since(began)
			time.Sleep(30 * time.Second)
			cpu, from := d.cpu(t), time.Now()
			time.Sleep(3 * time.Minute)
			share := (d.cpu(t) - cpu).Seconds() / time.Since(from).Seconds()
			fmt.Printf("| %d | %.2f s | %.2f s | %.2f %% | %.1f MB | %.1f MB | %s |\n", n, bare.Seconds(), took.Seconds(), 100*share,
				float64(d.rss(t, "VmRSS"))/1e6, float64(d.rss(t, "VmHWM"))/1e6, time.Duration(d.metric(t, "tiwkeyd_look_interval_seconds"))*time.Second)
		})
	}
}

// bare lists and reads all keyrings with Vault's own library, 32 at a time, as the daemon does.
func (w *world) bare() time.Duration {
	w.t.Helper()
	client := w.vault.Client(w.vault.Token)
	if err := client.SetAddress(w.proxy); err != nil {
		w.t.Fatal(err)
	}
	began := time.Now()
	listed, err := client.Logical().List("secret/metadata/tiw")
	if err != nil {
		w.t.Fatal(err)
	}
	var group sync.WaitGroup
	next := make(chan string)
	for range 32 {
		group.Go(func() {
			for app := range next {
				if _, err := client.Logical().List("secret/metadata/tiw/" + app); err != nil {
					w.t.Error(err)
				}
				if _, err := client.KVv2("secret").Get(context.Background(), "tiw/"+app+service); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for _, app := range listed.Data["keys"].([]any) {
		next <- app.(string)
	}
	close(next)
	group.Wait()
	took := time.Since(began)
	w.mu.Lock()
	clear(w.requests)
	w.mu.Unlock()
	return took
}

// TestBaseline rotates the same targets with the script, and with tiwkeyd.
func TestBaseline(t *testing.T) {
	program, n := build(t), size(t, 300)
	w := newWorld(t, n)
	w.seed()
	root := w.vault.Client(w.vault.Token).KVv2("secret")
	var args []string
	for _, target := range w.targets {
		args = append(args, fmt.Sprint(target.SdkAppID))
		if _, err := root.Put(t.Context(), fmt.Sprintf("script/%d", target.SdkAppID), map[string]any{"callback_key": w.tiw.KeyInForce(target.SdkAppID, service)}); err != nil {
			t.Fatal(err)
		}
	}
	const rate = 200
	warm := func(r *reader) { time.Sleep(2 * time.Duration(n) * time.Second / rate); r.sent.Store(0) }

	r, end := w.callbacks(t.Context(), rate, w.scriptKeys)
	warm(r)
	began := time.Now()
	script := exec.Command("./baseline.sh", args...)
	script.Env = append(environment(w), "PATH="+vaultOnPath(t)+":"+os.Getenv("PATH"))
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("the script: %v\n%s", err, out)
	}
	theirs := took{wall: time.Since(began), began: began}
	time.Sleep(refresh + 2*time.Second)
	end()
	theirs.sent, theirs.refused, theirs.bySecond = r.sent.Load(), r.refused.Load(), r.bySecond

	// tiwkeyd begins with the keys that the script has set.
	w.adopt()
	sets := w.counts().sets
	r, end = w.callbacks(t.Context(), rate, w.keyringKeys)
	warm(r)
	d := start(t, program, environment(w, "TIWKEYD_SCHEDULE=@yearly"))
	time.Sleep(time.Duration(n)*time.Second/4 + 5*time.Second) // it looks at each first
	began = time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGUSR1)
	w.sets(sets+n, 10*time.Minute)
	ours := took{wall: time.Since(began), began: began}
	time.Sleep(refresh + 2*time.Second)
	end()
	ours.sent, ours.refused, ours.bySecond = r.sent.Load(), r.refused.Load(), r.bySecond

	fmt.Printf("\n| | targets | wall time | per rotation | callbacks | refused |\n|---|---|---|---|---|---|\n")
	for name, x := range map[string]took{"baseline.sh": theirs, "tiwkeyd": ours} {
		fmt.Printf("| %s | %d | %.1f s | %.0f ms | %d | %d |\n", name, n, x.wall.Seconds(), float64(x.wall.Milliseconds())/float64(n), x.sent, x.refused)
	}
	fmt.Printf("| tiwkeyd / baseline.sh | | %.2f | %.2f | | |\n", ours.wall.Seconds()/theirs.wall.Seconds(), ours.wall.Seconds()/theirs.wall.Seconds())
	if err := os.WriteFile("refused.svg", []byte(picture(theirs, ours)), 0o644); err != nil {
		t.Fatal(err)
	}
	if ours.refused != 0 {
		t.Errorf("tiwkeyd: %d callbacks were refused", ours.refused)
	}
}

// adopt brings the keyrings up to what is in force.
func (w *world) adopt() {
	w.t.Helper()
	for _, t := range w.targets {
		s, err := w.store.Read(context.Background(), t)
		if err != nil {
			w.t.Fatal(err)
		}
		s.Keyring.Keys[0].Key = rotator.NewKey("fromscript", w.tiw.KeyInForce(t.SdkAppID, service))
		if _, err := w.store.Write(context.Background(), t, s.Keyring, s.Version); err != nil {
			w.t.Fatal(err)
		}
	}
}

// vaultOnPath is a directory with the vault command in it.
func vaultOnPath(t *testing.T) string {
	t.Helper()
	program, err := vaulttest.Find()
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(program) == "vault" {
		return filepath.Dir(program)
	}
	dir := t.TempDir()
	if err := os.Symlink(program, filepath.Join(dir, "vault")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// picture draws the callbacks that were refused, by second, both side by side.
func picture(theirs, ours took) string {
	const width, height, gap = 460, 220, 40
	seconds, most := 1.0, 1.0
	for _, x := range []took{theirs, ours} {
		seconds = max(seconds, x.wall.Seconds()+refresh.Seconds()+3)
		for _, n := range x.bySecond {
			most = max(most, float64(n))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13"><rect width="100%%" height="100%%" fill="#fff"/>`, 2*width+3*gap, height+100)
	for i, x := range []took{theirs, ours} {
		left, bottom := float64(gap+i*(width+gap)), float64(height+50)
		name := []string{"baseline.sh", "tiwkeyd"}[i]
		fmt.Fprintf(&b, "\n"+`<text x="%g" y="25" font-size="16">%s: %d of %d genuine callbacks refused</text><text x="%g" y="44" fill="#555">%.0f s for all; refused per second, up to %.0f</text>`,
			left, name, x.refused, x.sent, left, x.wall.Seconds(), most)
		fmt.Fprintf(&b, `<path d="M%g %gv-%d M%g %gh%d" stroke="#888" fill="none"/>`, left, bottom, height-20, left, bottom, width)
		for second, n := range x.bySecond {
			at := float64(second-x.began.Unix()) / seconds * width
			h := float64(n) / most * (height - 20)
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="#c62828"/>`, left+at, bottom-h, max(1, width/seconds), h)
		}
		fmt.Fprintf(&b, `<text x="%g" y="%g" fill="#555">0 s</text><text x="%g" y="%g" fill="#555" text-anchor="end">%.0f s</text>`, left, bottom+20, left+width, bottom+20, seconds)
	}
	b.WriteString("\n</svg>\n")
	return b.String()
}

// took is how a rotation of all targets went.
type took struct {
	wall          time.Duration
	began         time.Time
	sent, refused int64
	bySecond      map[int64]int64
}
