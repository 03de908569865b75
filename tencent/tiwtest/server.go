// Package tiwtest offers a server that behaves like Tencent's TIW API as far as callback
// keys go: it checks signatures with code of its own, keeps the rate limit, refuses as the
// API does, and fails in every way a network can. It also sends the callbacks that the
// keys sign, and receives them. Tests and the demo use it; it is no part of the daemon.
package tiwtest

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Options are a Server's settings; the zero value is Tencent's.
type Options struct {
	SignatureLife time.Duration // 0: five minutes
	Rate          int           // calls of one API in any second; 0: 20, negative: no limit
	Site          string        // of the account, "intl" or "mainland"; "": it may call in the regions of both
	Now           func() time.Time
}

// Server is a TIW API on a loopback port.
type Server struct {
	URL string

	now           func() time.Time
	signatureLife time.Duration
	rate          int
	site          string
	http          *http.Server
	served        sync.WaitGroup
	done          chan struct{}

	mu          sync.Mutex
	credentials map[string]secret
	apps        map[int64]*app
	plans       []plan
	hits        map[Kind]int
	calls       map[string]int
	windows     map[string][]time.Time
	timers      []*time.Timer
	watch       []func(Applied)
	history     map[Source][]string // every key there was, in order
}

type secret struct{ key, token string }

// app is one application of the account.
type app struct {
	keys     map[string]string // by service; absent or "": callbacks are unsigned
	refusals map[string]string // error code by "Set" or "Describe"
	tell     func(inForce string) string
	lag      time.Duration
	older    map[string]older // what a lagging Describe tells, by service
}

// older is a key that was in force, and until when.
type older struct {
	key   string
	until time.Time
}

// Applied is one change of a key.
type Applied struct {
	App     int64
	Service string
	Key     string
	At      time.Time
	Late    bool // after its answer was lost
}

// Start gives a running Server without credentials and applications.
func Start(o Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + l.Addr().String(), now: o.Now, signatureLife: o.SignatureLife, rate: o.Rate, site: o.Site,
		done: make(chan struct{}), credentials: map[string]secret{}, apps: map[int64]*app{}, hits: map[Kind]int{},
		calls: map[string]int{}, windows: map[string][]time.Time{}, history: map[Source][]string{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.signatureLife == 0 {
		s.signatureLife = 5 * time.Minute
	}
	if s.rate == 0 {
		s.rate = 20
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.served.Go(func() { _ = s.http.Serve(l) })
	return s, nil
}

// Close stops the server and what it still had to do.
func (s *Server) Close() {
	close(s.done)
	_ = s.http.Close()
	s.mu.Lock()
	for _, t := range s.timers {
		t.Stop()
	}
	s.mu.Unlock()
	s.served.Wait()
}

// AddCredential admits a SecretId; token is empty but for temporary credentials.
func (s *Server) AddCredential(secretID, secretKey, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials[secretID] = secret{secretKey, token}
}

// RemoveCredential revokes a SecretId.
func (s *Server) RemoveCredential(secretID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.credentials, secretID)
}

// AddApp registers an application that has no key yet.
func (s *Server) AddApp(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[id] = &app{keys: map[string]string{}, refusals: map[string]string{}, older: map[string]older{}}
}

// SetKey changes a key by hand, as somebody in Tencent's console would.
func (s *Server) SetKey(id int64, service, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(id, service, key, false)
}

// KeyInForce gives the key that callbacks are signed with, "" if they are not.
func (s *Server) KeyInForce(id int64, service string) string {
	key, _ := s.inForceNow(id, service)
	return key
}

// inForceNow is KeyInForce with a moment at which the key was in force.
func (s *Server) inForceNow(id int64, service string) (key string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[id]; a != nil {
		key = a.keys[service]
	}
	return key, time.Now()
}

// RefuseAlways answers every call of a verb ("Set" or "Describe") about an application with
// an error code; "" ends that.
func (s *Server) RefuseAlways(id int64, verb, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[id].refusals[verb] = code
}

// Tell has Describe answer, about an application, what f makes of the key in force; nil ends that.
func (s *Server) Tell(id int64, f func(inForce string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[id].tell = f
}

// Lag has Describe answer, about an application, with the key before the one in force for so long after a change.
func (s *Server) Lag(id int64, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[id].lag = d
}

// told is what Describe answers.
func (s *Server) told(id int64, service string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[id]
	key := a.keys[service]
	if o := a.older[service]; s.now().Sub(o.until) < a.lag {
		key = o.key
	}
	if a.tell != nil {
		return a.tell(key)
	}
	return key
}

// Calls counts the calls of an API that were authenticated.
func (s *Server) Calls(api string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[api]
}

// OnApply has f called at every change of a key, before anything else can see the change.
func (s *Server) OnApply(f func(Applied)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = append(s.watch, f)
}

// apply changes a key. The caller holds s.mu.
func (s *Server) apply(id int64, service, key string, late bool) {
	a := s.apps[id]
	if a == nil {
		return
	}
	a.older[service] = older{a.keys[service], s.now()}
	a.keys[service] = key
	src := Source{id, service}
	if !slices.Contains(s.history[src], key) {
		s.history[src] = append(s.history[src], key)
	}
	for _, f := range s.watch {
		f(Applied{App: id, Service: service, Key: key, At: s.now(), Late: late})
	}
}

// ordinal numbers the keys of a source, so that one can be told without being shown.
func (s *Server) ordinal(src Source, key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Index(s.history[src], key) + 1
}

// serves reports whether a service is there in a region, for this account: each site has one region, and one service is
// at the mainland site only.
func (s *Server) serves(region, service string) bool {
	switch region {
	case "ap-singapore":
		return s.site != "mainland" && service != "ppt-check"
	case "ap-guangzhou":
		return s.site != "intl"
	}
	return false
}

// overLimit keeps a sliding second for each API. The caller holds s.mu.
func (s *Server) overLimit(api string) bool {
	if s.rate < 0 {
		return false
	}
	now := s.now()
	w := s.windows[api]
	for len(w) > 0 && now.Sub(w[0]) >= time.Second {
		w = w[1:]
	}
	if len(w) >= s.rate {
		s.windows[api] = w
		return true
	}
	s.windows[api] = append(w, now)
	return false
}

func parseSeconds(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), err == nil && n > 0 && n < 1<<40
}
