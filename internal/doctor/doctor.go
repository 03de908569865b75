// Package doctor looks at everything that the daemon will need, before it is needed, and tells
// of each thing whether it is well and what mends it. It changes nothing: it reads, asks what
// it would be allowed to do, and sets no key.
//
// What rests on something that failed is not tried: it is told as skipped, and because of what.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
	"tiwkeyd/secrets/vault"
)

// Status is how a check came out.
type Status string

// What a check can come out as.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, but not as one might think, or not for long
	Fail Status = "fail" // the daemon will not be able to do its work
	Skip Status = "skip" // not looked at, because of a failure before it
)

// Check names what was looked at.
type Check string

// The checks, in the order in which they are made.
const (
	Configuration Check = "configuration"
	Variables     Check = "variables"
	Schedule      Check = "schedule"
	Receivers     Check = "receivers"
	Directory     Check = "directory"
	Vault         Check = "vault"
	VaultClock    Check = "vault clock"
	VaultToken    Check = "vault token"
	VaultMount    Check = "vault mount"
	VaultPolicy   Check = "vault policy"
	Tencent       Check = "tencent"
	TencentClock  Check = "tencent clock"
	Credential    Check = "credential"
	Region        Check = "region"
	Permission    Check = "permission"
	Application   Check = "application"
	Keyring       Check = "keyring"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  Check  `json:"check"`
	Target string `json:"target"` // what of several things it is about: an application, a path
	Status Status `json:"status"`
	What   string `json:"what"`
	Mend   string `json:"mend"`
}

// VaultServer is what the checks ask of Vault.
type VaultServer interface {
	Health(context.Context) (vault.Health, error)
	LookUpToken(context.Context) (vault.TokenInfo, error)
	CheckMount(context.Context, secrets.Target) (known bool, err error)
	Needs(t secrets.Target, keepVersions bool) []vault.Need
	NeedToRead(ctx context.Context, path string) (vault.Need, error)
	Missing(context.Context, []vault.Need) ([][]string, error)
	Secret(ctx context.Context, t secrets.Target, version int64) (vault.Version, error)
}

// Place is where a file store keeps its files.
type Place interface {
	Inspect() (file.Place, error)
}

// CallbackReader is what the checks ask of Tencent: nothing that changes a key.
type CallbackReader interface {
	ServerTime(context.Context) (time.Time, error)
	KeyInForce(context.Context, secrets.Target) (secrets.Key, error)
}

// KeyringReader is the part of the store that reads.
type KeyringReader interface {
	Read(context.Context, secrets.Target) (rotator.Snapshot, error)
	String() string
}

// Subject is what is looked at.
type Subject struct {
	Config     *config.Config
	Vault      VaultServer // nil: nothing is in Vault
	Directory  Place       // nil: the keyrings are in Vault
	Store      KeyringReader
	Tencent    CallbackReader
	Credential func(context.Context) error // reports whether a credential for Tencent can be had
	Phase      func(*rotator.Keyring, time.Time) string

	Report   func(Finding)                   // is given each finding as soon as it is there
	Progress func(check Check, done, of int) // is told now and then how far a long check is
	Now      func() time.Time
}

// lookLimit bounds each look at something that may hang.
const lookLimit = 5 * time.Second

// examination is one run through the checks.
type examination struct {
	Subject
	because map[Check]Check // of those that failed or were skipped: the failure behind it
	inForce map[secrets.Target]secrets.Key

	unreadable bool // the token's policy does not let it read every keyring
	locked     bool // nor Tencent's credential, which is in Vault
}

// Examine makes all the checks of a configuration that is right in itself.
func Examine(ctx context.Context, s Subject) {
	e := &examination{Subject: s, because: map[Check]Check{}, inForce: map[secrets.Target]secrets.Key{}}
	e.configuration()
	e.schedule()
	e.receivers()
	if e.Directory != nil {
		e.directory()
	}
	if e.Vault != nil {
		e.vault(ctx)
	}
	e.tencent(ctx)
	e.keyrings(ctx)
}

func (e *examination) report(f Finding) {
	if f.Status == Fail {
		e.because[f.Check] = f.Check
	}
	f.What, f.Mend = oneLine(f.What), oneLine(f.Mend)
	e.Report(f)
}

func (e *examination) ok(c Check, target, what string, args ...any) {
	e.report(Finding{Check: c, Target: target, Status: OK, What: fmt.Sprintf(what, args...)})
}

// blocked reports whether a check cannot be made because one of others failed, and says so.
func (e *examination) blocked(c Check, on ...Check) bool {
	for _, other := range on {
		if cause, failed := e.because[other]; failed {
			e.skip(c, cause)
			return true
		}
	}
	return false
}

func (e *examination) skip(c, cause Check) {
	e.because[c] = cause
	e.report(skipped(c, cause))
}

func skipped(c, cause Check) Finding {
	return Finding{Check: c, Status: Skip, What: fmt.Sprintf("not looked at, because of the failure of %q", cause)}
}

// oneLine keeps a finding on its line, whatever an error brought along.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")), " ")
}
