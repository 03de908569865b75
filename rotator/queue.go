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

// hurry brings every visit forward to now.
func (q *queue) hurry(now time.Time) {
	for i := range *q {
		(*q)[i].at = earlier((*q)[i].at, now)
	}
	heap.Init(q)
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
