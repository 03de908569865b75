package observe

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// reads is how the store's reads ended. It is of the store, whatever target was read.
type reads struct {
	mu      sync.Mutex
	recent  time.Duration // how old the last good one may be
	since   time.Time     // when the first was to be expected
	good    time.Time     // when the last good one ended
	bad     time.Time     // when the last bad one ended
	lastErr error
}

// expect says how often the store is read: each target once in a reconcile interval.
func (r *reads) expect(p rotator.Policy, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent, r.since = 2*p.Reconcile+time.Minute, now
}

func (r *reads) ended(err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.good = now
		return
	}
	r.bad, r.lastErr = now, err
}

func (r *reads) trouble(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.lastErr != nil && !r.bad.Before(r.good):
		return fmt.Errorf("the store cannot be read: %w", r.lastErr)
	case r.good.IsZero():
		return errors.New("the store was not read yet")
	case now.Sub(r.good) > r.recent:
		return fmt.Errorf("the store was last read %s ago", now.Sub(r.good).Round(time.Second))
	}
	return nil
}

// Alive tells what is wrong with the process itself: nil if its engine gets on. A store or a
// Tencent that is away is nothing that a restart would mend, and is not told here.
func (m *Monitor) Alive() error {
	m.mu.Lock()
	s := m.served
	m.mu.Unlock()
	if s.Engine == nil {
		return nil
	}
	limit := s.StallLimit
	if limit == 0 {
		limit = s.Engine.StallLimit()
	}
	t, stalled := s.Engine.Stalled()
	switch {
	case stalled <= limit:
		return nil
	case t == secrets.Target{}:
		return fmt.Errorf("the engine is stuck: its loop has not got on for %s", stalled.Round(time.Second))
	}
	return fmt.Errorf("the engine is stuck: the visit of %s has not got on for %s", t, stalled.Round(time.Second))
}

// Ready tells what keeps the daemon from doing its work: nil if the store can be read, which
// takes a good login, and every key is replaced in time.
func (m *Monitor) Ready() error {
	if err := m.running(); err != nil {
		return err
	}
	if err := m.reads.trouble(time.Now()); err != nil {
		return err
	}
	m.mu.Lock()
	listed := m.listed || !m.served.Discovers
	m.mu.Unlock()
	if !listed {
		return errors.New("the store was not listed yet")
	}
	return m.lates.Get(m.count(), func() error { return m.look().overdue(time.Now()) })
}

// Met reports whether every target was dealt with at least once, be it in vain.
func (m *Monitor) Met() bool {
	m.mu.Lock()
	s, listed := m.served, m.listed
	m.mu.Unlock()
	if s.Engine == nil || (s.Discovers && !listed) {
		return false
	}
	met := 0
	for _, st := range s.Engine.Standings() {
		if !st.At.IsZero() {
			met++
		}
	}
	return met >= len(s.Targets)
}

// running tells what is wrong with the process itself, or that it is about to end.
func (m *Monitor) running() error {
	m.mu.Lock()
	stopping := m.stopping
	m.mu.Unlock()
	if stopping {
		return errors.New("stopping")
	}
	return m.Alive()
}

// overdue tells which keys are not replaced in time.
func (v view) overdue(now time.Time) error {
	var late []string
	const shown = 3
	n := 0
	for _, s := range v.standings {
		if overdue(s, v.memory[s.Target], v.Policy, now) {
			if n++; len(late) < shown {
				late = append(late, s.Target.String())
			}
		}
	}
	if n == 0 {
		return nil
	}
	more := ""
	if n > shown {
		more = ", …"
	}
	return fmt.Errorf("%d of %d targets are overdue by more than %s: %s%s", n, len(v.standings), overdueAfter(rotator.Standing{}, v.Policy), strings.Join(late, ", "), more)
}

// Status is how things are, in a line.
func (m *Monitor) Status() string {
	r := m.Report()
	if r.Wrong != nil {
		return oneLine(r.Wrong)
	}
	return r.Summary
}

// summary counts the targets by phase, and tells when the next rotation is due.
func (v view) summary(now time.Time) string {
	counts := map[rotator.Phase]int{}
	var first time.Time
	for _, s := range v.standings {
		counts[s.PhaseAt(now)]++
		if at := next(s, v.memory[s.Target]); s.PendingID == "" && !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	var parts []string
	for _, p := range rotator.Phases() {
		if counts[p] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[p], strings.ReplaceAll(string(p), "_", " ")))
		}
	}
	line := fmt.Sprintf("%d targets: %s", len(v.standings), strings.Join(parts, ", "))
	if !first.IsZero() {
		line += "; next rotation " + first.UTC().Format(time.RFC3339)
	}
	return line
}

// oneLine is an error's text without line breaks.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
