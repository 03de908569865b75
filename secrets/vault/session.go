package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// reLoginPause is how long after a login that failed the next one is tried in the background.
const reLoginPause = 5 * time.Second

// session keeps the client's token good.
type session struct {
	client   *api.Client
	login    Login
	log      *slog.Logger
	lookOnly bool // a token that was given is not renewed

	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup

	lock  chan struct{} // held while what follows is used, and a login or renewal is made
	token string        // "": there is none yet, or it is known to be gone
	stop  context.CancelFunc

	refused refusal

	life life
}

func newSession(client *api.Client, login Login, log *slog.Logger) *session {
	s := &session{client: client, login: login, log: log, lock: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	client.ClearToken()
	return s
}

func (s *session) close() {
	s.cancel()
	s.group.Wait()
}

// acquireLock waits for the lock no longer than ctx.
func (s *session) acquireLock(ctx context.Context) error {
	select {
	case s.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) releaseLock() { <-s.lock }

// ready makes sure that the client has a token, and gives it.
func (s *session) ready(ctx context.Context) (string, error) {
	if err := s.acquireLock(ctx); err != nil {
		return "", fmt.Errorf("vault: %w: wait for the login that is under way: %w", errNoLogin, err)
	}
	defer s.releaseLock()
	if s.login.Method == TokenFile {
		// Whoever writes the file renews and replaces the token; a stat would be no cheaper.
		token, err := s.login.given()
		if err != nil {
			return "", s.notGiven(err)
		}
		s.use(token)
		s.lookUp(token)
		return token, nil
	}
	if s.token != "" {
		s.lookUp(s.token)
		return s.token, nil
	}
	err := s.acquire(ctx)
	return s.token, err
}

// renew is called when Vault denied a request made with token. It reports whether there is
// another token now. A denial for lack of a capability leaves the token as it is.
func (s *session) renew(ctx context.Context, token string) bool {
	if s.acquireLock(ctx) != nil {
		return false
	}
	defer s.releaseLock()
	if s.token != token {
		return true
	}
	if _, err := s.client.Auth().Token().LookupSelfWithContext(ctx); status(err) != http.StatusForbidden {
		return false
	}
	s.token = ""
	switch s.login.Method {
	case AppRole, Kubernetes:
		s.log.Warn("vault does not know the token any more; logging in again")
		err := s.acquire(ctx)
		if err != nil && !errors.Is(err, s.refused.err) { // or it is told already
			s.log.Error("login to vault failed", "error", err.Error())
		}
		return err == nil
	case TokenFile:
		fresh, err := s.login.given()
		if err != nil || fresh == token {
			return false
		}
		s.use(fresh)
		return true
	}
	s.log.Error("vault does not know VAULT_TOKEN any more: it has expired or was revoked; give a new one and restart, or use VAULT_TOKEN_FILE")
	return false
}

// acquire gets a token and keeps it renewed. The caller holds the lock.
func (s *session) acquire(ctx context.Context) error {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
	if !s.login.logsIn() {
		token, err := s.login.given()
		if err != nil {
			return s.notGiven(err)
		}
		s.use(token)
		if s.lookOnly {
			return nil
		}
		if err := s.keepGiven(ctx); err != nil {
			// Vault is away or sealed. The token may be good, and must not run out unrenewed.
			s.background(func(ctx context.Context) { s.retry(ctx, token, err) })
		}
		return nil
	}
	proof, err := s.login.proof()
	if err != nil {
		return s.notGiven(err)
	}
	if err := s.refused.stands(proof); err != nil {
		return err
	}
	// On a client of its own: requests under way must not lose their token meanwhile.
	fresh := s.client.WithNamespace(s.client.Namespace())
	fresh.ClearToken()
	secret, err := s.login.auth(ctx, fresh, proof)
	if err != nil {
		pause, final := s.login.refuses(err)
		failed := &Error{Tried: fmt.Sprintf("vault: %v: log in with %s at %s", errNoLogin, s.login.Method, s.client.Address()),
			Err: noLogin{hushed{oneLine{err}, proof}, final}, Advice: s.login.advice(err)}
		if pause > 0 {
			s.refused = refusal{sha256.Sum256([]byte(proof)), time.Now().Add(pause), failed}
			s.log.Error("vault refused the login; the same secret is not shown again before the time given", "error", failed.Error(), "again_at", s.refused.until)
		}
		return failed
	}
	s.refused = refusal{}
	s.use(secret.Auth.ClientToken)
	s.keep(secret.Auth, nil)
	s.log.Info("logged in to vault", "method", string(s.login.Method), "policies", secret.Auth.Policies,
		"ttl", (time.Duration(secret.Auth.LeaseDuration) * time.Second).String(), "renewable", secret.Auth.Renewable)
	return nil
}

func (s *session) notGiven(err error) error {
	what := "a token"
	if s.login.Method == AppRole {
		what = "a secret id"
	}
	return &Error{Tried: "vault: " + errNoLogin.Error(), Err: noLogin{err, true}, Advice: "have " + what + " written there, readable by the user this runs as"}
}

func (s *session) use(token string) {
	s.token = token
	s.client.SetToken(token)
}

// background runs f until the next token is acquired or the session is closed. The caller
// holds the lock.
func (s *session) background(f func(context.Context)) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.stop = cancel
	s.group.Go(func() {
		defer cancel()
		f(ctx)
	})
}

// retry follows the end of a token's renewal, which may also have ended because Vault was
// away: it logs in or renews again, until Vault says yes or no.
func (s *session) retry(ctx context.Context, token string, cause error) {
	for !s.again(ctx, token, cause) && pause(ctx, reLoginPause) {
	}
}

// again gets a good token unless somebody else did.
func (s *session) again(ctx context.Context, token string, cause error) bool {
	if s.acquireLock(ctx) != nil {
		return false
	}
	defer s.releaseLock()
	if s.token != token {
		return true
	}
	s.stop = nil // this goroutine is what it would stop, and it is about to end by itself
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !s.login.logsIn() {
		return s.keepGiven(call) == nil
	}
	err := s.acquire(call)
	if err != nil && !errors.Is(err, s.refused.err) { // or it is told already
		s.log.Error("login to vault failed; it is tried again", "error", err.Error(), "after", oneLine{cause}.Error())
	}
	return err == nil
}
