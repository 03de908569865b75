package webhook

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// inFlight is how long callbacks that were sent unsigned may still come in after the
// application's first key is in force.
const inFlight = time.Minute

// CacheOptions are a Cache's settings; the zero value will do.
type CacheOptions struct {
	// Every is the time from one reading to the next; 0 means DefaultEvery, or longer if
	// there are more than twenty targets.
	Every time.Duration
	Log   *slog.Logger // nil: none
}

// Cache is a KeySource that keeps the keys of some targets in memory and reads them every so
// often, and at once when asked to by Reread, but never more than once a second each (or once
// in CacheOptions.Every, if that is shorter). While the place they are kept in is away, the
// last good keys stay in use; Status tells how old they are. A key that a reading of a target gave
// in Keys.Revoked is refused for that target from then on.
type Cache struct {
	reader Reader
	every  time.Duration
	log    *slog.Logger
	apps   map[int64]*app
	all    []*app
	seed   maphash.Seed
	turns  *turns // of all applications together
	closed <-chan struct{}
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// app is one application's part of a Cache.
type app struct {
	held atomic.Pointer[Keys] // of all its targets together

	mu            sync.Mutex
	rings         []*ring
	more          chan struct{} // closed when the next reading is done
	unsignedUntil time.Time
	changed       time.Time // when a reading last gave other keys than the one before
}

// NewCache gives a Cache that reads at once and goes on until ctx ends or Close is called. It
// must live as long as callbacks are verified with it: longer than the context that tells a
// server to shut down.
func NewCache(ctx context.Context, reader Reader, o CacheOptions, targets ...Target) *Cache {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Every <= 0 {
		o.Every = EveryFor(len(targets))
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Cache{reader: reader, every: o.Every, log: o.Log, apps: map[int64]*app{}, cancel: cancel, closed: ctx.Done(),
		seed: maphash.MakeSeed(), turns: newTurns()}
	c.group.Go(func() { c.turns.give(ctx) })
	for _, t := range targets {
		a := c.apps[t.SdkAppID]
		if a == nil {
			a = &app{more: make(chan struct{})}
			a.held.Store(&Keys{SdkAppID: t.SdkAppID})
			c.apps[t.SdkAppID] = a
			c.all = append(c.all, a)
		}
		a.rings = append(a.rings, &ring{target: t, demand: make(chan struct{}, 1), patience: leastPatience, told: map[string]bool{}})
	}
	for _, a := range c.all {
		for _, r := range a.rings {
			c.group.Go(func() { c.keep(ctx, a, r) })
		}
	}
	return c
}

// Close ends the reading. What is held stays.
func (c *Cache) Close() {
	c.cancel()
	c.group.Wait()
}

// Keys gives what is held of an application.
func (c *Cache) Keys(sdkAppID int64) (Keys, bool) {
	a, ok := c.apps[sdkAppID]
	if !ok {
		return Keys{}, false
	}
	return *a.held.Load(), true
}

var errClosed = errors.New("the keys are not read any more: the Cache was closed before the server had shut down")

// Reread waits for readings that begin after the call. Those of another application stand in for
// one that is not served, always the same: whichever waits with an id, one of all is served.
func (c *Cache) Reread(ctx context.Context, sdkAppID int64, enough func(Keys) bool) (Keys, error) {
	if a, served := c.apps[sdkAppID]; served {
		return c.reread(ctx, a, enough)
	}
	if len(c.all) == 0 {
		return Keys{}, nil
	}
	_, err := c.reread(ctx, c.all[maphash.Comparable(c.seed, sdkAppID)%uint64(len(c.all))], func(Keys) bool { return false })
	return Keys{}, err
}

func (c *Cache) reread(ctx context.Context, a *app, enough func(Keys) bool) (Keys, error) {
	a.mu.Lock()
	before := make([]int, len(a.rings))
	for i, r := range a.rings {
		before[i] = r.begun
		if r.demanded.IsZero() {
			r.demanded = time.Now()
			r.demand <- struct{}{}
		}
	}
	a.mu.Unlock()
	for {
		a.mu.Lock()
		held, more := *a.held.Load(), a.more
		var errs []error
		fresh := true
		for i, r := range a.rings {
			errs = append(errs, r.err)
			fresh = fresh && r.answered > before[i]
		}
		a.mu.Unlock()
		switch {
		case enough(held):
			return held, nil
		case fresh && len(held.Accept) == 0 && !held.AcceptUnsigned:
			return held, errors.Join(errs...) // whether it is genuine nobody can say yet
		case fresh:
			return held, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return held, errors.Join(append(errs, context.Cause(ctx))...)
		case <-c.closed:
			return held, errClosed
		}
	}
}

// Ready reports whether every target was looked at, and the keys of one at least are known.
func (c *Cache) Ready() bool {
	all := c.Status()
	return slices.ContainsFunc(all, func(s Status) bool { return !s.ReadAt.IsZero() }) &&
		!slices.ContainsFunc(all, func(s Status) bool { return s.ReadAt.IsZero() && s.Err == nil })
}

// Status tells what is known of one target.
type Status struct {
	Target Target
	KeyIDs []string  // of the keys that are accepted
	ReadAt time.Time // when they were last read; zero: never
	Err    error     // of the last reading; nil: it went well, or has not ended yet
}

// Status tells what is known of each target, sorted.
func (c *Cache) Status() []Status {
	var all []Status
	for _, a := range c.apps {
		a.mu.Lock()
		for _, r := range a.rings {
			all = append(all, Status{r.target, ids(r.keys), r.readAt, r.err})
		}
		a.mu.Unlock()
	}
	slices.SortFunc(all, func(x, y Status) int { return x.Target.Compare(y.Target) })
	return all
}

func ids(k Keys) []string {
	var all []string
	for _, key := range k.Accept {
		all = append(all, key.String())
	}
	return all
}

// hold puts together what is known of all services, and wakes those who wait for it. The
// caller holds a.mu.
func (a *app) hold(now time.Time) {
	close(a.more)
	a.more = make(chan struct{})
	var known []Keys
	for _, r := range a.rings {
		if !r.readAt.IsZero() {
			known = append(known, r.keys)
		}
	}
	if len(known) == 0 {
		return
	}
	keys := join(known)
	if keys.AcceptUnsigned {
		a.unsignedUntil = now.Add(inFlight)
	}
	keys.AcceptUnsigned = now.Before(a.unsignedUntil)
	a.held.Store(&keys)
}
