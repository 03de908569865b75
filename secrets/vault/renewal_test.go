package vault

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/internal/bounded"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// renewing is a Vault that gives tokens, without a network: it lives in a test's own time.
type renewing struct {
	mu       sync.Mutex
	status   int // of an answer to a renewal
	answer   string
	ttl      string // what a look-up tells
	login    string // what a login gives
	logins   int
	renewals int
}

func (v *renewing) set(status int, answer string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status, v.answer = status, answer
}

func (v *renewing) RoundTrip(r *http.Request) (*http.Response, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	status, answer := 200, `{"data": {}}`
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/renew-self"):
		v.renewals++
		status, answer = v.status, v.answer
	case strings.HasSuffix(path, "/lookup-self"):
		answer = `{"data": {"ttl": ` + v.ttl + `}}`
		if v.answer == ended {
			status, answer = v.status, v.answer
		}
	case strings.HasSuffix(path, "/login"):
		v.logins++
		answer = v.login
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

const (
	hourLong   = `{"auth": {"client_token": "t", "renewable": true, "lease_duration": 3600}}`
	halfHour   = `{"auth": {"client_token": "t", "renewable": true, "lease_duration": 1800}}`
	fixedHour  = `{"auth": {"client_token": "t", "renewable": false, "lease_duration": 3600}}`
	noTime     = `{"auth": {"client_token": "t", "renewable": true, "lease_duration": 0}}`
	ended      = `{"errors": ["permission denied", "invalid token"]}`
	forLife    = `{"auth": {"client_token": "t", "renewable": false, "lease_duration": 0}}`
	broken     = `{"errors": ["internal error"]}`
	fixed      = `{"errors": ["lease is not renewable"]}`
	notOurs    = `{"errors": ["permission denied"]}`
	fixedLogin = "logged in for a token that cannot be renewed"
	oneCannot  = "the vault token cannot be renewed"
)

// TestRenewals tells of renewals that fail, with the time that is left, and goes on by itself.
func TestRenewals(t *testing.T) {
	t.Parallel()
	given, role := map[string]string{"VAULT_TOKEN": "t"}, map[string]string{"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"}
	type turn struct {
		status int
		answer string
		lasts  time.Duration
	}
	for name, c := range map[string]struct {
		env    map[string]string
		ttl    string
		turns  []turn
		says   []string
		silent []string
		warns  [2]int // at least and at most
		logins int
	}{
		"all is well":   {given, "3600", []turn{{200, hourLong, 10 * time.Hour}}, nil, []string{"cannot", "not renewed"}, [2]int{0, 0}, 0},
		"it never ends": {given, "0", []turn{{200, forLife, 10 * time.Hour}}, nil, []string{"cannot", "not renewed"}, [2]int{0, 0}, 0},
		"one that never ends and cannot be renewed": {given, "0", []turn{{400, fixed, 10 * time.Hour}}, nil, []string{"cannot"}, [2]int{0, 0}, 0},
		"500 for a while": {given, "3600", []turn{{200, hourLong, 30 * time.Minute}, {500, broken, 15 * time.Minute}, {200, hourLong, 10 * time.Hour}},
			[]string{"was not renewed; it is tried again", "internal error", "time_left=19m", "is renewed again"}, []string{"cannot"}, [2]int{3, 9}, 0},
		"500 from the start": {given, "3600", []turn{{500, broken, 15 * time.Minute}, {200, hourLong, 10 * time.Hour}},
			[]string{"was not renewed; it is tried again", "time_left=1h0m0s", "is renewed again"}, []string{"cannot"}, [2]int{3, 9}, 0},
		"not renewable": {given, "36000", []turn{{400, fixed, 10*time.Hour - time.Minute}},
			[]string{oneCannot, "time_left=10h0m0s", "time_left=5h0m0s", "time_left=37m30s", "vault token create -period=24h", "VAULT_TOKEN_FILE"}, nil, [2]int{5, 12}, 0},
		"its policy lets it not": {given, "36000", []turn{{403, notOurs, 6 * time.Hour}, {200, hourLong, 10 * time.Hour}},
			[]string{oneCannot, "permission denied", "time_left=5h0m0s"}, nil, [2]int{2, 3}, 0},
		"near its maximum": {given, "3600", []turn{{200, hourLong, 39 * time.Minute}, {200, halfHour, 9 * time.Minute}, {200, halfHour, time.Minute}},
			[]string{oneCannot, "it has all the time that it may get", "time_left=30m0s"}, nil, [2]int{1, 1}, 0},
		"logged in, 500 for a while": {role, "3600", []turn{{500, broken, 50 * time.Minute}, {200, hourLong, time.Hour}},
			[]string{"was not renewed; it is tried again", "time_left=19m", "is renewed again"}, []string{"cannot"}, [2]int{10, 16}, 1},
		"logged in, 500 to the end": {role, "3600", []turn{{500, broken, time.Hour}, {200, hourLong, time.Hour}},
			[]string{"was not renewed; it is tried again"}, []string{"cannot"}, [2]int{10, 16}, 2},
		"logged in, not to be renewed": {role, "3600", []turn{{403, notOurs, time.Hour}, {200, hourLong, time.Hour}},
			[]string{"another login follows", "time_left=20m0s"}, []string{"cannot"}, [2]int{1, 1}, 2},
		"too many requests": {given, "3600", []turn{{429, broken, 3 * time.Minute}, {200, hourLong, 10 * time.Minute}},
			[]string{"was not renewed; it is tried again", "is renewed again"}, []string{"cannot"}, [2]int{3, 9}, 0},
		"near its end": {given, "1", []turn{{200, noTime, 500 * time.Millisecond}},
			[]string{oneCannot, "time_left=1s"}, nil, [2]int{1, 1}, 0},
		"not renewable any more": {given, "3600", []turn{{200, hourLong, 39 * time.Minute}, {200, fixedHour, 2 * time.Minute}},
			[]string{oneCannot, "it is not renewable", "time_left=20m0s"}, nil, [2]int{1, 1}, 0},
		"ended": {given, "3600", []turn{{400, fixed, 59 * time.Minute}, {403, ended, 3 * time.Hour}},
			[]string{oneCannot}, []string{"it is tried again"}, [2]int{6, 16}, 0},
		"logged in, near its maximum": {role, "3600", []turn{{200, halfHour, 41 * time.Minute}}, nil, []string{"cannot", "not renewed"}, [2]int{0, 0}, 2},
		fixedLogin:                    {role, "3600", []turn{{500, broken, 41 * time.Minute}}, nil, []string{"cannot", "not renewed"}, [2]int{0, 0}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := &renewing{ttl: c.ttl, login: hourLong}
				if name == fixedLogin {
					v.login = fixedHour
				}
				v.set(c.turns[0].status, c.turns[0].answer)
				s, log := open(t, "http://vault.invalid", c.env)
				s.client.CloneConfig().HttpClient.Transport.(bounded.Transport).RegisterProtocol("http", v)
				if _, err := s.session.ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, turn := range c.turns {
					v.set(turn.status, turn.answer)
					time.Sleep(turn.lasts)
				}
				synctest.Wait()
				s.Close()
				text := log.String()
				for _, want := range c.says {
					if !strings.Contains(text, want) {
						t.Errorf("%q is not said", want)
					}
				}
				for _, word := range c.silent {
					if strings.Contains(text, word) {
						t.Errorf("%q is said", word)
					}
				}
				if n := strings.Count(text, "level=WARN"); n < c.warns[0] || n > c.warns[1] {
					t.Errorf("%d warnings", n)
				}
				if v.logins != c.logins {
					t.Errorf("%d logins", v.logins)
				}
				if t.Failed() {
					t.Logf("%d renewals\n%s", v.renewals, text)
				}
			})
		})
	}
}

