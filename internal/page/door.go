package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	sessionSpan = 8 * time.Hour
	maxSessions = 100
)

// door knows who has shown the token. Sessions are in memory: a restart ends them, and so does
// another token.
type door struct {
	token  func() string
	secure func() bool
	now    func() time.Time
	tries  *rate.Limiter

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]*session // by what the cookie's value hashes to
}

type session struct {
	token [sha256.Size]byte // with which it was opened
	csrf  string            // what its forms must have
	note  string            // for the next page that it is shown
	until time.Time
}

// newDoor takes a login a second, after a few at once. They are those of everybody: who guesses
// keeps others out, and does not get in.
func newDoor(token func() string, secure func() bool, now func() time.Time) *door {
	return &door{token: token, secure: secure, now: now, tries: rate.NewLimiter(1, 5), sessions: map[[sha256.Size]byte]*session{}}
}

// cookieName has the port in it: the cookies of two daemons on one machine are not the same,
// though browsers tell hosts apart by name alone. It is the same with TLS and without, so that a
// session is found again when that changes.
func cookieName(r *http.Request) string {
	name := "tiwkeyd_session"
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		name += "_" + strconv.Itoa(at.Port)
	}
	return name
}

// find gives the request's session, nil if it has none that is good. It is called under mu.
func (d *door) find(r *http.Request) *session {
	c, err := r.Cookie(cookieName(r))
	token := d.token()
	if err != nil || token == "" {
		return nil
	}
	s := d.sessions[sha256.Sum256([]byte(c.Value))]
	if s == nil || !d.now().Before(s.until) || s.token != sha256.Sum256([]byte(token)) {
		return nil
	}
	return s
}

// refreshed is the header of a page that is loaded again by itself, as page.js has it.
const refreshed = "Tiwkeyd-Refresh"

// enter gives what the forms of the request's session must have, and what it is to be told,
// which is told once, and not to a page that nobody asked for.
func (d *door) enter(r *http.Request) (csrf, note string, in bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.find(r)
	if s == nil {
		return "", "", false
	}
	if r.Header.Get(refreshed) == "" {
		note, s.note = s.note, ""
	}
	return s.csrf, note, true
}

// admits reports whether the request has a session, and whether its form was made for that one.
func (d *door) admits(r *http.Request, csrf string) (in, ours bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.find(r)
	return s != nil, s != nil && subtle.ConstantTimeCompare([]byte(s.csrf), []byte(csrf)) == 1
}

// tell has the session's next page say something.
func (d *door) tell(r *http.Request, note string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.find(r); s != nil {
		s.note = note
	}
}

// open begins a session, for whoever has the token. The oldest goes where there are too many.
func (d *door) open(r *http.Request, shown string) (*http.Cookie, bool) {
	token := d.token()
	is, want := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(token))
	if token == "" || subtle.ConstantTimeCompare(is[:], want[:]) != 1 {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	var oldest [sha256.Size]byte
	var first *session
	for id, s := range d.sessions {
		if !now.Before(s.until) {
			delete(d.sessions, id)
		} else if first == nil || s.until.Before(first.until) {
			oldest, first = id, s
		}
	}
	if len(d.sessions) >= maxSessions {
		delete(d.sessions, oldest)
	}
	id := rand.Text()
	// Without a path it is sent back where login is, and below: under a proxy's path for us, not to what else is there.
	d.sessions[sha256.Sum256([]byte(id))] = &session{token: want, csrf: rand.Text(), until: now.Add(sessionSpan)}
	return &http.Cookie{Name: cookieName(r), Value: id, HttpOnly: true, Secure: r.TLS != nil || d.secure(), SameSite: http.SameSiteStrictMode, MaxAge: int(sessionSpan / time.Second)}, true
}

// close ends the request's session.
func (d *door) close(r *http.Request) {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.sessions, sha256.Sum256([]byte(c.Value)))
	}
}
