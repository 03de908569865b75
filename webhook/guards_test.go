package webhook

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestRereadAmidReading: what is asked for while a reading is under way does not wait until
// the next one is due, and has one reading more made. Who has the keys read more often than
// once a second does not wait that long.
func TestRereadAmidReading(t *testing.T) {
	t.Parallel()
	for every, want := range map[time.Duration]time.Duration{1000 * time.Hour: rereadPause, 200 * time.Millisecond: 200 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace("one")
			p.slow = 100 * time.Millisecond
			c := NewCache(t.Context(), p, CacheOptions{Every: every}, testTarget)
			defer c.Close()
			synctest.Wait()
			began := time.Now()
			for range 2 {
				go func() { _, _ = c.Reread(t.Context(), testApp, never) }()
			}
			if _, err := c.Reread(t.Context(), testApp, never); err != nil || time.Since(began) > want+p.slow {
				t.Errorf("every %s: it took %s: %v", every, time.Since(began), err)
			}
			time.Sleep(time.Minute)
			if n := p.count(); every > time.Hour && n != 2 {
				t.Errorf("%d readings", n)
			}
		})
	}
}

// keeping is a Reader and a KeySource that keeps the context it is called with. It comes back
// late if it is told to.
type keeping struct {
	ctx  context.Context
	late time.Duration
	back bool
}

func (k *keeping) ReadKeys(ctx context.Context, _ Target) (Keys, error) {
	if k.ctx = ctx; k.late > 0 {
		<-ctx.Done()
		time.Sleep(k.late)
	}
	k.back = true
	return testKeys, ctx.Err()
}
func (*keeping) String() string          { return "a keeper" }
func (*keeping) Keys(int64) (Keys, bool) { return Keys{SdkAppID: testApp}, true }
func (k *keeping) Reread(ctx context.Context, _ int64, _ func(Keys) bool) (Keys, error) {
	k.ctx = ctx
	return testKeys, errAway
}

// TestCloseWaits: when a Cache is closed nothing of it is left, nor does it complain of what
// it broke off itself.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	for late := range 2 {
		synctest.Test(t, func(t *testing.T) {
			k := &keeping{late: time.Duration(late) * time.Second}
			var log bytes.Buffer
			c := NewCache(t.Context(), k, CacheOptions{Every: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
			synctest.Wait()
			if late == 0 && k.ctx.Err() == nil {
				t.Error("the context of a reading that has ended goes on")
			}
			began := time.Now()
			c.Close()
			if time.Since(began) != k.late {
				t.Errorf("closing took %s", time.Since(began))
			}
			if !k.back || strings.Contains(log.String(), "cannot be read") {
				t.Errorf("a reading goes on: %v; log: %s", !k.back, &log)
			}
		})
	}
}

// TestRereadInTime: a source is given the time that was asked for, which is over with the
// callback. Keys that explain it do, whatever else could not be read.
func TestRereadInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &keeping{}
		f := newFront(Options{Keys: k, RereadTimeout: 7 * time.Second})
		if w := f.post(callback(canaryA)); w.Code != 200 || f.last().KeyID != "a" {
			t.Errorf("%d %+v", w.Code, f.last())
		}
		if end, ok := k.ctx.Deadline(); !ok || time.Until(end) != 7*time.Second || k.ctx.Err() == nil {
			t.Errorf("until %s, %v", end, k.ctx.Err())
		}
	})
}

// deaf is a Reader that does not mind its context.
type deaf struct{ Reader }

func (d deaf) ReadKeys(_ context.Context, t Target) (Keys, error) {
	return d.Reader.ReadKeys(context.Background(), t)
}

// TestPatience: how long the next reading is given, after one that took some time.
func TestPatience(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, c := range []struct {
		patience, slow, want time.Duration
		away                 error
		deaf                 bool
	}{
		{patience: 8 * s, slow: 1999 * time.Millisecond, want: 4 * s}, {patience: 8 * s, slow: 3 * s, want: 8 * s}, {patience: 3 * s, want: leastPatience},
		{patience: 8 * s, away: errAway, want: 8 * s}, {patience: 2 * s, slow: s, away: errAway, want: 2 * s}, {patience: 2 * s, slow: 3 * s, deaf: true, want: 2 * s},
		{patience: 2 * s, slow: time.Hour, want: 4 * s}, {patience: 6 * s, slow: time.Hour, want: mostPatience},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace("one")
			p.slow, p.away = c.slow, c.away
			cache := &Cache{reader: p, log: slog.New(slog.DiscardHandler)}
			if c.deaf {
				cache.reader = deaf{p}
			}
			r := &ring{target: testTarget, patience: c.patience}
			cache.read(t.Context(), &app{more: make(chan struct{}), rings: []*ring{r}}, r)
			if r.patience != c.want {
				t.Errorf("%+v: then %s", c, r.patience)
			}
		})
	}
}

// TestFailingPace: a place that is away is asked less often, and not by all at once.
func TestFailingPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("one")
		p.away = errAway
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		time.Sleep(time.Minute)
		c.Close()
		gaps := map[time.Duration]bool{}
		for i := 2; i < len(p.reads); i++ {
			gap := p.reads[i].Sub(p.reads[i-1])
			if gaps[gap] = true; gap < time.Second || gap >= 2*time.Second {
				t.Errorf("reading %d came %s after the one before", i, gap)
			}
		}
		if len(gaps) < 20 {
			t.Errorf("they came after %v", gaps)
		}
	})
}

