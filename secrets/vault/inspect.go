package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets"
)

// Health is what Vault says of itself to anybody.
type Health struct {
	Initialized, Sealed bool
	Version             string
	Date                time.Time // of the answer, by Vault's clock; zero: it had none
}

// Health asks Vault how it is, without a token.
func (s *Store) Health(ctx context.Context) (Health, error) {
	var h Health
	// Only the root namespace knows.
	client := s.client.WithNamespace("").WithResponseCallbacks(func(r *api.Response) {
		if at, err := http.ParseTime(r.Header.Get("Date")); err == nil {
			h.Date = at
		}
	})
	client.ClearToken()
	got, err := client.Sys().HealthWithContext(ctx)
	if err != nil {
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err // without the URL, which has a parameter for each of Vault's states
		}
		return h, s.failed("ask for its health", err, "check VAULT_ADDR, VAULT_CACERT and that Vault runs there")
	}
	h.Initialized, h.Sealed, h.Version = got.Initialized, got.Sealed, got.Version
	return h, nil
}

// TokenInfo is what Vault says of the token.
type TokenInfo struct {
	Method    Method
	Policies  []string
	TTL       time.Duration // 0: it never ends
	Renewable bool
	Ends      time.Time // when renewals end, if the token itself has such a time

	// Hidden says that Vault knows the token, whose policies do not let it ask about itself.
	Hidden bool
}

// LookUpToken logs in if need be and asks about the token.
func (s *Store) LookUpToken(ctx context.Context) (TokenInfo, error) {
	info := TokenInfo{Method: s.session.login.Method}
	if _, err := s.session.ready(ctx); err != nil {
		return info, err
	}
	got, err := s.client.Auth().Token().LookupSelfWithContext(ctx)
	// Of a token that it does not know Vault says so; one old enough only to deny shows at the next request.
	if info.Hidden = Denied(err) && !strings.Contains(err.Error(), "invalid token"); info.Hidden {
		return info, nil
	}
	if err != nil {
		return info, s.failed("look up the token", err, s.tokenAdvice(err))
	}
	if info.TTL, err = got.TokenTTL(); err == nil {
		info.Renewable, err = got.TokenIsRenewable()
	}
	if err == nil {
		info.Policies, err = got.TokenPolicies()
	}
	if err != nil {
		return info, s.failed("look up the token", errors.New("the answer cannot be read"), "check that VAULT_ADDR is that of a Vault")
	}
	created, createdErr := seconds(got.Data["creation_time"])
	limit, limitErr := seconds(got.Data["explicit_max_ttl"])
	if createdErr == nil && limitErr == nil && limit > 0 {
		info.Ends = time.Unix(created+limit, 0)
	}
	return info, nil
}

func seconds(v any) (int64, error) {
	n, ok := v.(interface{ Int64() (int64, error) }) // json.Number
	if !ok {
		return 0, errors.New("not a number")
	}
	return n.Int64()
}

func (s *Store) tokenAdvice(err error) string {
	if status(err) != http.StatusForbidden {
		return "check VAULT_ADDR, VAULT_CACERT and that Vault runs; see also VAULT_NAMESPACE"
	}
	fresh := map[Method]string{Token: "give a new one in VAULT_TOKEN", TokenFile: "have a new one written to VAULT_TOKEN_FILE"}[s.session.login.Method]
	if fresh == "" {
		fresh = "log in again"
	}
	return "the token is not valid here (mistyped, expired, revoked, or of another namespace): " + fresh
}

// CheckMount reports what makes the mount unusable, by reading t's secret. It is not known
// where Vault tells nothing of the mount to this token.
func (s *Store) CheckMount(ctx context.Context, t secrets.Target) (known bool, err error) {
	_, err = s.Secret(ctx, t, 0)
	if status(err) == http.StatusForbidden {
		return s.checked.Load(), nil // the token's policies are another matter
	}
	return err == nil, err
}

// Need is what the daemon must be allowed to do on a path of Vault's.
type Need struct {
	Path         string
	Capabilities []string
	Policy       string // the stanza that allows it
	Guessed      bool   // Vault does not tell in which mount it is: the first slash was taken for the mount's end
}

func need(path, rule string, capabilities ...string) Need {
	return Need{Path: path, Capabilities: capabilities, Policy: fmt.Sprintf(`path "%s" { capabilities = ["%s"] }`, rule, strings.Join(capabilities, `", "`))}
}

// Needs lists what the daemon needs for a target's keyring.
func (s *Store) Needs(t secrets.Target, keepVersions bool) []Need {
	rule := strings.TrimPrefix(s.prefix+"/*", "/")
	needs := []Need{need(s.mount+"/data/"+s.path(t), s.mount+"/data/"+rule, "create", "read", "update")}
	if !keepVersions {
		needs = append(needs, need(s.mount+"/destroy/"+s.path(t), s.mount+"/destroy/"+rule, "update"))
	}
	return needs
}

// Missing tells which of the needs the token's policies leave unmet, as the capabilities that are
// lacking, in the order of the needs.
func (s *Store) Missing(ctx context.Context, needs []Need) ([][]string, error) {
	var paths []string
	for _, n := range needs {
		paths = append(paths, n.Path)
	}
	if _, err := s.session.ready(ctx); err != nil {
		return nil, err
	}
	got, err := s.client.Logical().WriteWithContext(ctx, "sys/capabilities-self", map[string]any{"paths": paths})
	if err == nil && got == nil {
		err = errors.New("the answer is empty")
	}
	if err != nil {
		advice := "check VAULT_ADDR, and that Vault runs"
		if Denied(err) {
			advice = `give the token the policy "default" too, or add to its own: path "sys/capabilities-self" { capabilities = ["update"] }`
		}
		return nil, s.failed("ask what the token may do", err, advice)
	}
	missing := make([][]string, len(needs))
	for i, n := range needs {
		has := map[any]bool{}
		list, _ := got.Data[n.Path].([]any)
		for _, c := range list {
			has[c] = true
		}
		for _, c := range n.Capabilities {
			if !has[c] && !has["root"] {
				missing[i] = append(missing[i], c)
			}
		}
	}
	return missing, nil
}
