package webhook

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// fleet is a front of so many applications, and its Cache.
type fleet struct {
	*front
	place   *place
	cache   *Cache
	targets []Target
}

func newFleet(ctx context.Context, n int, o Options) *fleet {
	p, targets := crowd(n)
	p.slow = 20 * time.Millisecond
	f := &fleet{place: p, targets: targets, cache: NewCache(ctx, p, CacheOptions{}, targets...)}
	o.Keys, o.Now = f.cache, time.Now
	f.front = newFront(o)
	return f
}

// signed is a callback of the nth application.
func signed(n int, key string) string {
	return string(tiwtest.Callback(int64(n+1), "WhiteboardPushStarted", 1, key, time.Now().Add(10*time.Minute)))
}

// flood sends so many forged callbacks a second to one application after the other, until ctx ends.
func (f *fleet) flood(ctx context.Context, perSecond int, applications ...int) {
	for i := 0; ctx.Err() == nil; i++ {
		body := signed(applications[i%len(applications)], "forged")
		go f.post(body)
		time.Sleep(time.Second / time.Duration(perSecond))
	}
}

func (f *fleet) end(cancel func()) {
	cancel()
	f.cache.Close()
	time.Sleep(time.Second)
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// tries sends a callback as Tencent does, 5 seconds after each answer that is not 200, and tells how
// often. It must never be called forged.
func (f *fleet) tries(t *testing.T, n int, key string) int {
	body := signed(n, key)
	for i := range 6 {
		switch w := f.post(body); w.Code {
		case http.StatusOK:
			return i + 1
		case http.StatusServiceUnavailable:
		default:
			t.Errorf("application %d was answered %d", n, w.Code)
		}
		time.Sleep(5 * time.Second)
	}
	return 7
}

// TestFloodOfOthers: who floods a thousand applications does not hold up another, but for the
// seconds in which each of them is flooded for the first time.
func TestFloodOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(ctx, 1001, Options{})
		time.Sleep(lately + time.Minute)
		go f.flood(ctx, 200, upTo(1000)...)
		time.Sleep(5 * time.Second)
		f.place.put(f.targets[1000], "first")
		if tries := f.tries(t, 1000, "first"); tries > 2 {
			t.Errorf("at the beginning: %d tries", tries)
		}
		for i := range 5 {
			time.Sleep(7300 * time.Millisecond)
			key := fmt.Sprint("new", i)
			f.place.put(f.targets[1000], key)
			began := time.Now()
			if tries, took := f.tries(t, 1000, key), time.Since(began); tries != 1 || took > 100*time.Millisecond {
				t.Errorf("a new key: %d tries, %s", tries, took)
			}
		}
		f.end(cancel)
	})
}

// TestFloodOfAll: of two thousand applications that are all flooded, propagation 0, none is refused
// for longer than Tencent repeats a callback, not even one that was flooded more than others.
func TestFloodOfAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(ctx, 2000, Options{})
		time.Sleep(lately + time.Minute)
		go f.flood(ctx, 100, 7)
		time.Sleep(30 * time.Second)
		go f.flood(ctx, 200, upTo(2000)...)
		time.Sleep(30 * time.Second)
		var group sync.WaitGroup
		for _, n := range []int{7, 70, 700, 1700} {
			f.place.put(f.targets[n], "new")
			group.Go(func() {
				if tries := f.tries(t, n, "new"); tries > 4 {
					t.Errorf("application %d: %d tries", n, tries)
				}
			})
		}
		group.Wait()
		f.end(cancel)
	})
}

// TestSureTargets: with that many, a flood has no callback refused for a time, whichever it is of.
func TestSureTargets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(ctx, SureTargets, Options{})
		time.Sleep(lately + time.Minute)
		go f.flood(ctx, 50, 7)
		time.Sleep(30 * time.Second)
		go f.flood(ctx, 400, upTo(SureTargets)...)
		for i := range 5 {
			time.Sleep(3300 * time.Millisecond)
			for _, n := range []int{7, 100} {
				key := fmt.Sprint("new", i)
				f.place.put(f.targets[n], key)
				if tries := f.tries(t, n, key); tries != 1 {
					t.Errorf("application %d: %d tries", n, tries)
				}
			}
		}
		f.end(cancel)
	})
}

