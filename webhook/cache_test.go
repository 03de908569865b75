package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// place is where keys are kept in these tests.
type place struct {
	mu    sync.Mutex
	keys  map[Target]Keys
	away  error
	slow  time.Duration
	reads []time.Time
}

func newPlace(values ...string) *place {
	p := &place{keys: map[Target]Keys{}}
	p.put(testTarget, values...)
	return p
}

// crowd is a place of so many targets. Application n has the key id-(n-1).
func crowd(n int) (*place, []Target) {
	p, targets := newPlace(), make([]Target, n)
	for i := range targets {
		targets[i] = Target{SdkAppID: int64(i + 1), Service: secrets.Transcode}
		p.put(targets[i], fmt.Sprint(i))
	}
	return p, targets
}

func (p *place) put(t Target, values ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := Keys{SdkAppID: t.SdkAppID}
	for _, v := range values {
		k.Accept = append(k.Accept, secrets.NewKey("id-"+v, v))
	}
	p.keys[t] = k
}

func (p *place) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// ReadKeys gives what is there when the reading begins, after as long as it takes.
func (p *place) ReadKeys(ctx context.Context, t Target) (Keys, error) {
	p.mu.Lock()
	p.reads = append(p.reads, time.Now())
	k, away, slow := p.keys[t], p.away, p.slow
	p.mu.Unlock()
	if slow > 0 { // a timer that is due at once can crash under the race detector (golang/go#78156)
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return Keys{}, ctx.Err()
		}
	}
	if away != nil {
		return Keys{}, away
	}
	if k.SdkAppID == 0 {
		return Keys{}, ErrNoKeyring
	}
	return k, nil
}

func (p *place) String() string { return "a place" }

func (p *place) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.reads)
}

func held(c *Cache) string {
	k, _ := c.Keys(testApp)
	return strings.Join(ids(k), " ")
}

// never is what no keys are enough for.
func never(Keys) bool { return false }

var errAway = errors.New("the place is away")

// TestCacheReadsOlderVersions: what is read and older than before takes no key away, for an hour.
func TestCacheReadsOlderVersions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPlace()
		put := func(version int64, unsigned bool, values ...string) {
			p.put(testTarget, values...)
			p.change(func() {
				k := p.keys[testTarget]
				k.Version, k.AcceptUnsigned = version, unsigned
				p.keys[testTarget] = k
			})
		}
		put(5, false, "a", "b")
		c := NewCache(t.Context(), p, CacheOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
		defer c.Close()
		for _, step := range []struct {
			version  int64
			unsigned bool
			values   []string
			pass     time.Duration
			want     string
		}{
			{5, false, []string{"a", "b"}, 10 * time.Second, "id-a id-b"},
			{3, true, []string{"b", "c"}, 10 * time.Second, "id-a id-b id-c"},
			{4, true, []string{"d"}, 10 * time.Second, "id-a id-b id-d"},
			{5, false, []string{"a", "b"}, 10 * time.Second, "id-a id-b"},
			{4, true, []string{"d"}, 50 * time.Minute, "id-a id-b id-d"},
			{6, false, []string{"e"}, 10 * time.Second, "id-e"},
			{2, false, []string{"f"}, newestKept - time.Minute, "id-e id-f"},
			{2, false, []string{"f"}, 2 * time.Minute, "id-f"},
			{3, false, []string{"g"}, 10 * time.Second, "id-g"},
		} {
			put(step.version, step.unsigned, step.values...)
			time.Sleep(step.pass)
			synctest.Wait()
			k, _ := c.Keys(testApp)
			if got := held(c); got != step.want || k.AcceptUnsigned {
				t.Errorf("version %d: %s are held, not %s; unsigned %t", step.version, got, step.want, k.AcceptUnsigned)
			}
		}
		c.Close()
		if n := strings.Count(log.String(), "an older version was read"); n != 4 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
	})
}

