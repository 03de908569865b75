package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// How long after a renewal that failed the next one is tried: twice as long each time, within these, and
// within a tenth of the time that is left.
const (
	shortestPause = 5 * time.Second
	longestPause  = 5 * time.Minute
)

var (
	errNotRenewable = errors.New("it is not renewable")
	errMaximum      = errors.New("it has all the time that it may get")
	errOver         = errors.New("the token's lifetime is over")
)

// newToken is what to do about a token that was given and will end.
const newToken = "give a periodic one (`vault token create -period=24h -policy=tiwkeyd`), or use VAULT_TOKEN_FILE, AppRole or Kubernetes"

// keepGiven renews the token that was handed to this program, and goes on doing so. One that cannot be
// renewed is used as it is, and its end is told of. Its error means that Vault gave no answer. The
// caller holds the lock.
func (s *session) keepGiven(ctx context.Context) error {
	auth, err := s.renewSelf(ctx, s.token)
	if err == nil {
		s.keep(auth, nil)
		return nil
	}
	self, lookErr := s.client.Auth().Token().LookupSelfWithContext(ctx)
	left, known := timeLeft(self)
	switch {
	case known:
		s.keep(&api.SecretAuth{LeaseDuration: left}, err)
	case !lasting(err):
		return err
	case !Denied(lookErr):
		return lookErr
	case !strings.Contains(lookErr.Error(), "invalid token"): // else the first request tells
		s.log.Warn("the vault token cannot be renewed: "+newToken, "error", oneLine{err}.Error(), "time_left", "Vault does not tell")
	}
	return nil
}

// renewSelf renews a token once.
func (s *session) renewSelf(ctx context.Context, token string) (*api.SecretAuth, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	self, err := s.client.Auth().Token().RenewTokenAsSelfWithContext(ctx, token, 0)
	switch {
	case err != nil:
		return nil, err
	case self == nil || self.Auth == nil:
		return nil, errors.New("the answer tells of no token")
	case !self.Auth.Renewable && self.Auth.LeaseDuration > 0:
		return nil, errNotRenewable
	case self.Auth.Renewable && self.Auth.LeaseDuration == 0:
		return nil, errMaximum // less than a second, not for ever
	}
	return self.Auth, nil
}

// lasting reports whether a renewal failed for a reason that will not pass by itself.
func lasting(err error) bool {
	code := status(err)
	return errors.Is(err, errMaximum) || errors.Is(err, errNotRenewable) || (code >= 400 && code < 500 && code != http.StatusTooManyRequests)
}

// keep renews the token in use in the background for as long as that works, then gets another. err
// is why it was not renewed just now. The caller holds the lock.
func (s *session) keep(auth *api.SecretAuth, err error) {
	token := s.token
	s.life.lasts(token, auth.LeaseDuration, true)
	if auth.LeaseDuration == 0 {
		return // it never ends
	}
	s.background(func(ctx context.Context) {
		if err := s.prolong(ctx, token, auth, err); err != nil {
			s.retry(ctx, token, err)
		}
	})
}

// prolong renews a token when two thirds of its time have gone, and tells of every renewal that failed.
// Its error is why another token is needed, or, of one that was given, that Vault gives no answer.
func (s *session) prolong(ctx context.Context, token string, auth *api.SecretAuth, err error) error {
	life := time.Duration(auth.LeaseDuration) * time.Second
	end := time.Now().Add(life)
	for failures := 0; ; {
		wait := time.Until(end) * 2 / 3
		if err != nil {
			var on bool
			if wait, on = s.notRenewed(err, failures, life, time.Until(end)); !on {
				return err
			}
			failures++
		}
		if !pause(ctx, wait) {
			return nil
		}
		if s.login.logsIn() && !auth.Renewable {
			return errOver
		}
		next, renewErr := s.renewSelf(ctx, token)
		if ctx.Err() != nil {
			return nil // another token is in use, or none is needed
		}
		if err = renewErr; err != nil {
			continue
		}
		life = time.Duration(next.LeaseDuration) * time.Second
		s.life.lasts(token, next.LeaseDuration, true)
		gained := life - time.Until(end)
		end = end.Add(gained)
		switch {
		case gained+time.Second < wait*9/10: // Vault tells whole seconds
			err = errMaximum
		case failures > 0:
			failures = 0
			s.log.Info("the vault token is renewed again", "time_left", life.String())
		default:
			s.log.Debug("vault token renewed", "ttl_seconds", next.LeaseDuration)
		}
	}
}

// notRenewed tells of a renewal that failed, after so many others, and gives how long to wait for the next
// one. There is none for a token that has ended, or that another login can take the place of.
func (s *session) notRenewed(err error, failures int, life, left time.Duration) (wait time.Duration, on bool) {
	attrs := []any{"error", oneLine{err}.Error(), "time_left", max(left, 0).Round(time.Second).String()}
	switch last := lasting(err); {
	case last && s.login.logsIn():
		if !errors.Is(err, errMaximum) {
			s.log.Warn("the vault token was not renewed; another login follows", attrs...)
		}
		return 0, false
	case last:
		// Told again at a half, a quarter and so on: somebody has to do something.
		s.log.Warn("the vault token cannot be renewed: "+newToken, attrs...)
		return max(left/2, time.Second), left > 0
	}
	s.log.Warn("the vault token was not renewed; it is tried again", attrs...)
	wait = min(shortestPause<<min(failures, 6), longestPause, max(left/10, shortestPause))
	if s.login.logsIn() {
		left -= life / 10 // a login needs time, too
	}
	return wait, left > wait
}

// pause waits, and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
