package vault

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"strings"
	"time"
)

// ErrLoginRefused marks the error of a login that would fail the same again: Vault refused it, or what
// it is to show cannot be read.
var ErrLoginRefused = errors.New("the login is refused")

// errNoLogin marks errors from before a request could be made.
var errNoLogin = errors.New("no token")

// noLogin is the cause of an error from before a request could be made.
type noLogin struct {
	error
	final bool
}

func (e noLogin) Is(target error) bool {
	return target == errNoLogin || (e.final && target == ErrLoginRefused)
}

func (e noLogin) Unwrap() error { return e.error }

// How long a login that Vault refused is not tried again, unless what it shows has changed.
//
// Vault locks an AppRole role for everybody after five failed logins by its role id, each less than 15
// minutes after the one before, unless one in between succeeds (user lockout, by its defaults). A process
// has one session, whatever it reads of Vault, and so fails once an hour with the same secret id: four
// processes with a bad one leave a gap of 15 minutes in every hour, in which Vault forgets. Each start of
// a process, each SIGHUP of the daemon and each new content of the file is one more try. A login whose
// answer was lost is tried again, though Vault may have counted it: nobody knows what it was.
const (
	refusedPause = time.Hour
	deniedPause  = time.Minute // of what Vault counts nothing for: while the role is locked, and for Kubernetes
)

// refusal is the last login that Vault refused.
type refusal struct {
	proof [sha256.Size]byte // what was shown
	until time.Time
	err   error // nil: it refused none
}

// stands gives the refusal of a proof, as long as it is not to be shown again.
func (r *refusal) stands(proof string) error {
	if r.err != nil && r.proof == sha256.Sum256([]byte(proof)) && time.Now().Before(r.until) {
		return r.err
	}
	return nil
}

// refuses tells for how long a login that failed is not tried again, and whether the answer was Vault's definite no.
func (l Login) refuses(err error) (pause time.Duration, final bool) {
	switch code := status(err); {
	case code == http.StatusBadRequest && l.Method == AppRole:
		return refusedPause, true
	case code == http.StatusForbidden && l.Method == Kubernetes:
		return deniedPause, false // it may be that Vault does not reach the cluster
	case code == http.StatusBadRequest || code == http.StatusForbidden || code == http.StatusNotFound:
		return deniedPause, true
	}
	return 0, false
}

// hushed is an error without a secret that Vault may have quoted.
type hushed struct {
	error
	secret string
}

func (e hushed) Error() string {
	if len(e.secret) < 8 { // it would be found in any text
		return e.error.Error()
	}
	return strings.ReplaceAll(e.error.Error(), e.secret, "…")
}

func (e hushed) Unwrap() error { return e.error }
