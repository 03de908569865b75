//go:build bench

package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
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

// sets waits until n keys were set since the first of them, and gives the times. It logs how far that is,
// and what the replicas allow themselves of the limits.
func (w *world) sets(n int, limit time.Duration, replicas ...*daemon) []time.Time {
	w.t.Helper()
	told := time.Now()
	for end := told.Add(limit); ; time.Sleep(100 * time.Millisecond) {
		w.mu.Lock()
		applied, limited := slices.Clone(w.applied), len(w.limited)
		w.mu.Unlock()
		if len(applied) >= n {
			return applied
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			var allowed []float64
			for _, d := range replicas {
				allowed = append(allowed, d.metric(w.t, `tiwkeyd_tencent_rate_allowed{api="SetWhiteboardPushCallbackKey"}`))
			}
			w.t.Logf("%s: %d set, %d exceeded so far; each allows itself %.2f sets a second", told.Format(time.TimeOnly), len(applied), limited, allowed)
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d of %d keys were set", len(applied), n)
		}
	}
}

// TestLimit has one replica, and three together, rotate all targets: how much of Tencent's limit is
// used, and that no callback is refused.
func TestLimit(t *testing.T) {
	program := build(t)
	fmt.Println("\n| replicas | targets | rotations/s | of the limit | RequestLimitExceeded | in the first minute | callbacks | refused | Tencent: sets per rotation | looks |\n|---|---|---|---|---|---|---|---|---|---|")
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			n := size(t, 10000)
			w := newWorld(t, n)
			daemons, r, before, end := wave(t, w, program, replicas)
			defer end()
			began := time.Now()
			applied := w.sets(n, time.Duration(n)*time.Second/5+10*time.Minute, daemons...)
			after := w.counts()
			perSecond := float64(n-1) / applied[n-1].Sub(applied[0]).Seconds()
			sets, looks := after.calls["set"]-before.calls["set"], after.calls["describe"]-before.calls["describe"]
			early := 0
			for _, at := range after.limited[len(before.limited):] {
				if at.Sub(began) < time.Minute {
					early++
				}
			}
			limited := len(after.limited) - len(before.limited)
			fmt.Printf("| %d | %d | %.2f | %.3f | %d of %d, %.3f %% | %d | %d | %d | %.3f | %.3f |\n", len(daemons), n, perSecond, perSecond/20, limited, sets+looks,
				100*float64(limited)/float64(sets+looks), early, r.sent.Load(), r.refused.Load(), float64(sets)/float64(n), float64(looks)/float64(n))
			if r.refused.Load() != 0 {
				t.Errorf("%d callbacks were refused", r.refused.Load())
			}
		})
	}
}

// wave starts replicas with settled targets under callbacks, lets them look at all, and returns at
// the moment at which all targets are due.
func wave(t *testing.T, w *world, program string, replicas int) ([]*daemon, *reader, counts, func()) {
	w.seed()
	// Each replica looks at every target once before they are due, at a quarter of the limit.
	spec, due := inMinutes(time.Duration(float64(len(w.targets))/5*1.05) * time.Second)
	var daemons []*daemon
	for range replicas {
		d := start(t, program, environment(w, "TIWKEYD_SCHEDULE="+spec))
		daemons = append(daemons, d)
		d.ready(t, time.Now())
	}
	r, end := w.callbacks(t.Context(), 100, w.keyringKeys)
	time.Sleep(time.Until(due.Add(-2 * time.Second)))
	return daemons, r, w.counts(), end
}

// TestLife counts what the whole life of a key costs Vault and Tencent, until the key before is gone.
func TestLife(t *testing.T) {
	n := size(t, 1000)
	w := newWorld(t, n)
	daemons, r, before, end := wave(t, w, build(t), 1)
	defer end()
	began := time.Now()
	w.sets(n, time.Duration(n)*time.Second/5+10*time.Minute)
	// Old keys go after the grace, with the looks.
	interval := time.Duration(daemons[0].metric(t, "tiwkeyd_look_interval_seconds")) * time.Second
	time.Sleep(10*time.Minute + interval + 3*time.Minute)
	after := w.counts()
	per := func(now, then int) float64 { return float64(now-then) / float64(n) }
	fmt.Println("\n| targets | callbacks | refused | Vault: writes per rotation | reads | lists and metadata | destroys | Tencent: sets per rotation | looks | in |\n|---|---|---|---|---|---|---|---|---|---|")
	fmt.Printf("| %d | %d | %d | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %s |\n", n, r.sent.Load(), r.refused.Load(),
		per(after.requests["write"], before.requests["write"]), per(after.requests["read"], before.requests["read"]), per(after.requests["list"], before.requests["list"]),
		per(after.requests["destroy"], before.requests["destroy"]), per(after.calls["set"], before.calls["set"]), per(after.calls["describe"], before.calls["describe"]), time.Since(began).Round(time.Second))
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
	fmt.Println("\n| targets | bare LIST and reads | start to ready, all read | beyond | CPU, of one core | resident | largest | looks every |\n|---|---|---|---|---|---|---|---|")
	for _, n := range []int{100, 1000, size(t, 10000)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, n)
			w.seed()
			// In turn, as the machine is not equally fast all the time: the one in the middle counts.
			var starts []started
			var d *daemon
			for range 3 {
				if d != nil {
					d.stop()
				}
				s := started{bare: w.bare()}
				began := time.Now()
				d = start(t, program, environment(w, "TIWKEYD_SCHEDULE=@yearly"))
				for w.counts().requests["read"] < n {
					time.Sleep(10 * time.Millisecond)
				}
				d.ready(t, began)
				s.took = time.Since(began)
				t.Logf("bare %.2f s, ready after %.2f s", s.bare.Seconds(), s.took.Seconds())
				starts = append(starts, s)
			}
			slices.SortFunc(starts, func(a, b started) int { return cmp.Compare(a.took-a.bare, b.took-b.bare) })
			s := starts[1]
			if got := d.metric(t, "tiwkeyd_targets"); got != float64(n) {
				t.Fatalf("it looks after %g targets", got)
			}
			time.Sleep(30 * time.Second)
			cpu, from := d.cpu(t), time.Now()
			time.Sleep(3 * time.Minute)
			share := (d.cpu(t) - cpu).Seconds() / time.Since(from).Seconds()
			fmt.Printf("| %d | %.2f s | %.2f s | %.2f s | %.2f %% | %.1f MB | %.1f MB | %s |\n", n, s.bare.Seconds(), s.took.Seconds(), (s.took - s.bare).Seconds(), 100*share,
				float64(d.rss(t, "VmRSS"))/1e6, float64(d.rss(t, "VmHWM"))/1e6, time.Duration(d.metric(t, "tiwkeyd_look_interval_seconds"))*time.Second)
		})
	}
}

// started is how long it took to list and read all, with nothing else and at a start.
type started struct{ bare, took time.Duration }

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
