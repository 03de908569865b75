package webhook

import (
	"errors"
	"math"

	"golang.org/x/sync/semaphore"
)

// waits bounds the callbacks that wait for keys to be read: their number, and the memory that
// their bodies take. Short bodies, as Tencent's are, have room of their own.
type waits struct{ places, short, long *semaphore.Weighted }

const shortBody = SmallBody / 2

var errTooManyWait = errors.New("too many callbacks wait for keys already")

func newWaits(o *Options) *waits {
	places := int64(math.MaxInt64)
	if o.MaxWaiting > 0 {
		places = int64(o.MaxWaiting)
	}
	return &waits{semaphore.NewWeighted(places), semaphore.NewWeighted(max(o.MaxMemory/8, shortBody)), semaphore.NewWeighted(max(o.MaxMemory/8, o.MaxBody+1))}
}

// enter takes a place for a body, and room for it; leave gives both back.
func (w *waits) enter(body []byte) (leave func(), err error) {
	size, room := int64(cap(body)), w.short
	if size > shortBody {
		room = w.long
	}
	if !w.places.TryAcquire(1) {
		return nil, errTooManyWait
	}
	if !room.TryAcquire(size) {
		w.places.Release(1)
		return nil, errTooManyWait
	}
	return func() { room.Release(size); w.places.Release(1) }, nil
}
