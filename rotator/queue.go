package rotator

import (
	"container/heap"
	"time"
)

type visit struct {
	tr *track
	at time.Time
}

// queue is a heap of visits, the next one first.
type queue []visit

// lanes are two queues, each with workers of its own. The visits of the second one are to set a key. In a
// wave thousands of them wait for Tencent's limit, and nothing else is to wait for them: not a keyring that
// has to be read in time for it to count, nor a rotation that is to be begun.
type lanes struct {
	lane   [2]lane
	putOff []visit // rotations for which there was no room, in order

	line     []visit   // looks that can wait, in order
	nextLook time.Time // no other one begins before
	sought   time.Time // when those in line were last gone through
}

type lane struct {
	queue queue
	work  chan *track
}

// add takes in the visit that comes next.
func (e *Engine) add(l *lanes, v visit) {
	i := 0
	if e.ready(v.tr, v.at) {
		i = 1
	}
	if reason, news := e.unheard(v.tr); news {
		v.at = ahead(reason)
	} else if v.tr.hold == Room {
		l.putOff = append(l.putOff, v)
		return
	} else if v.tr.hold == Turn && (v.at.IsZero() || v.at.Sub(e.clock.Now()).Seconds() > float64(len(l.line))/e.lookRate) { // else it is due before its turn comes
		l.line = append(l.line, v)
		return
	}
	heap.Push(&l.lane[i].queue, v)
}

// ready reports whether every receiver accepts a target's pending key at a time.
func (e *Engine) ready(tr *track, at time.Time) bool {
	k := tr.snap.Keyring
	return k != nil && k.Pending() != nil && !at.Before(readyAt(k, k.Pending(), tr.obs, e.clock.Now(), e.policy.Of(k)))
}

// late is for how long the first key has waited for its turn to be set.
func (l *lanes) late(now time.Time) time.Duration {
	if q := l.lane[1].queue; len(q) > 0 {
		return now.Sub(q[0].at)
	}
	return 0
}

// hurry brings every visit forward to now, but those in line to be looked at, which are gone through at once.
func (l *lanes) hurry(now time.Time) {
	for i := range l.lane {
		q := l.lane[i].queue
		for j := range q {
			q[j].at = earlier(q[j].at, now)
		}
		heap.Init(&q)
	}
	for i := range l.putOff {
		l.putOff[i].at = earlier(l.putOff[i].at, now)
	}
	l.nextLook, l.sought = earlier(l.nextLook, now), time.Time{}
}

func (q queue) Len() int { return len(q) }

// Less orders visits by time. Those of one moment, as a schedule makes them by the thousand, each
// replica takes in an order of its own: so replicas seldom meet at a target.
func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].tr.rank < q[j].tr.rank
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(visit)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = visit{} // a target that was dropped is to be forgotten
	*q = old[:len(old)-1]
	return last
}
