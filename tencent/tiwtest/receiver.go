package tiwtest

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Receiver is a webhook receiver that sees the store late. It is as strict as can be: a
// callback is accepted only if every view of the keyring that a receiver may have had when
// the callback was signed accepts it, from the newest one to the one that is just lag old.
//
// No verdict depends on how fast the machine is. A callback from a [Sender] counts for the
// moment at which it was signed, however long it was on its way. A view begins when the store
// says that it became readable; only if the store was away then does it begin later, when the
// store came back. A read that takes long is no outage: see readLimit.
type Receiver struct {
	lag  time.Duration
	poll time.Duration

	mu       sync.Mutex
	sources  map[secrets.Target]*watched
	verified map[string]int64 // by key id
}

// watched is what a Receiver knows of one target.
type watched struct {
	views  []view
	failed time.Time     // when the last read was begun, if it failed
	away   time.Time     // and the first of those that failed one after the other
	began  time.Time     // when the last read that succeeded was begun
	more   chan struct{} // closed after the next read
}

// view is what the keyring was from a moment on.
type view struct {
	from    time.Time
	version int64
	keyring *rotator.Keyring
}

const (
	// readLimit is how long the store may take to answer and is still there. It is what the
	// engine takes for an outage, too: were it shorter, these receivers would count as later than
	// the engine can know.
	readLimit = 5 * time.Second
	// unnoticed is how many polls long an outage may be and escape the engine, whose reads
	// are further apart.
	unnoticed = 8
)

// NewReceiver gives a Receiver whose views are up to lag old; it reads the store every poll.
func NewReceiver(lag, poll time.Duration) *Receiver {
	return &Receiver{lag: lag, poll: poll, sources: map[secrets.Target]*watched{}, verified: map[string]int64{}}
}

// Watch reads the targets' keyrings until ctx ends. A store that is away leaves the last
// view in force.
func (r *Receiver) Watch(ctx context.Context, store rotator.Store, targets ...secrets.Target) {
	tick := time.NewTicker(r.poll)
	defer tick.Stop()
	for {
		for _, t := range targets {
			began := time.Now()
			read, cancel := context.WithTimeout(ctx, readLimit)
			s, err := store.Read(read, t)
			cancel()
			r.see(t, s, err, began)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// see adds a view if it is another one, and drops those that nobody has any more.
func (r *Receiver) see(t secrets.Target, s rotator.Snapshot, err error, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.source(t)
	close(w.more)
	w.more = make(chan struct{})
	if err != nil {
		if w.failed.IsZero() {
			w.away = began
		}
		w.failed = began
		return
	}
	from := s.Written
	// The store may have come back while the last read that failed was under way. What time receivers had before it
	// went away counts.
	if came := w.failed.Add(-unnoticed * r.poll).Add(min(0, from.Sub(w.away))); !w.failed.IsZero() && came.After(from) {
		from = came
	}
	if from.IsZero() {
		from = began // the store does not say
	}
	w.failed, w.began = time.Time{}, began
	if s.Keyring == nil || (len(w.views) > 0 && w.views[len(w.views)-1].version == s.Version) {
		return
	}
	w.views = append(w.views, view{from, s.Version, s.Keyring})
	for len(w.views) > 1 && began.Sub(w.views[1].from) > 2*r.lag+time.Minute {
		w.views = w.views[1:]
	}
}

// source gives what is known of t. The caller holds r.mu.
func (r *Receiver) source(t secrets.Target) *watched {
	if r.sources[t] == nil {
		r.sources[t] = &watched{more: make(chan struct{})}
	}
	return r.sources[t]
}

// Ready reports whether the receiver has seen a keyring of the target.
func (r *Receiver) Ready(t secrets.Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.source(t).views) > 0
}

// Verified counts callbacks by the id of the key that verified them.
func (r *Receiver) Verified() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int64{}
	for id, n := range r.verified {
		out[id] = n
	}
	return out
}

// ServeHTTP takes a callback at a path that ends in the service's name.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var c struct {
		SdkAppID   int64 `json:"SdkAppId"`
		ExpireTime int64
		Sign       string
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 1<<20)).Decode(&c); err != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	t := secrets.Target{SdkAppID: c.SdkAppID, Service: secrets.Service(req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:])}
	if (c.Sign != "" || c.ExpireTime != 0) && time.Now().Unix() > c.ExpireTime {
		http.Error(w, "expired", http.StatusUnauthorized)
		return
	}
	at, err := time.Parse(time.RFC3339Nano, req.Header.Get(signedAt))
	if err != nil {
		at = time.Now() // it comes from somewhere else
	}
	if id, why := r.judge(req.Context(), t, at, c.Sign, c.ExpireTime); why != "" {
		http.Error(w, why, http.StatusUnauthorized)
		return
	} else if id != "" {
		r.mu.Lock()
		r.verified[id]++
		r.mu.Unlock()
	}
	_, _ = fmt.Fprint(w, `{"error_code":0}`)
}

// judge gives the id of the key that verifies a signature made at some moment in every view
// of that moment, or why not. What the views known so far do not verify is judged once more
// when a read that was begun later is done: it may have come before this receiver was told.
func (r *Receiver) judge(ctx context.Context, t secrets.Target, at time.Time, sign string, expire int64) (id, why string) {
	for {
		r.mu.Lock()
		w := r.source(t)
		views, upToDate, more := slices.Clone(w.views), !w.failed.IsZero() || w.began.After(at), w.more
		r.mu.Unlock()
		id, why = r.verdict(views, at, sign, expire)
		if why == "" || upToDate {
			return id, why
		}
		select {
		case <-more:
		case <-ctx.Done():
			return id, why
		}
	}
}

func (r *Receiver) verdict(views []view, at time.Time, sign string, expire int64) (id, why string) {
	for i, v := range views {
		if i+1 < len(views) && at.Sub(views[i+1].from) > r.lag {
			continue // nobody is that late
		}
		if i > 0 && v.from.After(at) {
			continue // nobody had it yet
		}
		if sign == "" && v.keyring.AcceptUnsigned {
			continue
		}
		found := ""
		for _, k := range v.keyring.Accept() {
			if subtle.ConstantTimeCompare([]byte(Sign(k.Reveal(), expire)), []byte(sign)) == 1 {
				found = k.ID()
			}
		}
		if found == "" {
			return "", fmt.Sprintf("no key of %v verifies it in the view since %s (version %d, %d of %d)",
				v.keyring.Accept(), v.from.UTC().Format(time.RFC3339Nano), v.version, i+1, len(views))
		}
		id = found
	}
	return id, ""
}
