package observe

import (
	"sync"
	"time"
)

// What a stranger can ask for must not cost more the more often it is asked for: with this many targets,
// what goes through all of them is made once, and kept for ten times as long as it took, for whoever asks.
const (
	manyTargets = maxSeries
	keptFor     = 10
	keptAtMost  = 10 * time.Second
)

// kept is what is made of all targets. It is the same for all who get it, so none may change it.
type kept[T any] struct {
	mu   sync.Mutex
	have *T
}

// get gives what is kept, or makes it. One is made at a time: those that ask meanwhile wait for it.
func (k *kept[T]) get(m *Monitor, produce func() T) T {
	m.mu.Lock()
	many := len(m.served.Targets) > manyTargets
	m.mu.Unlock()
	if !many {
		return produce()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.have != nil {
		return *k.have
	}
	began := time.Now()
	v := produce()
	if took := time.Since(began); took > 0 {
		k.have = &v
		time.AfterFunc(min(keptFor*took, keptAtMost), func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.have = nil
		})
	}
	return v
}
