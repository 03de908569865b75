package webhook

import (
	"container/heap"
	"crypto/sha256"
	"sync"
	"time"
)

// DefaultReplays is how many callbacks a ReplayGuard remembers unless told otherwise: at 32
// bytes of digest each, some ten megabytes in all.
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
	seen   map[digest]bool
	expiry expiries
	forgot int64
}

type digest [sha256.Size]byte

// NewReplayGuard gives a guard that remembers up to limit callbacks; 0 is DefaultReplays.
func NewReplayGuard(limit int) *ReplayGuard {
	if limit <= 0 {
		limit = DefaultReplays
	}
	return &ReplayGuard{limit: limit, seen: map[digest]bool{}}
}

// digestOf covers the whole body, in which Sign and ExpireTime stand.
func digestOf(body []byte) digest { return sha256.Sum256(body) }

// admit remembers a callback until it expires. It reports false if it was known.
func (g *ReplayGuard) admit(d digest, expireTime int64, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.expiry) > 0 && g.expiry[0].at < now.Unix() {
		delete(g.seen, heap.Pop(&g.expiry).(expiry).digest)
	}
	if g.seen[d] {
		return false
	}
	if len(g.expiry) >= g.limit {
		delete(g.seen, heap.Pop(&g.expiry).(expiry).digest)
		g.forgot++
	}
	g.seen[d] = true
	heap.Push(&g.expiry, expiry{d, expireTime})
	return true
}

// forget takes back what admit remembered: the callback was not dealt with, and may come again.
// Its place in the heap stays until it expires, which costs a little room and does no harm.
func (g *ReplayGuard) forget(d digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.seen, d)
}

// Forgotten counts the callbacks that were forgotten before they expired, for want of room.
func (g *ReplayGuard) Forgotten() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.forgot
}

type expiry struct {
	digest digest
	at     int64 // ExpireTime
}

// expiries is a heap; the first to expire is at the top.
type expiries []expiry

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].at < e[j].at }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *expiries) Push(x any)        { *e = append(*e, x.(expiry)) }
func (e *expiries) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