// TestFloodAndPropagation: a key that was written as long before it came into force as each target
// is read after is known by then, whatever comes in.
func TestFloodAndPropagation(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of thousands of callbacks")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(ctx, n, Options{})
		time.Sleep(lately + time.Minute)
		go f.flood(ctx, 500, upTo(n)...)
		time.Sleep(10 * time.Second)
		for i := range n {
			f.place.put(f.targets[i], fmt.Sprint(i), "new")
		}
		time.Sleep(EveryFor(n))
		now := time.Now()
		for i := range n {
			if w := f.post(signed(i, "new")); w.Code != 200 {
				t.Fatalf("application %d: %d", i, w.Code)
			}
		}
		if took := time.Since(now); took > f.place.slow {
			t.Errorf("the keys of some were not known: it took %s", took)
		}
		f.end(cancel)
	})
}

// TestTurns go by urgency and then by who asked first, and none is lost on who has left.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		turns := newTurns()
		turns.pace.ReserveN(time.Now(), rereadsPerSecond)
		go turns.give(ctx)
		var mu sync.Mutex
		var order []int
		far := time.Now().Add(time.Hour)
		for i, u := range []urgency{flooded, quiet, flooded, rotating, quiet, rotating} {
			go func() {
				turns.await(ctx, u, far)
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		began := time.Now()
		turns.await(ctx, rotating, began.Add(time.Millisecond)) // its reading is due
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("a reading that is due waited %s", took)
		}
		time.Sleep(time.Second/rereadsPerSecond*6 - time.Millisecond)
		synctest.Wait()
		if !slices.Equal(order, []int{3, 5, 1, 4, 0, 2}) {
			t.Errorf("order: %v", order)
		}
		cancel()
		synctest.Wait()
	})
}

// late is a place that takes longer for one target.
type late struct {
	*place
	target Target
}

func (l *late) ReadKeys(ctx context.Context, t Target) (Keys, error) {
	if t == l.target {
		time.Sleep(300 * time.Millisecond)
	}
	return l.place.ReadKeys(ctx, t)
}

// TestUrgency: what a target's readings on demand have come to tells how urgent the next is.
func TestUrgency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("one")
		record := Target{SdkAppID: testApp, Service: secrets.OnlineRecord}
		p.put(record, "record")
		c := NewCache(t.Context(), &late{p, testTarget}, CacheOptions{Every: time.Minute}, testTarget, record)
		defer c.Close()
		a := c.apps[testApp]
		at := func(what string, push, recorded urgency) {
			t.Helper()
			if x, y := a.urgency(a.rings[0]), a.urgency(a.rings[1]); x != push || y != recorded {
				t.Errorf("%s: %d and %d, not %d and %d", what, x, y, push, recorded)
			}
		}
		ask := func() { _, _ = c.Reread(t.Context(), testApp, never) }
		time.Sleep(time.Second)
		at("at the beginning", rotating, rotating)
		time.Sleep(lately)
		at("later", quiet, quiet)
		ask()
		at("asked in vain", flooded, flooded)
		p.put(record, "record", "pending")
		time.Sleep(time.Second)
		ask()
		at("a new key", rotating, rotating) // the reading of the other one, which ended later, was not in vain
		time.Sleep(time.Second)
		ask()
		at("in vain since", flooded, flooded)
		time.Sleep(lately)
		at("later again", quiet, quiet)
		p.change(func() { p.away = errAway })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _ = c.Reread(ctx, testApp, never)
		at("away", flooded, flooded)
	})
}

// TestOneDemandOneReading: what was asked for while a reading waited for its turn is done with it.
func TestOneDemandOneReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("one")
		c := NewCache(t.Context(), p, CacheOptions{Every: time.Hour}, testTarget)
		defer c.Close()
		time.Sleep(2 * time.Hour)
		_, _ = c.Reread(t.Context(), testApp, never)
		before := p.count()
		var group sync.WaitGroup
		for i := range 9 {
			group.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				_, _ = c.Reread(t.Context(), testApp, never)
			})
		}
		group.Wait()
		time.Sleep(time.Minute)
		if n := p.count() - before; n != 1 {
			t.Errorf("%d readings for demands within a second", n)
		}
	})
}
