package rotator

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Overrides are what holds for one target in place of what is configured for all. They are kept in
// its keyring, so that every replica goes by them. The zero value of a field overrides nothing.
type Overrides struct {
	Schedule    string        `json:"schedule,omitzero"`    // as ParseSchedule reads it
	Grace       time.Duration `json:"grace,omitzero"`       // at least MinGrace, in whole seconds
	Propagation time.Duration `json:"propagation,omitzero"` // longer than what is configured, at most MaxPropagation, in whole seconds
	Paused      bool          `json:"paused,omitzero"`      // neither the schedule nor BySignal begins a rotation

	Unknown jsontext.Value `json:",embed"`
}

// MinGrace and MaxGrace bound Policy.Grace: a request that Tencent honours late takes that long to
// be over, and nobody plans for longer than ten years.
const (
	MinGrace = 10 * time.Minute
	MaxGrace = 10 * 365 * 24 * time.Hour
)

// Validate reports all that is wrong with o, beside the settings p for all.
func (o *Overrides) Validate(p *Policy) error {
	var errs []error
	if o.Grace != 0 && (o.Grace < MinGrace || o.Grace > MaxGrace || o.Grace%time.Second != 0) {
		errs = append(errs, fmt.Errorf("grace: %s is not whole seconds from %s to %s", o.Grace, MinGrace, MaxGrace))
	}
	if o.Propagation != 0 && (o.Propagation < p.Propagation || o.Propagation > MaxPropagation || o.Propagation%time.Second != 0) {
		errs = append(errs, fmt.Errorf("propagation: %s is not whole seconds from TIWKEYD_PROPAGATION (%s), which no target may be below, to %s",
			o.Propagation, p.Propagation, MaxPropagation))
	}
	if o.Schedule != "" {
		s, err := ParseSchedule(o.Schedule, 0)
		if err == nil {
			err = s.RoomFor(max(o.Propagation, p.Propagation))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("schedule: %w", err))
		}
	}
	return errors.Join(errs...)
}

// isZero reports whether nothing is overridden.
func (o *Overrides) isZero() bool {
	return o == nil || (o.Schedule == "" && o.Grace == 0 && o.Propagation == 0 && !o.Paused && len(o.Unknown) == 0)
}

// With is k with other overrides, for a Store to write.
func (k *Keyring) With(o Overrides) *Keyring {
	n := k.Clone()
	n.Revision = "" // the Store gives it one
	if k.Overrides != nil {
		o.Unknown = k.Overrides.Unknown
	}
	n.Overrides = &o
	if o.isZero() {
		n.Overrides = nil
	}
	return n
}

// paused reports whether no rotation is to begin by itself.
func (k *Keyring) paused() bool { return k != nil && k.Overrides != nil && k.Overrides.Paused }

// of is the policy for a keyring. What was written by somebody else is taken for what is safe: a
// grace too short for the least, a propagation shorter than what is configured for that.
func (p *Policy) of(k *Keyring) *Policy {
	if k == nil || k.Overrides == nil || (k.Overrides.Grace == 0 && k.Overrides.Propagation == 0) {
		return p
	}
	c := *p
	if g := k.Overrides.Grace; g != 0 {
		c.Grace = max(g, min(MinGrace, p.Grace))
	}
	c.Propagation = max(p.Propagation, min(k.Overrides.Propagation, MaxPropagation))
	return &c
}

// dueAt is when the key of a target, in force since at, is to be replaced; zero: never.
func (e *Engine) dueAt(t Target, k *Keyring, at time.Time) time.Time {
	switch {
	case k.paused():
		return time.Time{}
	case k == nil || k.Overrides == nil || k.Overrides.Schedule == "" || e.reschedule == nil:
		return e.due(t, at)
	}
	spec := k.Overrides.Schedule
	e.mu.Lock()
	due, known := e.schedules[spec]
	e.mu.Unlock()
	if !known {
		s, err := e.reschedule(spec)
		if due = e.due; err != nil {
			e.log.Warn("the schedule that overrides TIWKEYD_SCHEDULE cannot be used; TIWKEYD_SCHEDULE applies", "target", t.String(), "error", err.Error())
		} else {
			due = s.Due
		}
		e.mu.Lock()
		e.schedules[spec] = due
		e.mu.Unlock()
	}
	return due(t, at)
}
