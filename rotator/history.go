package rotator

import (
	"slices"
	"time"
)

// Past is a rotation that has ended. It is kept for people to look at: nothing is decided by it.
type Past struct {
	StartedAt time.Time
	Took      time.Duration // until the new key was found in force, or was taken back
	Overlap   time.Duration // for how long the key that was replaced, or taken back, was to be accepted yet
	Code      string        // why it was rolled back; "" if the new key came into force

	extra object
}

const (
	historyLength = 62                  // rotations; two a day for a month
	historySpan   = 30 * 24 * time.Hour // before the newest one
	longestSpan   = 100 * 366 * 24 * time.Hour
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

func (p *Past) object() object {
	o := with(p.extra)
	o.putTime("started_at", p.StartedAt)
	o.put("took", int64(p.Took/time.Second))
	o.put("overlap", int64(p.Overlap/time.Second))
	if p.Code != "" {
		o.put("code", p.Code)
	}
	return o
}

func (d *decoder) past(name string, o object) Past {
	var p Past
	d.take(o, "started_at", &p.StartedAt)
	p.Took, p.Overlap = d.seconds(o, name, "took"), d.seconds(o, name, "overlap")
	d.may(o, "code", &p.Code)
	p.extra = o.rest()
	return p
}

// seconds reads a span of at most longestSpan.
func (d *decoder) seconds(o object, of, name string) time.Duration {
	var n int64
	d.take(o, name, &n)
	if n < 0 || n > int64(longestSpan/time.Second) {
		d.fail("%q of %s is not a span of time", name, of)
		return 0
	}
	return time.Duration(n) * time.Second
}
