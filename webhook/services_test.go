package webhook

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// reading is a Reader made of a function, which is called under a lock.
type reading struct {
	mu sync.Mutex
	f  func(t Target) (k Keys, hang bool, err error)
}

func (r *reading) ReadKeys(ctx context.Context, t Target) (Keys, error) {
	r.mu.Lock()
	k, hang, err := r.f(t)
	r.mu.Unlock()
	if hang {
		<-ctx.Done()
		return Keys{}, ctx.Err()
	}
	return k, err
}

func (r *reading) String() string { return "a function" }

func (r *reading) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

var recordTarget = Target{SdkAppID: testApp, Service: secrets.OnlineRecord}

func keyed(value string) Keys {
	return Keys{SdkAppID: testApp, Accept: []Key{secrets.NewKey("id-"+value, value)}}
}

// TestOneServiceHangs: it holds up neither a new key of another service nor its revocation.
func TestOneServiceHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang, current := false, keyed("leaked")
		r := &reading{f: func(t Target) (Keys, bool, error) {
			if t == recordTarget {
				return keyed("record"), hang, nil
			}
			return current, false, nil
		}}
		c := NewCache(t.Context(), r, CacheOptions{}, recordTarget, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(3 * time.Second)
		r.change(func() { hang, current = true, keyed(canaryB) })
		began := time.Now()
		if w := f.post(callback(canaryB)); w.Code != 200 || time.Since(began) > time.Second {
			t.Errorf("a new key of the healthy service: %d after %s", w.Code, time.Since(began))
		}
		time.Sleep(time.Second - time.Since(began))
		if w := f.post(callback("leaked")); w.Code == 200 {
			t.Error("a second after its revocation the key is accepted")
		}
		if w := f.post(callback("forged")); w.Code != 503 {
			t.Errorf("what the hanging service might explain: %d", w.Code)
		}
	})
}

// TestOneServiceWithoutKeyring: that there is none is an answer.
func TestOneServiceWithoutKeyring(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(t.Context(), newPlace(canaryA), CacheOptions{}, testTarget, recordTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(3 * time.Second)
		began := time.Now()
		if w := f.post(callback("forged")); w.Code != 401 || time.Since(began) > time.Second {
			t.Errorf("a forged callback is answered %d after %s", w.Code, time.Since(began))
		}
	})
}

// TestNoKeyringYet: of an application that nobody has taken over yet, nobody knows what is
// genuine. It is not waited for.
func TestNoKeyringYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace()
		p.change(func() { p.keys = map[Target]Keys{} })
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(3 * time.Second)
		began := time.Now()
		if w := f.post(callback(canaryA)); w.Code != 503 || time.Since(began) > time.Second {
			t.Errorf("%d after %s", w.Code, time.Since(began))
		}
		if c.Ready() {
			t.Error("it is ready without any key")
		}
	})
}

// TestOneReadingHangs: who waits for the next is served in time.
func TestOneReadingHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := true
		r := &reading{f: func(Target) (Keys, bool, error) {
			h := hang
			hang = false
			return keyed(canaryA), h, nil
		}}
		c := NewCache(t.Context(), r, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(50 * time.Millisecond)
		if w := f.post(callback(canaryA)); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestSlowPlace: one that always takes longer than a reading is given at first is read all the
// same, and one that is fast again is given up early again.
func TestSlowPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(canaryA)
		p.slow = 5 * time.Second
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		time.Sleep(20 * time.Second)
		s := c.Status()[0]
		if s.ReadAt.IsZero() || s.Err != nil {
			t.Errorf("%+v", s)
		}
		p.change(func() { p.slow = 0 })
		time.Sleep(20 * time.Second)
		c.Close()
		if got := c.apps[testApp].rings[0].patience; got != leastPatience {
			t.Errorf("its readings are given %s", got)
		}
	})
}

// TestCareless: what a Reader makes a mistake about does not take the place of good keys.
func TestCareless(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gives := testKeys
		r := &reading{f: func(Target) (Keys, bool, error) { return gives, false, nil }}
		c := NewCache(t.Context(), r, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		for _, k := range []Keys{testKeys, {SdkAppID: testApp}, {}, {Accept: testKeys.Accept}, {SdkAppID: 7, Accept: testKeys.Accept}, {Accept: []Key{{}, testKeys.Accept[0]}}} {
			r.change(func() { gives = k })
			time.Sleep(5 * time.Second)
			if w := f.post(callback(canaryA)); w.Code != 200 {
				t.Errorf("after %v was read: %d %s", k, w.Code, w.Body)
			}
		}
	})
}

