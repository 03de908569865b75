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

// With is another specification with the same splay.
func (s *Schedule) With(spec string) (*Schedule, error) { return ParseSchedule(spec, s.splay) }

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