// fixedToken has a real token that cannot be renewed: it is told at the start, and the token is used.
func fixedToken(t *testing.T, v *vaulttest.Server) {
	for name, data := range map[string]map[string]any{
		"not renewable":              {"policies": "tiwkeyd", "ttl": "1h", "renewable": false},
		"a batch token":              {"policies": "tiwkeyd", "ttl": "1h", "type": "batch"},
		"without the policy default": {"policies": "tiwkeyd", "ttl": "1h", "no_default_policy": true},
	} {
		made, err := v.Client(v.Token).Logical().Write("auth/token/create", data)
		if err != nil {
			t.Fatal(err)
		}
		s, log := open(t, v.Addr, withToken(made.Auth.ClientToken))
		if _, err := s.Read(t.Context(), storetest.Target()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		left := "time_left=1h0m0s"
		if name == "without the policy default" {
			left = "Vault does not tell"
		}
		if text := strings.ReplaceAll(log.String(), "59m59s", "1h0m0s"); !strings.Contains(text, oneCannot) || !(strings.Contains(text, left) || strings.Contains(text, "time_left=59m")) {
			t.Errorf("%s: %s", name, text)
		}
		shows(t, log, made.Auth.ClientToken)
	}
	// A file's token is renewed and replaced by somebody else.
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("\ufeff"+v.NewToken("tiwkeyd", "1h")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, log := open(t, v.Addr, map[string]string{"VAULT_TOKEN_FILE": path})
	if _, err := s.Read(t.Context(), storetest.Target()); err != nil || strings.Contains(log.String(), oneCannot) {
		t.Errorf("a token in a file: %v, %s", err, log)
	}
}