// TestCacheReadsVersionsNumberedAnew: a store that was put back, or lost what it had acknowledged, gives numbers a second
// time, while a node of it may tell of those before. Whatever is read then, keys of both are accepted until one version
// has come after all by number and by time.
func TestCacheReadsVersionsNumberedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, start := newPlace(), time.Now()
		put := func(version int64, written time.Duration, value string) {
			p.put(testTarget, value)
			p.change(func() {
				k := p.keys[testTarget]
				k.Version, k.Written, k.AcceptUnsigned = version, start.Add(written), value == "unsigned"
				p.keys[testTarget] = k
			})
		}
		put(175, 5, "a")
		var log bytes.Buffer
		c := NewCache(t.Context(), p, CacheOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
		defer c.Close()
		for i, step := range []struct {
			version  int64
			written  time.Duration
			value    string
			pass     time.Duration
			want     string
			unsigned bool
		}{
			{175, 5, "a", 10 * time.Second, "id-a", false},
			{175, 6, "x", 10 * time.Second, "id-a id-x", false}, // 175 is lost, and written once more
			{175, 5, "a", 10 * time.Second, "id-x id-a", false}, // a node has not learned of it
			{176, 6, "a", 10 * time.Second, "id-a", false},
			{170, 7, "b", 10 * time.Second, "id-a id-b", false}, // 171 to 176 are lost
			{176, 6, "a", 10 * time.Second, "id-b id-a", false},
			{169, 4, "z", 10 * time.Second, "id-b id-a id-z", false},
			{171, 8, "c", 10 * time.Second, "id-a id-c", false},
			{176, 6, "a", 10 * time.Second, "id-c id-a", false},
			{1, 9, "unsigned", 10 * time.Second, "id-c id-a id-unsigned", true}, // made anew
			{2, 10, "d", 50 * time.Minute, "id-c id-a id-d", false},
			{2, 10, "d", 11 * time.Minute, "id-d", false},
			{177, 9, "e", 10 * time.Second, "id-d id-e", false}, // one of two clocks is wrong
			{178, 11, "f", 10 * time.Second, "id-f", false},
		} {
			put(step.version, step.written, step.value)
			time.Sleep(step.pass)
			synctest.Wait()
			if k, _ := c.Keys(testApp); held(c) != step.want || k.AcceptUnsigned != step.unsigned {
				t.Errorf("step %d: %s are held, not %s; unsigned %t", i, held(c), step.want, k.AcceptUnsigned)
			}
		}
		c.Close()
		if !strings.Contains(log.String(), "numbered anew") {
			t.Errorf("nobody is told:\n%s", log.String())
		}
	})
}

// TestCachePace: one reading a second, the second one early by chance, and no more of them
// whatever asks for some.
func TestCachePace(t *testing.T) {
	t.Parallel()
	for _, flood := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace("one")
			ctx, cancel := context.WithCancel(t.Context())
			c := NewCache(ctx, p, CacheOptions{}, testTarget)
			if flood {
				for range 50 {
					go func() {
						for ctx.Err() == nil {
							if _, err := c.Reread(ctx, testApp, never); err != nil && ctx.Err() == nil {
								t.Error(err)
							}
						}
					}()
				}
			}
			time.Sleep(time.Minute)
			cancel()
			c.Close()
			synctest.Wait()
			for i := 2; i < len(p.reads); i++ {
				if gap := p.reads[i].Sub(p.reads[i-1]); gap != time.Second {
					t.Fatalf("flood %v: reading %d came %s after the one before", flood, i, gap)
				}
			}
			if n := len(p.reads); n < 60 || n > 62 {
				t.Errorf("flood %v: %d readings in a minute", flood, n)
			}
		})
	}
}

// TestCachePhase: receivers that start together do not read together for long.
func TestCachePhase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		second := map[time.Duration]bool{}
		for range 20 {
			p := newPlace("one")
			c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
			time.Sleep(1500 * time.Millisecond)
			c.Close()
			second[p.reads[1].Sub(p.reads[0])] = true
		}
		if len(second) < 15 {
			t.Errorf("the second readings came after %v", second)
		}
	})
}

// TestCacheRevoke: a key that is taken out of the keyring is held for a second at most,
// wherever in its second a cache is.
func TestCacheRevoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for wait := 3 * time.Second; wait < 4*time.Second; wait += 97 * time.Millisecond {
			p := newPlace("leaked", "new")
			c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
			time.Sleep(wait)
			if held(c) != "id-leaked id-new" {
				t.Fatalf("held: %s", held(c))
			}
			p.put(testTarget, "new")
			time.Sleep(time.Second)
			synctest.Wait()
			if held(c) != "id-new" {
				t.Errorf("a second after the revocation it holds %s", held(c))
			}
			c.Close()
		}
	})
}

// TestCacheReread: everybody who waits is served by one reading, and by one that began after
// they asked.
func TestCacheReread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("one")
		p.slow = 300 * time.Millisecond
		c := NewCache(t.Context(), p, CacheOptions{Every: time.Hour}, testTarget)
		defer c.Close()
		// The first reading is under way and has seen the old keys.
		time.Sleep(100 * time.Millisecond)
		p.put(testTarget, "two")
		var group sync.WaitGroup
		for range 1000 {
			group.Go(func() {
				if k, err := c.Reread(t.Context(), testApp, never); err != nil || len(k.Accept) != 1 || k.Accept[0].ID() != "id-two" {
					t.Errorf("%v, %v", k.Accept, err)
				}
			})
		}
		group.Wait()
		if n := p.count(); n != 2 {
			t.Errorf("%d readings for a thousand who waited", n)
		}
	})
}

func TestCacheAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("one")
		p.away = errAway
		var log bytes.Buffer
		c := NewCache(t.Context(), p, CacheOptions{Log: slog.New(slog.NewTextHandler(&log, nil))}, testTarget)
		time.Sleep(10 * time.Second)
		if k, ok := c.Keys(testApp); !ok || len(k.Accept) != 0 || c.Ready() || !c.Status()[0].ReadAt.IsZero() {
			t.Errorf("while nothing was ever read: %v %v %+v", k, ok, c.Status())
		}
		short, done := context.WithTimeout(t.Context(), 3*time.Second)
		defer done()
		if _, err := c.Reread(short, testApp, never); !errors.Is(err, errAway) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("asked meanwhile: %v", err)
		}
		p.change(func() { p.away = nil })
		time.Sleep(3 * time.Second)
		if held(c) != "id-one" || !c.Ready() {
			t.Errorf("when it is back: %s", held(c))
		}
		p.change(func() { p.away = errAway })
		time.Sleep(time.Hour)
		synctest.Wait()
		s := c.Status()[0]
		if held(c) != "id-one" || !c.Ready() || !errors.Is(s.Err, errAway) || time.Since(s.ReadAt) < time.Hour-2*time.Second || !slices.Equal(s.KeyIDs, []string{"id-one"}) {
			t.Errorf("an hour later: %s, %+v", held(c), s)
		}
		p.change(func() { p.slow = time.Second })
		time.Sleep(4 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if k, err := c.Reread(ctx, testApp, never); !errors.Is(err, context.DeadlineExceeded) || len(k.Accept) != 1 {
			t.Errorf("who waited too short a time: %v, %v", k.Accept, err)
		}
		p.change(func() { p.away, p.slow = nil, time.Hour })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := c.Status()[0]; !errors.Is(s.Err, context.DeadlineExceeded) {
			t.Errorf("readings that hang are given up: %v", s.Err)
		}
		p.change(func() { p.slow = 0 })
		time.Sleep(20 * time.Second)
		c.Close()
		if strings.Count(log.String(), "cannot be read, and never were") != 1 || strings.Count(log.String(), "those read last stay in use") != 1 {
			t.Errorf("it was told more or less than once, each time, that the place is away:\n%s", log.String())
		}
		if !strings.Contains(log.String(), "can be read again") || strings.Count(log.String(), "keys read") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// TestCacheMany: of many targets each is read less often.
func TestCacheMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, targets := crowd(200)
		c := NewCache(t.Context(), p, CacheOptions{}, targets...)
		time.Sleep(11 * time.Second)
		before := p.count()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := p.count() - before; n < 1900 || n > 2100 {
			t.Errorf("%d readings of 200 targets in 100 seconds", n)
		}
		c.Close()
		if k, ok := c.Keys(17); !ok || ids(k)[0] != "id-16" {
			t.Errorf("%v %v", k, ok)
		}
		if _, ok := c.Keys(testApp); ok {
			t.Error("an application that is not served")
		}
		if _, err := c.Reread(t.Context(), testApp, never); err == nil {
			t.Error("an application that is not served was read")
		}
	})
}

// TestCacheServices: the keys of all services of an application are accepted, and a service
// without a keyring does not hide the others.
func TestCacheServices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("push")
		record := Target{SdkAppID: testApp, Service: secrets.OnlineRecord}
		c := NewCache(t.Context(), p, CacheOptions{}, record, testTarget)
		defer c.Close()
		time.Sleep(time.Second)
		if k, _ := c.Keys(testApp); held(c) != "id-push" || k.SdkAppID != testApp || !c.Ready() {
			t.Errorf("with one keyring: %+v", k)
		}
		p.put(record, "record")
		time.Sleep(3 * time.Second)
		if held(c) != "id-record id-push" || !c.Ready() {
			t.Errorf("with both: %s", held(c))
		}
		if s := c.Status(); len(s) != 2 || s[0].Target != record {
			t.Errorf("status: %+v", s)
		}
	})
}

// TestCacheUnsigned: callbacks sent unsigned a moment before the first key came into force are
// still on their way.
func TestCacheUnsigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("first")
		p.change(func() { p.keys[testTarget] = Keys{SdkAppID: testApp, AcceptUnsigned: true} })
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		time.Sleep(time.Hour)
		p.put(testTarget, "first")
		time.Sleep(50 * time.Second)
		if k, _ := c.Keys(testApp); !k.AcceptUnsigned || len(k.Accept) != 1 {
			t.Errorf("%+v", k)
		}
		time.Sleep(15 * time.Second)
		if k, _ := c.Keys(testApp); k.AcceptUnsigned {
			t.Error("more than a minute later")
		}
	})
}
