// Package observe is what a daemon tells of itself to those who watch over it: metrics for
// Prometheus, whether it is alive and ready, and a line for people. It looks on: it wraps the
// store and the API that the engine uses, hears the engine's events, and asks it how its
// targets stand. No key and no credential comes into it, and no label has a value that
// comes from outside.
package observe

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/internal/kept"
	"tiwkeyd/internal/logs"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent"
)

// Monitor goes on through reloads, which give the engine other parts.
type Monitor struct {
	Registry *prometheus.Registry
	counts   *counts
	calls    *calls
	reads    reads

	// Each of these goes through all targets. It is made once, and given to everybody who asks for it.
	views   kept.Value[view]
	lates   kept.Value[error]
	reports kept.Value[Report]

	mu       sync.Mutex
	served   Served
	targets  map[secrets.Target]*memory
	stopping bool
	listed   bool // the store was listed once
}

// Served is what the daemon looks after now.
type Served struct {
	Engine  *rotator.Engine
	Targets []secrets.Target
	Policy  rotator.Policy
	// Discovers says that more targets come with the first Listed.
	Discovers bool
	// TokenExpiry is when the store's token ends, as far as that is known and it does; nil: the
	// store has none.
	TokenExpiry func() (time.Time, bool)
	Limits      func() map[string]tencent.Limit // by API; nil: nothing is known of them
	StallLimit  time.Duration                   // 0: Engine.StallLimit()
}

// memory is what is remembered of a target through reloads.
type memory struct {
	since     time.Time // when this process began to look after it
	lastError time.Time // zero: there was none
	reason    string    // of the rotation whose end was begun
	told      bool      // the last event told of a failed step
	trouble   Trouble   // what failed last; zero once it has gone well
	failing   rotator.Step
	away      bool // it was the store that failed
	drift     bool // the last event told of one
}

// New gives a Monitor that watches nothing yet.
func New(build Build) *Monitor {
	m := &Monitor{Registry: prometheus.NewRegistry(), counts: newCounts(), calls: newCalls(), targets: map[secrets.Target]*memory{}}
	m.counts.register(m.Registry, build)
	m.calls.register(m.Registry)
	m.Registry.MustRegister(standings{m}, token{m}, limits{m}, logs.Lost)
	return m
}

// Serve says what is looked after from now on. What was known of other targets is forgotten.
func (m *Monitor) Serve(s Served) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served = s
	now, old := time.Now(), m.targets
	anew := m.counts.serve(len(s.Targets))
	m.targets = make(map[secrets.Target]*memory, len(s.Targets))
	for _, t := range s.Targets {
		if m.targets[t] = old[t]; old[t] == nil {
			m.targets[t] = &memory{since: now}
			m.calls.welcome(t.Service)
		}
		if anew || old[t] == nil {
			m.counts.welcome(t)
		}
		delete(old, t)
	}
	for t := range old {
		m.counts.forget(t)
	}
	m.reads.expect(s.Policy, now)
}

// Listed hears how it went to look for targets in the store.
func (m *Monitor) Listed(err error) {
	m.reads.ended(err, time.Now())
	m.counts.listed(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed = m.listed || err == nil
}

// Stopping says that the daemon is about to end.
func (m *Monitor) Stopping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
}

// Reloaded counts a reload that succeeded or, with an error, one that changed nothing.
func (m *Monitor) Reloaded(err error) { m.counts.reloaded(err, time.Now()) }

// Event hears an engine's news.
func (m *Monitor) Event(ev rotator.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := m.targets[ev.Target]
	if of == nil {
		return
	}
	switch {
	case ev.Kind == rotator.Begin:
		of.reason = reasonLabel(ev.Reason) // at the end the keyring has no rotation any more
	case ev.Kind == rotator.Error:
		of.lastError = ev.Time
	}
	of.hear(ev)
	if ev.Kind != rotator.Begin {
		if ev.Drift && !of.drift {
			m.counts.drifts.WithLabelValues(m.counts.label(ev.Target)).Inc()
		}
		of.drift = ev.Drift
	}
	// A step that the store failed is told of once more, with when it is tried again.
	if twice := of.told && ev.Kind == rotator.Error && !ev.Until.IsZero(); !twice {
		m.counts.step(ev)
	}
	of.told = ev.Kind == rotator.Error && ev.Until.IsZero()
	if ev.Kind == rotator.Done && (ev.Step == rotator.StepCommit || ev.Step == rotator.StepRollback) {
		m.counts.rotation(ev, of.reason)
	}
}

// view is what is served, how its targets stand, and what is remembered of them.
type view struct {
	Served
	standings []rotator.Standing
	memory    map[secrets.Target]memory
}

// look gives a picture, in the order of the configuration.
func (m *Monitor) look() view { return m.views.Get(m.count(), m.take) }

// count is how many targets are served.
func (m *Monitor) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.served.Targets)
}

func (m *Monitor) take() view {
	m.mu.Lock()
	v := view{Served: m.served, memory: make(map[secrets.Target]memory, len(m.targets))}
	for t, of := range m.targets {
		v.memory[t] = *of
	}
	m.mu.Unlock()
	known := map[secrets.Target]rotator.Standing{}
	if v.Engine != nil {
		for _, s := range v.Engine.Standings() {
			known[s.Target] = s
		}
	}
	v.standings = make([]rotator.Standing, len(v.Targets))
	for i, t := range v.Targets {
		v.standings[i] = known[t]
		v.standings[i].Target = t
	}
	return v
}
