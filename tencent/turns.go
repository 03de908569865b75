package tencent

import "time"

// Replicas that know of each other take turns, by the wall clock: the calls of all together are then as
// even as those of one. Without that a limit of 20 calls in any second is exceeded by three that send
// 6.5 calls a second each, whenever their seventh calls happen to fall into one second. Where
// clocks differ by more than half a turn, they exceed it now and then, and slow down.

// turns are those of one replica.
type turns struct {
	programs, place int
	each            time.Duration // how long a turn is
	taken           time.Time     // the last
}

// idleShare is how much more than its fair share a replica that grew allows itself by the time it takes
// the turns of others for free.
const idleShare = 1.2

// Share says that so many programs share the limit, all of whom know it, and that this is the place'th
// of them, from 0.
func (l *Limiter) Share(programs, place int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.turns.programs > 1
	l.turns = turns{programs: programs, place: place, each: interval(l.most), taken: l.turns.taken}
	switch fair := l.fair(); {
	case programs > 1 && (l.allowed > fair || l.step > l.most*largestStep):
		l.allowed, l.plateau = fair, fair
		l.step, l.quiet = l.most*steadyStep, 0
	case programs > 1 || known:
		l.plateau = fair
	}
}

// fair is the rate of each if all have the same.
func (l *Limiter) fair() float64 { return l.most / float64(max(1, l.turns.programs)) }

// takesTurns reports whether calls wait for a turn.
func (l *Limiter) takesTurns() bool {
	return l.turns.programs > 1 && l.allowed < idleShare*l.fair()
}

// round is the time from one turn to the next.
func (t *turns) round() time.Duration { return time.Duration(t.programs) * t.each }

// next is the first turn at due or after it. One that has been for less than its half will do.
func (t *turns) next(due, now time.Time) time.Time {
	if half := now.Add(-t.each / 2); due.Before(half) {
		due = half
	}
	if after := t.taken.Add(1); due.Before(after) {
		due = after
	}
	round := t.round()
	over := (time.Duration(due.UnixNano()) - time.Duration(t.place)*t.each) % round
	if over == 0 {
		return due
	}
	return due.Add(round - over)
}
