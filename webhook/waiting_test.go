package webhook

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRoomToWait: what waits for keys is bounded, in memory and in number. It holds up nothing that
// need not wait, long ones do not take the room of short ones, and what finds no room is read for.
func TestRoomToWait(t *testing.T) {
	t.Parallel()
	const maxBody = 1 << 20
	long := strings.Repeat(" ", 30_000)
	longer := strings.Repeat(" ", 900_000)
	for what, c := range map[string]struct {
		o       Options
		padding string
		wait    int // of a hundred
		short   int // of a genuine short one with a new key
	}{
		"long":            {Options{MaxMemory: 8 * maxBody}, long, 32, 200},
		"longer":          {Options{MaxMemory: 200 * maxBody, MaxBody: maxBody}, longer, 29, 200},
		"many":            {Options{MaxWaiting: 40}, "", 40, 503},
		"room for all":    {Options{}, long, 100, 200},
		"long and many":   {Options{MaxMemory: 8 * maxBody, MaxWaiting: 100}, long, 32, 200},
		"a short maximum": {Options{MaxBody: 100_000, MaxMemory: 1}, long, 3, 200},
		"a shorter one":   {Options{MaxBody: 1000, MaxMemory: 1}, "", 16, 503},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t.Context(), 2, c.o)
				defer f.cache.Close()
				time.Sleep(time.Minute + 17*time.Millisecond)
				f.place.change(func() { f.place.slow = 3 * time.Second / 2 })
				time.Sleep(3 * time.Second)
				var mu sync.Mutex
				var group sync.WaitGroup
				at := map[int]int{} // by status
				for range 100 {
					group.Go(func() {
						w := f.post(signed(0, "x") + c.padding)
						mu.Lock()
						defer mu.Unlock()
						at[w.Code]++
						if w.Code == 503 && w.Header().Get("Retry-After") == "" {
							t.Error("no Retry-After")
						}
					})
				}
				synctest.Wait()
				mu.Lock()
				if at[503] != 100-c.wait || at[401] != 0 {
					t.Errorf("at once: %v", at)
				}
				mu.Unlock()
				began := time.Now()
				for _, body := range []string{signed(0, "0"), signed(0, "0") + longer} {
					if w := f.post(body); len(body) <= int(f.maxBody(c.o)) && (w.Code != 200 || time.Since(began) > 0) {
						t.Errorf("a held key meanwhile: %d after %s", w.Code, time.Since(began))
					}
				}
				f.place.put(f.targets[1], "new")
				if w := f.post(signed(1, "new")); w.Code != c.short {
					t.Errorf("a new key meanwhile: %d", w.Code)
				}
				time.Sleep(4 * time.Second)
				if w := f.post(signed(1, "new")); w.Code != 200 || f.last().Reread {
					t.Errorf("it comes again: %d %+v", w.Code, f.last())
				}
				group.Wait()
				if at[401] != c.wait {
					t.Errorf("in the end: %v", at)
				}
				if w := f.post(signed(0, "x") + c.padding); w.Code != 401 {
					t.Errorf("the room is not given back: %d", w.Code)
				}
			})
		})
	}
}

func (f *fleet) maxBody(o Options) int64 { return orElse(o.MaxBody, DefaultMaxBody) }

// TestAskedWithoutRoom: who finds no room to wait has the keys read all the same.
func TestAskedWithoutRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, targets := crowd(1)
		c := NewCache(t.Context(), p, CacheOptions{Every: time.Hour}, targets...)
		defer c.Close()
		time.Sleep(2 * time.Hour)
		v := NewVerifier(Options{Keys: c})
		if !v.waits.places.TryAcquire(1<<63 - 1) {
			t.Fatal("somebody waits")
		}
		p.put(targets[0], "new")
		_, err := v.Verify(t.Context(), []byte(signed(0, "new")))
		if ReasonOf(err) != Undecided || !strings.Contains(err.Error(), "too many callbacks wait") {
			t.Errorf("without room: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := v.Verify(t.Context(), []byte(signed(0, "new"))); err != nil {
			t.Errorf("it comes again: %v", err)
		}
	})
}
