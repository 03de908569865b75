package rotator

import (
	"container/heap"
	"math"
	"time"
)

// A wave of rotations is a pipeline: what nobody asked for begins at the pace at which Tencent sets keys,
// each replica at its share. So a key that receivers have had time for is set within a minute, and no more
// keys are pending than can be set in the time that receivers get, and that minute.

const (
	// paceBurst is for how long keys can be set that begin at once: there is to be one whenever there is room
	// within the limit.
	paceBurst = 5 * time.Second
	// paceSlack is how long a key may wait for its turn to be set before no more begin.
	paceSlack = 60 * time.Second
)

// pace is how many rotations may begin.
type pace struct {
	room float64       // at once
	at   time.Duration // when that was so, by the steady clock
	late bool          // keys wait for their turn to be set for longer than paceSlack
}

// shareLocked is how many keys a second this replica may set. The caller holds e.mu.
func (e *Engine) shareLocked() float64 { return e.stageRate / float64(e.replicas) }

// roomLocked reports whether a target's rotation may begin, and takes the room for it. The caller holds e.mu.
func (e *Engine) roomLocked(tr *track) bool {
	p, now := &e.pace, e.clock.Steady()
	most := math.Max(1, e.shareLocked()*paceBurst.Seconds()) // however slow the limit, one may begin
	p.room, p.at = math.Min(most, p.room+e.shareLocked()*(now-p.at).Seconds()), now
	if !tr.room && !p.late && p.room >= 1 {
		p.room--
		tr.room = true
	}
	return tr.room
}

// leave ends a visit: the room that it did not use is given back, and so is its turn to look.
func (e *Engine) leave(tr *track) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tr.room {
		e.pace.room++
	}
	tr.room, tr.called = false, false
}

// room reports whether a target's rotation may begin, and takes the room for it.
func (e *Engine) room(tr *track) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stageRate <= 0 || e.roomLocked(tr)
}

// proceed has the first of those that were put off visited, as far as there is room or they have waited for
// long enough, and gives when there is room for the next; zero if that is not to be foreseen.
func (e *Engine) proceed(l *lanes) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	e.pace.late = l.late(now) > paceSlack
	for ; len(l.putOff) > 0 && (e.roomLocked(l.putOff[0].tr) || !now.Before(l.putOff[0].at)); l.putOff = l.putOff[1:] {
		heap.Push(&l.lane[0].queue, visit{l.putOff[0].tr, now})
	}
	if len(l.putOff) == 0 || e.pace.late {
		return time.Time{}
	}
	return now.Add(time.Duration((1-e.pace.room)/e.shareLocked()*float64(time.Second)) + time.Millisecond)
}
