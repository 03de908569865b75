package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultEvery is how often a Cache of few applications reads each keyring, and thus how
	// long a revoked key may still be accepted.
	DefaultEvery = time.Second

	// readsPerSecond is what a Cache of many applications asks of the store for all of them
	// together; it then reads each less often.
	readsPerSecond = 20

	// rereadPause is the shortest time from one reading of an application's keys to the next.
	rereadPause = time.Second

	// readTimeout ends a reading that hangs.
	readTimeout = 5 * time.Second

	// inFlight is how long callbacks that were sent unsigned may still come in after the
	// application's first key is in force.
	inFlight = time.Minute
)

// CacheOptions are a Cache's settings; the zero value will do.
type CacheOptions struct {
	// Every is the time from one reading to the next; 0 means DefaultEvery, or longer if
	// there are more than twenty targets.
	Every time.Duration
	Log   *slog.Logger // nil: none
}

// Cache is a KeySource that keeps the keys of some targets in memory and reads them every so
// often, and at once when asked to by Reread, but never more than once a second (or once in
// CacheOptions.Every, if that is shorter). While the place they are kept in is away, the last
// good keys stay in use; Status tells how old they are.
type Cache struct {
	reader Reader
	every  time.Duration
	log    *slog.Logger
	apps   map[int64]*app
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// app is one application's part of a Cache.
type app struct {
	held   atomic.Pointer[Keys]
	demand chan struct{}

	mu      sync.Mutex
	targets []*ring
	begun   int           // readings begun
	done    int           // the last reading that is done
	err     error         // of that reading
	more    chan struct{} // closed when the next reading is done

	unsignedUntil time.Time
}

// ring is one target's keys.
type ring struct {
	target Target
	keys   Keys
	readAt time.Time // when the reading that gave keys began; zero: never
	err    error     // of the last reading
}

// NewCache gives a Cache that reads at once and goes on until ctx ends or Close is called.
func NewCache(ctx context.Context, reader Reader, o CacheOptions, targets ...Target) *Cache {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Every <= 0 {
		o.Every = max(DefaultEvery, time.Duration(len(targets))*time.Second/readsPerSecond)
	}
	c := &Cache{reader: reader, every: o.Every, log: o.Log, apps: map[int64]*app{}}
	for _, t := range targets {
		a := c.apps[t.SdkAppID]
		if a == nil {
			a = &app{demand: make(chan struct{}, 1), more: make(chan struct{})}
			a.held.Store(&Keys{SdkAppID: t.SdkAppID})
			c.apps[t.SdkAppID] = a
		}
		a.targets = append(a.targets, &ring{target: t})
	}
	ctx, c.cancel = context.WithCancel(ctx)
	for _, a := range c.apps {
		c.group.Go(func() { c.keep(ctx, a) })
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

// Reread waits for a reading that begins after the call.
func (c *Cache) Reread(ctx context.Context, sdkAppID int64) (Keys, error) {
	a, ok := c.apps[sdkAppID]
	if !ok {
		return Keys{}, fmt.Errorf("SdkAppId %d is not served", sdkAppID)
	}
	a.mu.Lock()
	before := a.begun
	a.mu.Unlock()
	select {
	case a.demand <- struct{}{}:
	default: // somebody has asked already
	}
	for {
		a.mu.Lock()
		done, err, more := a.done, a.err, a.more
		a.mu.Unlock()
		if done > before {
			return *a.held.Load(), err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return *a.held.Load(), errors.Join(ctx.Err(), err)
		}
	}
}

// Ready reports whether every target was read at least once.
func (c *Cache) Ready() bool {
	return !slices.ContainsFunc(c.Status(), func(s Status) bool { return s.ReadAt.IsZero() })
}

// Status tells what is known of one target.
type Status struct {
	Target Target
	KeyIDs []string  // of the keys that are accepted
	ReadAt time.Time // when they were last read; zero: never
	Err    error     // of the last reading; nil: it went well
}

// Status tells what is known of each target, sorted.
func (c *Cache) Status() []Status {
	var all []Status
	for _, a := range c.apps {
		a.mu.Lock()
		for _, r := range a.targets {
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
		all = append(all, key.ID())
	}
	return all
}

// keep reads an application's keys until ctx ends.
func (c *Cache) keep(ctx context.Context, a *app) {
	// The second reading comes early by chance, so that receivers that were started together
	// do not read together.
	pause := rand.N(c.every)
	for {
		began := time.Now()
		ok := c.read(ctx, a)
		if !ok {
			pause += rand.N(c.every)
		}
		select {
		case <-time.After(time.Until(began.Add(pause))):
		case <-a.demand:
			select {
			case <-time.After(time.Until(began.Add(min(c.every, rereadPause)))):
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		pause = c.every
	}
}

// read reads the keys of all services of an application once.
func (c *Cache) read(ctx context.Context, a *app) (ok bool) {
	a.mu.Lock()
	a.begun++
	a.mu.Unlock()
	var failed []error
	for _, r := range a.targets {
		began := time.Now()
		read, cancel := context.WithTimeout(ctx, readTimeout)
		keys, err := c.reader.ReadKeys(read, r.target)
		cancel()
		a.mu.Lock()
		was := r.err
		if r.err = err; err == nil {
			c.tell(r, keys, was)
			r.keys, r.readAt = keys, began
		} else {
			failed = append(failed, err)
			if was == nil && ctx.Err() == nil {
				c.log.Warn("the keys cannot be read; those read last stay in use", "target", r.target.String(), "from", c.reader.String(), "error", err.Error(), "read_at", r.readAt)
			}
		}
		a.mu.Unlock()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold(time.Now())
	a.done, a.err = a.begun, errors.Join(failed...)
	close(a.more)
	a.more = make(chan struct{})
	return a.err == nil
}

// tell logs what a reading has changed.
func (c *Cache) tell(r *ring, keys Keys, was error) {
	if now := ids(keys); r.readAt.IsZero() || !slices.Equal(now, ids(r.keys)) {
		c.log.Info("keys read", "target", r.target.String(), "from", c.reader.String(), "accept", now, "accept_unsigned", keys.AcceptUnsigned)
	} else if was != nil {
		c.log.Info("the keys can be read again", "target", r.target.String(), "from", c.reader.String())
	}
}

// hold puts together what is known of all services. The caller holds a.mu.
func (a *app) hold(now time.Time) {
	var known []Keys
	for _, r := range a.targets {
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
