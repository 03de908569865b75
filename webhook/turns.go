package webhook

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// urgency is what a target's reading on demand goes by.
type urgency int

const (
	rotating urgency = iota // the application's keys have changed lately, and no demand was in vain since
	quiet
	flooded // a reading on demand changed nothing lately: what was asked about is likely forged
	urgencies
)

// lately is how long a target counts as rotating or flooded. In this time each target can have had a
// turn, even if there are tens of thousands. So among targets that are all flooded nobody goes before
// one that has waited longer, and who waits has its turn after at most one of each other target.
const lately = 10 * time.Minute

// turns hands out the readings on demand: so many a second, to the most urgent first, and among
// these to who has waited longest.
type turns struct {
	pace *rate.Limiter
	some chan struct{} // told when somebody begins to wait

	mu      sync.Mutex
	waiting [urgencies][]chan struct{}
}

func newTurns() *turns {
	return &turns{pace: rate.NewLimiter(rereadsPerSecond, rereadsPerSecond), some: make(chan struct{}, 1)}
}

// await waits for a turn, but no longer than until a time.
func (t *turns) await(ctx context.Context, u urgency, due time.Time) {
	mine := make(chan struct{}, 1)
	t.mu.Lock()
	t.waiting[u] = append(t.waiting[u], mine)
	t.mu.Unlock()
	select {
	case t.some <- struct{}{}:
	default:
	}
	if waitUntil(ctx, due, mine) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting[u], mine); i >= 0 {
		t.waiting[u] = slices.Delete(t.waiting[u], i, i+1)
	}
}

// give hands out turns until ctx ends. It waits for the pace first and looks then who is the most
// urgent.
func (t *turns) give(ctx context.Context) {
	for {
		select {
		case <-t.some:
		case <-ctx.Done():
			return
		}
		for t.next(false) {
			if t.pace.Wait(ctx) != nil {
				return
			}
			t.next(true)
		}
	}
}

// next reports whether somebody waits, and gives the first of them a turn if it is told to.
func (t *turns) next(give bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for u, waiting := range t.waiting {
		if len(waiting) == 0 {
			continue
		}
		if give {
			waiting[0] <- struct{}{}
			t.waiting[u] = waiting[1:]
		}
		return true
	}
	return false
}
