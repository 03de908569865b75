package tiwtest

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"tiwkeyd/rotator"
)

// Receiver is a webhook receiver that sees the store late. It is as strict as can be: a
// callback is accepted only if every view of the keyring that a receiver may still have at
// that moment accepts it, from the newest one to the one that is just lag old.
type Receiver struct {
	lag  time.Duration
	poll time.Duration

	mu       sync.Mutex
	views    map[rotator.Target][]view
	verified map[string]int64 // by key id
}

// view is what the keyring was from a moment on.
type view struct {
	from     time.Time
	keyring  *rotator.Keyring
	unsigned bool
}

// NewReceiver gives a Receiver whose views are up to lag old; it reads the store every poll,
// which makes a view that much older still, so that is taken off.
func NewReceiver(lag, poll time.Duration) *Receiver {
	return &Receiver{lag: max(0, lag-2*poll), poll: poll, views: map[rotator.Target][]view{}, verified: map[string]int64{}}
}

// Watch reads the targets' keyrings until ctx ends. A store that is away leaves the last
// view in force.
func (r *Receiver) Watch(ctx context.Context, store rotator.Store, targets ...rotator.Target) {
	tick := time.NewTicker(r.poll)
	defer tick.Stop()
	for {
		for _, t := range targets {
			if s, err := store.Read(ctx, t); err == nil && s.Keyring != nil {
				r.see(t, s.Keyring)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// see adds a view if it differs, and drops those that nobody has any more.
func (r *Receiver) see(t rotator.Target, k *rotator.Keyring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	views := append(r.views[t], view{now, k, k.AcceptUnsigned})
	for len(views) > 1 && now.Sub(views[1].from) > r.lag {
		views = views[1:]
	}
	r.views[t] = views
}

// Ready reports whether the receiver has seen a keyring of the target.
func (r *Receiver) Ready(t rotator.Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.views[t]) > 0
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
	t := rotator.Target{SdkAppID: c.SdkAppID, Service: rotator.Service(req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:])}
	if time.Now().Unix() > c.ExpireTime {
		http.Error(w, "expired", http.StatusUnauthorized)
		return
	}
	if id, why := r.judge(t, c.Sign, c.ExpireTime); why != "" {
		http.Error(w, why, http.StatusUnauthorized)
		return
	} else if id != "" {
		r.mu.Lock()
		r.verified[id]++
		r.mu.Unlock()
	}
	_, _ = fmt.Fprint(w, `{"error_code":0}`)
}

// judge gives the id of the key that verifies a signature in every view, or why not.
func (r *Receiver) judge(t rotator.Target, sign string, expire int64) (id, why string) {
	r.mu.Lock()
	views := append([]view(nil), r.views[t]...)
	r.mu.Unlock()
	if len(views) == 0 {
		return "", ""
	}
	now := time.Now()
	for i, v := range views {
		if i+1 < len(views) && now.Sub(views[i+1].from) > r.lag {
			continue // nobody is that late
		}
		if sign == "" && v.unsigned {
			continue
		}
		found := ""
		for _, k := range v.keyring.Accept() {
			if subtle.ConstantTimeCompare([]byte(Sign(k.Reveal(), expire)), []byte(sign)) == 1 {
				found = k.ID()
			}
		}
		if found == "" {
			return "", fmt.Sprintf("no key of %v verifies it in the view since %s (%d of %d)", v.keyring.Accept(), v.from.UTC().Format(time.RFC3339Nano), i+1, len(views))
		}
		id = found
	}
	return id, ""
}
