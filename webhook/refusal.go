package webhook

import (
	"errors"
	"fmt"
	"net/http"
)

// Reason is why a callback is refused.
type Reason string

const (
	Malformed        Reason = "malformed"         // not the JSON of a callback
	TooLarge         Reason = "too large"         // longer than the limit
	Incomplete       Reason = "incomplete"        // the body did not come whole, or not in time
	Unsigned         Reason = "unsigned"          // without Sign
	Expired          Reason = "expired"           // after its ExpireTime
	WrongApplication Reason = "wrong application" // of an SdkAppId that is not served here
	BadSignature     Reason = "bad signature"     // signed with none of the keys
	Replayed         Reason = "replayed"          // the very same has been here before
	Undecided        Reason = "undecided"         // the keys could not be read (again), or there was no room
)

// Reasons lists them all.
func Reasons() []Reason {
	return []Reason{Malformed, TooLarge, Incomplete, Unsigned, Expired, WrongApplication, BadSignature, Replayed, Undecided}
}

// Refusal is the error that tells that a callback is refused, and why. It quotes neither the
// body nor a signature nor a key.
type Refusal struct {
	Reason Reason
	Detail string
	cause  error
}

// Error is the reason and what is known beyond it.
func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Reason, r.Detail) }

// Unwrap is what caused it, if it was an error of the key source.
func (r *Refusal) Unwrap() error { return r.cause }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// ReasonOf gives the reason of an error of this package, "" for any other error and for nil.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

// answer is what the sender is told. Why one is not let pass, and so which applications are served,
// is for the log alone.
func (r Reason) answer() string {
	if r.status() == http.StatusUnauthorized {
		return "callback refused"
	}
	return string(r)
}

// status is the HTTP status that answers each reason. Replayed callbacks have been taken
// care of, so their sender is told what it was told the first time.
func (r Reason) status() int {
	switch r {
	case Malformed:
		return http.StatusBadRequest
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case Incomplete:
		return http.StatusRequestTimeout
	case Undecided:
		return http.StatusServiceUnavailable
	case Replayed:
		return http.StatusOK
	}
	return http.StatusUnauthorized
}
