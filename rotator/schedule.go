package rotator

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule says when a target's key is due to be replaced.
type Schedule struct {
	cron  cron.Schedule
	splay time.Duration
}

// ParseSchedule reads a cron expression (five fields, optionally after "CRON_TZ=Zone ";
// "@daily" and its like; "@every 12h"). Without a zone it is the machine's local time.
// splay spreads the targets over that long after each of the schedule's times.
func ParseSchedule(spec string, splay time.Duration) (*Schedule, error) {
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
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes: no date matches it", spec)
	}
	return &Schedule{cron: s, splay: splay}, nil
}

// With is another specification with the same splay; "" is the same one.
func (s *Schedule) With(spec string) (*Schedule, error) {
	if spec == "" {
		return s, nil
	}
	return ParseSchedule(spec, s.splay)
}

// RoomFor reports whether there is time for a rotation that takes d from each run to the next.
func (s *Schedule) RoomFor(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	first := s.Due(Target{}, time.Now())
	if gap := s.Due(Target{}, first).Sub(first); gap <= d {
		return fmt.Errorf("it comes every %s, but one rotation takes longer than the propagation of %s", gap, d)
	}
	return nil
}

// Of is the schedule of the target whose keyring is k: its own, if it has one that can be used.
func (s *Schedule) Of(k *Keyring) *Schedule {
	if k != nil && k.Overrides != nil {
		if own, err := s.With(k.Overrides.Schedule); err == nil {
			return own
		}
	}
	return s
}

// ManyKeys are more than anybody means to have accepted at a time, and MaxKeys more than a store holds.
const (
	ManyKeys = 64
	MaxKeys  = 500
)

// Keys is how many keys the target whose keyring is k, or nil, has accepted at a time under p: those
// replaced within the grace, a pending one and the current one. It counts the runs of a year and a
// grace, of frequent ones the first 5000, and stops at more than MaxKeys.
func (s *Schedule) Keys(p *Policy, k *Keyring) int {
	s, p = s.Of(k), p.of(k)
	most, at := 0, time.Now()
	var accepted []time.Time // when those were replaced
	for end, runs := at.Add(p.Grace+366*24*time.Hour), 0; at.Before(end) && runs < 5000 && most <= MaxKeys; runs++ {
		next := s.Due(Target{}, at).Add(p.Propagation) // when it is in force, from which the next is counted
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
func (s *Schedule) Due(t Target, rotatedAt time.Time) time.Time {
	if rotatedAt.IsZero() {
		return time.Unix(0, 0)
	}
	offset := s.offset(t)
	return s.cron.Next(rotatedAt.Local().Add(-offset)).Add(offset)
}

func (s *Schedule) offset(t Target) time.Duration {
	if s.splay <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.String()))
	return time.Duration(h.Sum64() % uint64(s.splay))
}
