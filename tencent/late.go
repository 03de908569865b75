package tencent

import "time"

// A call that is late on its way reaches Tencent close to those after it, and makes the twentieth of them
// one too many. Who sent it knows in time, from how long the answer took, and sends the next call so much
// later, or lets a turn go by.

// delays are those of calls on their way to Tencent.
type delays struct {
	usual time.Duration // from the place of a call to its answer
	owed  time.Duration // by how much the calls to come have to be later
}

const (
	// lateShare is how much later than usual is late, as a share of the time that 21 calls in a row
	// take longer than a second. (The one 20 calls later may be a little early.)
	lateShare = 0.75
	// usualCalls is of how many calls the usual delay is the mean, about.
	usualCalls = 8
	// mostOwed is what a machine that stood still owes at most.
	mostOwed = time.Second / 2
)

// Answered says that Tencent has answered the call that had its place at sent.
func (l *Limiter) Answered(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := time.Since(sent)
	if l.delays.usual == 0 {
		l.delays.usual = took
	}
	over := took - l.delays.usual
	if over > l.slack() {
		l.delays.owed = min(mostOwed, l.delays.owed+min(over, l.gap()))
	}
	l.delays.usual += min(over, l.delays.usual) / usualCalls // a single one that took very long makes it little longer
}

// gap is the time between two calls of those who share the limit, as far as they are known.
func (l *Limiter) gap() time.Duration {
	if l.takesTurns() {
		return l.turns.each
	}
	return interval(l.allowed)
}

// slack is by how much a call may be late.
func (l *Limiter) slack() time.Duration {
	limit := l.most / margin
	return time.Duration(lateShare * (limit*l.gap().Seconds() - 1) * float64(time.Second))
}

// pay puts the next call off by what is owed.
func (l *Limiter) pay() {
	owed := l.delays.owed
	l.delays.owed = 0
	if !l.takesTurns() {
		l.last = l.last.Add(owed)
		return
	}
	for ; owed > 0; owed -= l.turns.each {
		l.turns.taken = l.turns.taken.Add(l.turns.round())
	}
}
