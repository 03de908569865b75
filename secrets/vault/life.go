package vault

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// lookUpEvery is how often Vault is asked about a token that somebody else renews.
const lookUpEvery = time.Minute

// life is what is known of the end of the token in use.
type life struct {
	mu      sync.Mutex
	wanted  bool // somebody asked for it: else nothing is asked of Vault for it
	token   string
	until   time.Time // zero: not known, or never
	kept    bool      // it is renewed here, and every renewal tells
	asked   time.Time // when Vault was last asked about the token, if it was
	looking bool
}

// lasts says how many seconds the token has left; 0 is for ever.
func (l *life) lasts(token string, seconds int, kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token, l.until, l.kept = token, time.Time{}, kept
	if seconds > 0 {
		l.until = time.Now().Add(time.Duration(seconds) * time.Second)
	}
}

// open reports whether it is time to ask Vault about the token; who is told so asks.
func (l *life) open(token string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token != l.token {
		l.token, l.until, l.kept, l.asked = token, time.Time{}, false, time.Time{}
	}
	if !l.wanted || l.looking || l.kept || time.Since(l.asked) < lookUpEvery {
		return false
	}
	l.asked, l.looking = time.Now(), true
	return true
}

func (l *life) looked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looking = false
}

// lookUp asks Vault in the background how long a token lasts that is not renewed here. A
// token that may not ask about itself is used all the same. The caller holds the lock.
func (s *session) lookUp(token string) {
	if s.ctx.Err() != nil || !s.life.open(token) {
		return
	}
	s.group.Go(func() {
		defer s.life.looked()
		// On a client of its own: the session's may have another token by then.
		client, err := s.client.Clone()
		if err != nil {
			return
		}
		client.SetToken(token)
		if ns := s.client.Namespace(); ns != "" {
			client.SetNamespace(ns)
		}
		ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
		defer cancel()
		self, err := client.Auth().Token().LookupSelfWithContext(ctx)
		if left, ok := timeLeft(self); err == nil && ok {
			s.life.lasts(token, left, false)
		}
	})
}

// timeLeft is how many seconds a token that was looked up has.
func timeLeft(self *api.Secret) (seconds int, ok bool) {
	if self == nil {
		return 0, false
	}
	left, err := self.TokenTTL()
	return int(left / time.Second), err == nil
}

// TokenExpiry is when the token in use ends unless it is renewed. It is not known of a token
// that never ends, nor before the first call; of a token that somebody else renews, not before
// the first call after it was asked for.
func (s *Store) TokenExpiry() (time.Time, bool) {
	l := &s.session.life
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = true
	return l.until, !l.until.IsZero()
}
