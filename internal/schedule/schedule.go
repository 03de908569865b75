// Package schedule says when keys are due to be replaced.
package schedule

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Schedule says when a target's key is due to be replaced.
type Schedule struct {
	cron  cron.Schedule
	splay time.Duration
}

// Parse reads a cron expression (five fields, optionally after "CRON_TZ=Zone ";
// "@daily" and its like; "@every 12h"). Without a zone it is the machine's local time.
// splay spreads the targets over that long after each of the schedule's times.
func Parse(spec string, splay time.Duration) (*Schedule, error) {
	// The library cuts the zone off at a space that it takes to be there.
	if strings.HasPrefix(spec, "TZ=") || strings.HasPrefix(spec, "CRON_TZ=") {
		if !strings.Contains(spec, " ") {
			return nil, fmt.Errorf("schedule %q: after the zone comes a space, and then when to rotate", spec)
		}
	}
	s, err := cron.ParseStandard(spec)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", spec, err)
	}
	s = onWall(s)
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes: no date matches it", spec)
	}
	return &Schedule{cron: s, splay: splay}, nil
}

// RoomFor reports whether there is time for a rotation that takes d from each run to the next.
func (s *Schedule) RoomFor(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	first := s.Due(secrets.Target{}, time.Now())
	if gap := s.Due(secrets.Target{}, first).Sub(first); gap <= d {
		return fmt.Errorf("it comes every %s, but one rotation takes longer than the propagation of %s", gap, d)
	}
	return nil
}

// Of is the schedule of the target whose keyring is k: its own, if it has one that can be used.
func (s *Schedule) Of(k *rotator.Keyring) *Schedule {
	own, _ := s.named(specOf(k))
	return own
}

// named is another specification with the same splay; s is meant by "" and by one that cannot be used.
func (s *Schedule) named(spec string) (*Schedule, error) {
	if spec == "" {
		return s, nil
	}
	own, err := Parse(spec, s.splay)
	if err != nil {
		return s, err
	}
	return own, nil
}

func specOf(k *rotator.Keyring) string {
	if k == nil || k.Overrides == nil {
		return ""
	}
	return k.Overrides.Schedule
}

// ByKeyring is Of and Due for an engine, which asks often: each specification is read once. One that
// cannot be used is logged then.
func (s *Schedule) ByKeyring(log *slog.Logger) func(secrets.Target, *rotator.Keyring, time.Time) time.Time {
	var known sync.Map // by specification, a *Schedule
	return func(t secrets.Target, k *rotator.Keyring, rotatedAt time.Time) time.Time {
		spec := specOf(k)
		own, ok := known.Load(spec)
		if !ok {
			read, err := s.named(spec)
			if own, ok = known.LoadOrStore(spec, read); !ok && err != nil {
				log.Warn("the schedule that overrides TIWKEYD_SCHEDULE cannot be used; TIWKEYD_SCHEDULE applies", "target", t.String(), "error", err.Error())
			}
		}
		return own.(*Schedule).Due(t, rotatedAt)
	}
}

// Validate reports all that is wrong with overrides, beside the settings p for all.
func Validate(o *rotator.Overrides, p *rotator.Policy) error {
	var errs []error
	if o.Grace != 0 && (o.Grace < rotator.MinGrace || o.Grace > rotator.MaxGrace || o.Grace%time.Second != 0) {
		errs = append(errs, fmt.Errorf("grace: %s is not whole seconds from %s to %s", o.Grace, rotator.MinGrace, rotator.MaxGrace))
	}
	if d := o.Propagation; d != nil && (*d < 0 || *d > rotator.MaxPropagation || *d%time.Second != 0) {
		errs = append(errs, fmt.Errorf("propagation: %s is not whole seconds from 0s to %s", *d, rotator.MaxPropagation))
	}
	if o.Schedule != "" {
		s, err := Parse(o.Schedule, 0)
		if err == nil {
			err = s.RoomFor(p.Of(&rotator.Keyring{Overrides: o}).Propagation)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("schedule: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ManyKeys are more than anybody means to have accepted at a time, and MaxKeys more than a store holds.
const (
	ManyKeys = 64
	MaxKeys  = 500
)

// Keys is how many keys the target whose keyring is k, or nil, has accepted at a time under p: those
// replaced within the grace, a pending one and the current one. It counts the runs of a year and a
// grace, of frequent ones the first 5000, and stops at more than MaxKeys.
func (s *Schedule) Keys(p *rotator.Policy, k *rotator.Keyring) int {
	s, p = s.Of(k), p.Of(k)
	most, at := 0, time.Now()
	var accepted []time.Time // when those were replaced
	for end, runs := at.Add(p.Grace+366*24*time.Hour), 0; at.Before(end) && runs < 5000 && most <= MaxKeys; runs++ {
		next := s.Due(secrets.Target{}, at).Add(p.Propagation) // when it is in force, from which the next is counted
		if !next.After(at) {
			break // the schedule never comes again
		}
		at = next
		accepted = append(accepted, at)
		for at.Sub(accepted[0]) >= p.Grace && len(accepted) > 1 {
			accepted = accepted[1:]
		}
		most = max(most, len(accepted)+2)
	}
	return most
}

// Due is when the key of t, in force since rotatedAt, is to be replaced: at once if it never
// was, and in the past if a run was missed. A target's offset within the splay is the same
// every time. "@every" counts from the target's own last rotation and needs no splay.
func (s *Schedule) Due(t secrets.Target, rotatedAt time.Time) time.Time {
	if rotatedAt.IsZero() {
		return time.Unix(0, 0)
	}
	offset := s.offset(t)
	return s.cron.Next(rotatedAt.Local().Add(-offset)).Add(offset)
}

func (s *Schedule) offset(t secrets.Target) time.Duration {
	if s.splay <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.String()))
	return time.Duration(h.Sum64() % uint64(s.splay))
}
