package rotator

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Past is a rotation that has ended. It is kept for people to look at: nothing is decided by it.
type Past struct {
	StartedAt time.Time     `json:"started_at,omitzero"`
	Took      time.Duration `json:"took"`          // until the new key was found in force, or was taken back
	Overlap   time.Duration `json:"overlap"`       // for how long the key that was replaced, or taken back, was to be accepted yet
	Code      string        `json:"code,omitzero"` // why it was rolled back; "" if the new key came into force

	Unknown jsontext.Value `json:",embed"`
}

const (
	historyLength = 62                  // rotations; two a day for a month
	historySpan   = 30 * 24 * time.Hour // before the newest one
)

// ended is what is remembered of a rotation. One whose beginning is not written began now.
func (r *Rotation) ended(now time.Time, overlap time.Duration) Past {
	p := Past{StartedAt: r.StartedAt, Overlap: overlap}
	if p.StartedAt.IsZero() {
		p.StartedAt = now
	}
	p.Took = now.Sub(p.StartedAt)
	return p
}

// remembered is history with one more rotation. Whoever shares history does not see it change.
func remembered(history []Past, p Past) []Past {
	p.StartedAt, p.Took = p.StartedAt.Truncate(time.Second), min(max(0, p.Took.Truncate(time.Second)), longestSpan)
	oldest := p.StartedAt.Add(-historySpan)
	first := max(0, len(history)+1-historyLength)
	for first < len(history) && history[first].StartedAt.Before(oldest) {
		first++
	}
	return append(slices.Clone(history[first:]), p)
}