// flood asks for every target's keys anew, again and again, until ctx ends.
func flood(ctx context.Context, c *Cache, targets []Target) {
	for _, target := range targets {
		go func() {
			for ctx.Err() == nil {
				_, _ = c.Reread(ctx, target.SdkAppID, never)
			}
		}()
	}
}

// TestManyFlooded: the readings that callbacks of many applications ask for are bounded, too.
func TestManyFlooded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, targets := crowd(150)
		ctx, cancel := context.WithCancel(t.Context())
		c := NewCache(ctx, p, CacheOptions{Every: time.Hour}, targets...)
		time.Sleep(2 * time.Hour)
		before := p.count()
		flood(ctx, c, targets)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n := p.count() - before
		cancel()
		c.Close()
		if n < 950 || n > 1110 { // unbounded it would be 1500
			t.Errorf("%d readings in ten seconds", n)
		}
	})
}

// TestClosedCache tells at once that it cannot read any more.
func TestClosedCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(t.Context(), newPlace(canaryA), CacheOptions{}, testTarget)
		time.Sleep(3 * time.Second)
		c.Close()
		f := newFront(Options{Keys: c})
		began := time.Now()
		if w := f.post(callback(canaryB)); w.Code != 503 || time.Since(began) != 0 {
			t.Errorf("%d after %s", w.Code, time.Since(began))
		}
		if w := f.post(callback(canaryA)); w.Code != 200 {
			t.Errorf("a held key: %d", w.Code)
		}
		if _, err := c.Reread(t.Context(), testApp, never); !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

// TestRereadUnsigned: that unsigned callbacks are genuine may be news, too.
func TestRereadUnsigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace("x")
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget, recordTarget)
		defer c.Close()
		time.Sleep(3 * time.Second)
		p.change(func() { p.keys[recordTarget] = Keys{SdkAppID: testApp, AcceptUnsigned: true} })
		strict, lenient := newFront(Options{Keys: c}), newFront(Options{Keys: c, AllowUnsigned: true})
		if w := strict.post(callback("")); w.Code != 401 || strict.last().Reread {
			t.Errorf("%d %+v", w.Code, strict.last())
		}
		if w := lenient.post(callback("")); w.Code != 200 || !lenient.last().Reread {
			t.Errorf("%d %+v", w.Code, lenient.last())
		}
		for body, want := range map[string]int{"{}": 400, with(t, "1893456000", "1893455000"): 401} {
			if w := lenient.post(body); w.Code != want || lenient.last().Reread {
				t.Errorf("%d %+v", w.Code, lenient.last())
			}
		}
	})
}

// TestKeyringGone: that a keyring was there and is no more, as on a volume that is not mounted,
// is no proof that a signature is forged.
func TestKeyringGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(canaryA)
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(3 * time.Second)
		p.change(func() { p.keys = map[Target]Keys{} })
		if w := f.post(callback(canaryB)); w.Code != 503 {
			t.Errorf("%d", w.Code)
		}
		if w := f.post(callback(canaryA)); w.Code != 200 {
			t.Errorf("a held key: %d", w.Code)
		}
	})
}

// TestFloodDelaysNothing: readings that callbacks ask for put off none that is due.
func TestFloodDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, targets := crowd(300)
		ctx, cancel := context.WithCancel(t.Context())
		c := NewCache(ctx, p, CacheOptions{Every: time.Second}, targets...)
		time.Sleep(5 * time.Second)
		flood(ctx, c, targets)
		time.Sleep(7*time.Second + 500*time.Millisecond)
		synctest.Wait()
		oldest := time.Duration(0)
		for _, s := range c.Status() {
			oldest = max(oldest, time.Since(s.ReadAt))
		}
		cancel()
		c.Close()
		if oldest > time.Second {
			t.Errorf("the keys of one are %s old", oldest)
		}
	})
}

// failing is a KeySource that cannot read.
type failing struct{ n int }

func (f *failing) Keys(int64) (Keys, bool) { return testKeys, true }
func (f *failing) Reread(context.Context, int64, func(Keys) bool) (Keys, error) {
	f.n++
	return testKeys, errAway
}

func TestFailingSource(t *testing.T) {
	t.Parallel()
	s := &failing{}
	f := newFront(Options{Keys: s})
	if w := f.post(callback("x")); w.Code != 503 || s.n != 1 {
		t.Errorf("%d after %d calls", w.Code, s.n)
	}
}
