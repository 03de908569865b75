// Package kept keeps what is dear to make for all who ask for it: what a stranger can ask for must
// not cost more the more often it is asked for.
package kept

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Many is how many targets are dear: with more of them, what goes through all is made once, and kept
// for so many times as long as it took, but not for longer than the last.
const (
	Many  = 500
	times = 10
	most  = 10 * time.Second
)

// Value is what is made of all targets. It is the same for all who get it, so none may change it.
type Value[T any] struct {
	mu   sync.Mutex
	have *T
}

// Get gives what is kept, or makes it; of so few targets it is always made. One is made at a time:
// those that ask meanwhile wait for it.
func (v *Value[T]) Get(targets int, produce func() T) T {
	if targets <= Many {
		return produce()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.have != nil {
		return *v.have
	}
	began := time.Now()
	made := produce()
	if took := time.Since(began); took > 0 {
		v.have = &made
		time.AfterFunc(min(times*took, most), func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.have = nil
		})
	}
	return made
}

// Metrics serves what a registry has of so many targets.
func Metrics(from prometheus.Gatherer, targets func() int) http.Handler {
	var value Value[prometheus.Gatherer]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gathered := value.Get(targets(), func() prometheus.Gatherer { return prometheus.GathererFunc(hold(from.Gather())) })
		promhttp.HandlerFor(gathered, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

func hold[T any](v T, err error) func() (T, error) {
	return func() (T, error) { return v, err }
}
