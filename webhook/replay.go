package webhook

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// DefaultReplays is how many callbacks a ReplayGuard remembers unless told otherwise: some
// twenty megabytes in all.
const DefaultReplays = 100_000

// ReplayGuard remembers callbacks until they expire, so that the very same one is not acted
// upon twice. It is no protection against who alters the body: the signature does not cover
// it, and Tencent gives two callbacks of one second the same signature.
//
// Its memory is bounded. When it is full, the callback that expires first is forgotten, never
// a new one refused.
type ReplayGuard struct {
	limit int

	mu     sync.Mutex
	seen   map[digest]*sighting
	expiry expiries
	forgot int64
}

type digest [sha256.Size]byte

// sighting is a callback that is being dealt with, or was.
type sighting struct {
	digest  digest
	expires int64         // ExpireTime
	place   int           // in the heap; -1: no more
	done    chan struct{} // closed when it was dealt with, or could not be
	ok      bool          // it was dealt with; to be read once done is closed
}

// NewReplayGuard gives a guard that remembers up to limit callbacks; 0 is DefaultReplays.
func NewReplayGuard(limit int) *ReplayGuard {
	if limit <= 0 {
		limit = DefaultReplays
	}
	return &ReplayGuard{limit: limit, seen: map[digest]*sighting{}}
}

// digestOf covers the whole body, in which Sign and ExpireTime stand.
func digestOf(body []byte) digest { return sha256.Sum256(body) }

// admit remembers a callback and gives what to tell the end of. It gives nil if the very same
// was dealt with before. If it is being dealt with, admit waits for the outcome, until ctx ends:
// who failed at it may be followed.
func (g *ReplayGuard) admit(ctx context.Context, d digest, expireTime int64, now time.Time) (*sighting, error) {
	for {
		g.mu.Lock()
		for len(g.expiry) > 0 && g.expiry[0].expires < now.Unix() {
			g.drop(g.expiry[0])
		}
		before := g.seen[d]
		if before == nil {
			defer g.mu.Unlock()
			if len(g.expiry) >= g.limit {
				g.drop(g.expiry[0])
				g.forgot++
			}
			s := &sighting{digest: d, expires: expireTime, done: make(chan struct{})}
			g.seen[d] = s
			heap.Push(&g.expiry, s)
			return s, nil
		}
		g.mu.Unlock()
		select {
		case <-before.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// It may have been forgotten meanwhile, for its age or for want of room.
		if before.ok {
			return nil, nil
		}
	}
}

// end tells that a callback was dealt with, or that it was not and may come again.
func (g *ReplayGuard) end(s *sighting, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !ok {
		g.drop(s)
	}
	s.ok = ok
	close(s.done)
}

// drop forgets a callback. The caller holds g.mu.
func (g *ReplayGuard) drop(s *sighting) {
	if s.place >= 0 {
		heap.Remove(&g.expiry, s.place)
	}
	if g.seen[s.digest] == s {
		delete(g.seen, s.digest)
	}
}

// Forgotten counts the callbacks that were forgotten before they expired, for want of room.
func (g *ReplayGuard) Forgotten() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.forgot
}

// expiries is a heap; the first to expire is at the top.
type expiries []*sighting

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].expires < e[j].expires }
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].place, e[j].place = i, j
}
func (e *expiries) Push(x any) {
	s := x.(*sighting)
	s.place = len(*e)
	*e = append(*e, s)
}
func (e *expiries) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = nil
	last.place = -1
	*e = old[:len(old)-1]
	return last
}
