package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/bounded"
	"tiwkeyd/internal/printable"
)

// What makes a mount unusable, whatever the token may do.
var (
	ErrNotKV2  = errors.New("the mount is not a KV version 2 engine")
	ErrNoMount = errors.New("the mount is not there")
)

// Error is a request to Vault that failed.
type Error struct {
	Tried  string // what, and where
	Err    error  // what came of it; in the text a line without a token or a key
	Advice string // what the reader can do about it, if that is known
}

func (e *Error) Error() string {
	text := e.Finding()
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	return text
}

// Finding is the text without the advice.
func (e *Error) Finding() string { return e.Tried + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// call runs a request about a path in the keyrings' mount.
func (s *Store) call(ctx context.Context, verb, path, capabilities string, request func(context.Context) error) error {
	return s.callIn(ctx, s.mount, verb, path, capabilities, request)
}

// callIn runs one request with a token and a deadline, once more if the token turned out to
// have gone and there is a new one by then, and explains its error.
func (s *Store) callIn(ctx context.Context, mount, verb, path, capabilities string, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token, err := s.session.ready(ctx)
	if err != nil {
		return err
	}
	err = request(ctx)
	if status(err) == http.StatusForbidden && s.session.renew(ctx, token) {
		err = request(ctx)
	}
	if err == nil {
		return nil
	}
	return s.failed(verb+" "+mount+"/"+strings.TrimPrefix(path, "data/"), err, s.advice(err, mount+"/"+path, capabilities))
}

func (s *Store) failed(tried string, err error, advice string) error {
	return &Error{Tried: fmt.Sprintf("vault: %s at %s", tried, s.client.Address()), Err: oneLine{err}, Advice: advice}
}

// oneLine is an error whose text the library spreads over several lines. An answer that is
// not Vault's own, such as a proxy's page, may quote the request, token and keys and all.
type oneLine struct{ error }

func (e oneLine) Error() string {
	var res *api.ResponseError
	if errors.As(e.error, &res) {
		if res.RawError {
			return fmt.Sprintf("HTTP status %d, with an answer that is not Vault's", res.StatusCode)
		}
		text := fmt.Sprintf("HTTP status %d", res.StatusCode)
		for _, said := range res.Errors {
			text += ": " + printable.Text(strings.Join(strings.Fields(said), " "))
		}
		return text
	}
	return strings.Join(strings.Fields(e.error.Error()), " ")
}

func (e oneLine) Unwrap() error { return e.error }

// status is the HTTP status of Vault's answer, 0 if there was none. What a proxy says before
// or behind Vault is not Vault's word, about a write as little as about a token.
func status(err error) int {
	var res *api.ResponseError
	if errors.As(err, &res) && !res.RawError {
		return res.StatusCode
	}
	return 0
}

// Denied reports whether Vault denied a request to this token.
func Denied(err error) bool { return status(err) == http.StatusForbidden }

// definite reports whether an error means for certain that a write was not carried out.
func definite(err error) bool {
	if errors.Is(err, ErrNotKV2) || errors.Is(err, ErrNoMount) || errors.Is(err, errNoLogin) {
		return true
	}
	code := status(err)
	return code >= 400 && code < 500 && code != http.StatusPreconditionFailed
}

// mismatch reports whether Vault refused a write for its check-and-set.
func mismatch(err error) bool {
	var res *api.ResponseError
	if !errors.As(err, &res) || res.StatusCode != http.StatusBadRequest {
		return false
	}
	for _, e := range res.Errors {
		if strings.Contains(e, "check-and-set parameter did not match") {
			return true
		}
	}
	return false
}

// advice is what the reader of an error about a path can do about it.
func (s *Store) advice(err error, path, capabilities string) string {
	var within mountWithin
	switch {
	case errors.As(err, &within):
		return fmt.Sprintf("set TIWKEYD_VAULT_MOUNT=%s and put the rest before TIWKEYD_VAULT_PREFIX", string(within))
	case errors.Is(err, ErrNotKV2):
		return fmt.Sprintf("enable versioning with `vault kv enable-versioning %s/`, or set TIWKEYD_VAULT_MOUNT to a KV version 2 mount", s.mount)
	case errors.Is(err, ErrNoMount) || status(err) == http.StatusNotFound:
		return fmt.Sprintf("there is no KV version 2 mount %q in this namespace; make it with `vault secrets enable -path=%s kv-v2`, or check TIWKEYD_VAULT_MOUNT and VAULT_NAMESPACE", s.mount, s.mount)
	case errors.Is(err, errAnswer):
		return "check VAULT_ADDR and TIWKEYD_VAULT_MOUNT"
	case errors.As(err, new(bounded.TooLong)):
		return "check that VAULT_ADDR is that of a Vault; a folder with some 250,000 names is too large: set TIWKEYD_VAULT_PREFIX to one that holds fewer"
	case errors.Is(err, context.DeadlineExceeded):
		return "Vault did not answer in time; it is tried again"
	}
	switch status(err) {
	case 0:
		return "check VAULT_ADDR, VAULT_CACERT and that Vault runs; it is tried again"
	case http.StatusForbidden:
		return fmt.Sprintf("the token is not valid any more, or its policy lacks the capability %s on %q", capabilities, path)
	case http.StatusServiceUnavailable:
		return "Vault is sealed or has no active node; unseal it, it is tried again"
	}
	return ""
}