// TestCacheTells of a change what changed, and of none nothing.
func TestCacheTells(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("the-first")
		var log bytes.Buffer
		c := NewCache(t.Context(), p, CacheOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
		defer c.Close()
		lenient := keyed("the-second")
		lenient.AcceptUnsigned = true
		for _, step := range []struct {
			want string
			keys Keys
		}{{"accept=[id-the-first]", keyed("the-first")}, {"", keyed("the-first")}, {"accept=[id-the-second]", keyed("the-second")}, {"accept_unsigned=true", lenient}, {"accept_unsigned=false", keyed("the-second")}, {"fewer than 8 characters", keyed("1234567")}, {"", keyed("1234567")}, {"accept=[id-12345678]", keyed("12345678")}, {"is empty", Keys{SdkAppID: testApp, Accept: make([]Key, 1)}}} {
			p.change(func() { p.keys[testTarget] = step.keys })
			time.Sleep(10 * time.Second)
			synctest.Wait()
			lines := min(1, len(step.want))
			if strings.Contains(step.want, "fewer") {
				lines++
			}
			if got := log.String(); !strings.Contains(got, step.want) || strings.Count(got, "\n") != lines {
				t.Errorf("%s: %s", step.want, got)
			}
			log.Reset()
		}
	})
}

// TestLookedAt: a Cache is not ready before every target was looked at, and tells of them in order.
func TestLookedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := true
		r := &reading{f: func(at Target) (Keys, bool, error) { return keyed("one"), hang && at == recordTarget, nil }}
		targets := []Target{testTarget, recordTarget}
		for i := range 30 {
			targets = append(targets, Target{SdkAppID: int64(100 - i), Service: testTarget.Service})
		}
		c := NewCache(t.Context(), r, CacheOptions{}, targets...)
		defer c.Close()
		synctest.Wait()
		if s := c.Status(); c.Ready() || len(s) != 32 || !slices.IsSortedFunc(s, func(x, y Status) int { return x.Target.Compare(y.Target) }) {
			t.Errorf("ready: %v; %+v", c.Ready(), s)
		}
		r.change(func() { hang = false })
		time.Sleep(time.Minute)
		if !c.Ready() {
			t.Error("it is not ready")
		}
	})
}

// TestUnsignedIsKnown: of an application that has no key yet, a signature is known to be bad.
func TestUnsignedIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace()
		p.change(func() { p.keys[testTarget] = Keys{SdkAppID: testApp, AcceptUnsigned: true} })
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget, recordTarget)
		defer c.Close()
		time.Sleep(3 * time.Second)
		if w := newFront(Options{Keys: c}).post(callback(canaryA)); w.Code != 401 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestJoin alters none of what it joins.
func TestJoin(t *testing.T) {
	t.Parallel()
	shared := keyed("one")
	shared.Accept = append(shared.Accept, keyed("two").Accept...)
	first := shared
	first.Accept, first.AcceptUnsigned = shared.Accept[:1], true
	if all := join([]Keys{first, keyed("three")}); strings.Join(ids(all), " ") != "id-one id-three" || strings.Join(ids(shared), " ") != "id-one id-two" || !all.AcceptUnsigned {
		t.Errorf("%v, of %v", all, shared)
	}
}

// TestFileErrors: what is no file of keys is told by its own words, and is not waited for.
func TestFileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	good := write("good", canaryA+strings.Repeat("\n", maxFile-len(canaryA)))
	for r, want := range map[fmt.Stringer]string{File(pipe): "is not a file", File(dir): "is not a file", File("/proc/self/mem"): "read the keys of", File(write("long", strings.Repeat("\n", maxFile+1))): "larger",
		File(good): "", File(write("spaces", ` {"accept":["x"]}`)): ""} {
		for range 10 {
			if _, err := r.(Reader).ReadKeys(t.Context(), testTarget); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || !strings.HasSuffix(r.String(), string(r.(File))) {
				t.Fatalf("%s: %v", r, err)
			}
		}
	}
	if _, err := (Files{}).ReadKeys(t.Context(), testTarget); err == nil || !strings.Contains(err.Error(), "there is no file for") || FileStore("x").String() != "file store x" {
		t.Error(err)
	}
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, _ := os.Readlink("/dev/fd/" + fd.Name()); to == good {
			t.Error("it is still open")
		}
	}
}

// TestReplayPlaces: whichever of several callbacks fails is the one that is forgotten.
func TestReplayPlaces(t *testing.T) {
	t.Parallel()
	for failing := range 5 {
		g := NewReplayGuard(10)
		var all []*sighting
		for _, expires := range []int64{50, 10, 40, 20, 30} {
			all = append(all, admitted(g, digestOf([]byte{byte(expires)}), expires, time.Unix(1, 0)))
		}
		g.end(all[failing], false)
		for place, s := range g.expiry {
			if s == all[failing] || s.place != place || g.seen[s.digest] != s || len(g.seen) != 4 || len(g.expiry) != 4 {
				t.Errorf("the one that expires at %d failed: %d are remembered, %+v at %d", all[failing].expires, len(g.seen), s, place)
			}
		}
	}
}
