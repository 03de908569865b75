package webhook

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/tencent/tiwtest"
)

// TestSameRefusals: the sender of what is not let pass is told nothing of why.
func TestSameRefusals(t *testing.T) {
	t.Parallel()
	f := newFront(Options{})
	expired := strings.Replace(callback(canaryA), "1893456000", "1893455000", 1) // of another ExpireTime: not signed well either
	wellSigned := strings.Replace(expired, tiwtest.Sign(canaryA, expiry2030), tiwtest.Sign(canaryA, 1893455000), 1)
	want := f.post(callback("x"))
	for what, body := range map[string]string{"unsigned": callback(""), "expired": expired, "expired, with a good signature": wellSigned,
		"not served": with(t, "1400000001", "7"), "not served, unsigned": strings.Replace(callback(""), "1400000001", "7", 1), "not served, expired": strings.Replace(expired, "1400000001", "7", 1)} {
		if w := f.post(body); w.Code != 401 || w.Body.String() != want.Body.String() || !maps.EqualFunc(w.Header(), want.Header(), func(a, b []string) bool { return strings.Join(a, ",") == strings.Join(b, ",") }) {
			t.Errorf("%s: %d %q %v, and of a bad signature %q %v", what, w.Code, w.Body, w.Header(), want.Body, want.Header())
		}
		if served := !strings.HasPrefix(what, "not served"); served == (f.last().Reason == WrongApplication) {
			t.Errorf("%s: the log says %s", what, f.last().Reason)
		}
	}
	if got := want.Body.String(); got != "callback refused\n" {
		t.Errorf("the answer is %q", got)
	}
}

// TestSameTime: whether an application is served cannot be told from how long it takes to refuse
// its callback: not by one, and not by many that are sent together.
func TestSameTime(t *testing.T) {
	t.Parallel()
	const served, all = 20, 300 // each is read once a second, at its own time
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context(), served, Options{AllowUnsigned: true})
		time.Sleep(time.Minute)
		send := func(key string) (took [all]time.Duration, codes map[int]int) {
			var mu sync.Mutex
			var group sync.WaitGroup
			codes = map[int]int{}
			began := time.Now()
			for i := range all {
				group.Go(func() {
					code := f.post(signed(i, key)).Code
					mu.Lock()
					defer mu.Unlock()
					took[i] = time.Since(began)
					codes[code]++
				})
			}
			group.Wait()
			return took, codes
		}
		// alike fails the test where one that is not served took a time that none took that is.
		alike := func(what, key string, want map[int]int) {
			t.Helper()
			took, codes := send(key)
			of := map[time.Duration]bool{}
			for _, d := range took[:served] {
				of[d] = true
			}
			shared := map[time.Duration]bool{}
			for i, d := range took[served:] {
				shared[d] = true
				if !of[d] {
					t.Fatalf("%s: application %d, which is not served, took %s; those that are took %v", what, served+i, d, of)
				}
			}
			if !maps.Equal(codes, want) || len(shared) != len(of) {
				t.Errorf("%s: %v after %v, those not served after %v", what, codes, of, shared)
			}
		}
		for range 5 {
			time.Sleep(3217 * time.Millisecond)
			alike("forged", "x", map[int]int{401: all})
			alike("unsigned", "", map[int]int{401: all})
		}
		f.place.change(func() { f.place.away = errAway })
		alike("away", "x", map[int]int{503: all})
		if took, codes := send("0"); took[0] != 0 || codes[200] != 1 {
			t.Errorf("a held key of application 0 meanwhile: %s, %v", took[0], codes)
		}
		f.cache.Close()
	})
}

// TestStandIn: an application that is not served is not let pass by the keys of one that is.
func TestStandIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context(), 1, Options{})
		defer f.cache.Close()
		time.Sleep(time.Minute)
		if w := f.post(signed(7, "0")); w.Code != 401 || f.last().Reason != WrongApplication || f.last().Reread {
			t.Errorf("%d %+v", w.Code, f.last())
		}
		none := NewCache(t.Context(), f.place, CacheOptions{})
		defer none.Close()
		if k, err := none.Reread(t.Context(), 8, never); err != nil || len(k.Accept) != 0 {
			t.Errorf("a Cache of nothing: %v, %v", k, err)
		}
	})
}
