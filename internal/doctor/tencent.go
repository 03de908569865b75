package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/tencent"
)

// tencent looks at Tencent's side: is it there, does it know the credential, may that look at
// the key in force, and does each application belong to it. Whether it may set a key cannot be
// found out without setting one.
func (e *examination) tencent(ctx context.Context) {
	if at, err := e.ask(ctx, e.Tencent.ServerTime); err != nil {
		e.report(Finding{Check: Tencent, Status: Fail, What: strings.Replace(err.Error(), context.DeadlineExceeded.Error(), "no answer came in time", 1), Mend: unreachable})
		e.skip(TencentClock, Tencent)
	} else {
		e.ok(Tencent, "", "%s answers", e.Config.Endpoint)
		e.clock(TencentClock, "Tencent", "set this machine's clock (NTP): Tencent refuses requests from more than five minutes off", at)
	}
	e.credential(ctx)
	if e.because[Credential] != "" || e.blocked(Credential, Tencent) {
		e.afterCredential(Credential)
		return
	}
	e.applications(ctx)
}

const unreachable = "check TIWKEYD_TENCENT_ENDPOINT, the network, HTTPS_PROXY and the firewall between"

// credential reports if there is none; whether Tencent takes it is seen later.
func (e *examination) credential(ctx context.Context) {
	if e.Config.VaultCredentials() && (e.blocked(Credential, Vault, VaultToken) || e.locked) {
		if e.locked {
			e.skip(Credential, VaultPolicy)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var failed *vault.Error
	if err := e.Credential(ctx); errors.As(err, &failed) {
		e.report(vaultFailure(Credential, "", err))
	} else if err != nil {
		f := Finding{Check: Credential, Status: Fail, What: fmt.Sprintf("no credential for Tencent could be had from %s: %v", e.Config.Credentials, err),
			Mend: "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or say with TIWKEYD_TENCENT_CREDENTIALS where it is"}
		if e.Config.Credentials == "profile" {
			f.Mend = "mend the file, or say with TIWKEYD_TENCENT_CREDENTIALS where else the credential is"
		}
		if e.Config.VaultCredentials() {
			f.Mend = fmt.Sprintf("put the fields secret_id and secret_key there (`vault kv put %s …`), or correct TIWKEYD_TENCENT_CREDENTIALS", strings.TrimPrefix(e.Config.Credentials, "vault:"))
		}
		e.report(f)
	}
}

// afterCredential skips what comes after the credential.
func (e *examination) afterCredential(cause Check) {
	for _, c := range []Check{Region, Permission, Application} {
		e.skip(c, e.because[cause])
	}
}

// outcome is Tencent's answer about one target.
type outcome struct {
	key   secrets.Key
	err   *rotator.APIError // nil: it gave the key in force
	tries int
	after string // the code that made it be asked again
}

// about is which check an answer belongs to; what is not listed is about the application.
var about = []struct {
	code  string
	check Check
}{
	{"AuthFailure", Credential}, {"IpInBlacklist", Credential}, {"IpNotInWhitelist", Credential},
	{"UnsupportedRegion", Region},
	{"ClientError", Tencent}, {"InvalidAction", Tencent}, {"NoSuchVersion", Tencent}, {"NoSuchProduct", Tencent},
	{"UnsupportedProtocol", Tencent}, {"ActionOffline", Tencent},
}

func (o outcome) about() Check {
	switch {
	case o.err == nil:
		return Application
	case o.err.Forbidden:
		return Permission
	}
	for _, a := range about {
		if o.err.Code == a.code || strings.HasPrefix(o.err.Code, a.code+".") {
			return a.check
		}
	}
	return Application
}

// applications asks about one target of each service first, which tells of the credential, the
// region and the permission, then about all the others.
func (e *examination) applications(ctx context.Context) {
	first := map[secrets.Target]outcome{}
	var permitted []secrets.Service
	var seen []secrets.Service
	for _, t := range e.Config.Targets {
		if slices.Contains(seen, t.Service) {
			continue
		}
		first[t] = e.describe(ctx, t)
		if len(seen) == 0 && e.common(first[t]) {
			return
		}
		seen = append(seen, t.Service)
		if e.permission(t, first[t]) {
			permitted = append(permitted, t.Service)
		}
	}
	asked := slices.DeleteFunc(slices.Clone(e.Config.Targets), func(t secrets.Target) bool { return !slices.Contains(permitted, t.Service) })
	if len(asked) < len(e.Config.Targets) {
		e.report(Finding{Check: Application, Status: Skip, What: fmt.Sprintf("%d of %d targets are not looked at, because of the failure of %q", len(e.Config.Targets)-len(asked), len(e.Config.Targets), Permission)})
	}
	outcomes := make(chan outcomeOf, len(asked))
	e.each(ctx, Application, asked, e.atOnce(), func(ctx context.Context, t secrets.Target) answer {
		o, known := first[t]
		if !known {
			o = e.describe(ctx, t)
		}
		outcomes <- outcomeOf{t, o}
		return answer{e.judgeApplication(t, o), o.about() == Tencent}
	})
	close(outcomes)
	for o := range outcomes {
		if o.err == nil {
			e.inForce[o.target] = o.key
		}
	}
}

type outcomeOf struct {
	target secrets.Target
	outcome
}

// common reports what the first answer says of all targets, and whether it makes asking about
// the others useless.
func (e *examination) common(o outcome) (useless bool) {
	check := o.about()
	expired := check == Credential && o.err.Code == "AuthFailure.SignatureExpire" && e.because[TencentClock] != ""
	switch {
	case expired:
		e.skip(Credential, TencentClock)
	case check == Tencent || check == Region:
		e.report(apiFailure(check, "", o.err))
		e.skip(Credential, check)
		if check == Region {
			for _, c := range []Check{Permission, Application} {
				e.skip(c, Region)
			}
			return true
		}
	case check == Credential:
		e.report(apiFailure(Credential, "", o.err))
	default:
		e.ok(Credential, "", "Tencent knows the credential from %s", e.Config.Credentials)
		e.ok(Region, "", "%s serves TIW", e.Config.Region)
		return false
	}
	e.afterCredential(Credential)
	return true
}

// permission reports whether the credential may make the call that looks at a service's key.
func (e *examination) permission(t secrets.Target, o outcome) bool {
	set, describe := tencent.Actions(t.Service)
	if o.err != nil && o.err.Class != rotator.Refused {
		e.report(Finding{Check: Permission, Target: string(t.Service), Status: Skip, What: "not known: no definite answer came"})
		return true
	}
	if o.about() != Permission {
		e.ok(Permission, string(t.Service), "the credential may call %s (tiw:%s, which it must be allowed too, cannot be tried without setting a key)", describe, set)
		return true
	}
	f := apiFailure(Permission, string(t.Service), o.err)
	f.Mend = fmt.Sprintf("grant tiw:%s and tiw:%s in CAM to the user or role of the credential", describe, set)
	e.report(f)
	return false
}

func (e *examination) judgeApplication(t secrets.Target, o outcome) Finding {
	if o.err != nil {
		return apiFailure(Application, t.String(), o.err)
	}
	f := Finding{Check: Application, Target: t.String(), Status: OK, What: "it is of this account, and a key is in force"}
	if o.key.IsZero() {
		f.What = "it is of this account, and no key is set: its callbacks are unsigned until the first rotation"
	}
	if o.tries > 1 && strings.HasPrefix(o.after, "RequestLimitExceeded") {
		f.Status, f.Mend = Warn, "lower TIWKEYD_RATE: other programs of the account use the same API"
		f.What += fmt.Sprintf("; Tencent said so only at try %d, after %s", o.tries, o.after)
	}
	return f
}

// apiFailure splits Tencent's answer into what came back and what to do.
func apiFailure(c Check, target string, err *rotator.APIError) Finding {
	f := Finding{Check: c, Target: target, Status: Fail, What: strings.TrimSuffix(err.Error(), "; "+err.Advice), Mend: err.Advice}
	if c == Tencent {
		f.Mend = unreachable
	}
	if target == err.Target.String() { // it stands before the text
		f.What = strings.Replace(f.What, " for "+target, "", 1)
	}
	return f
}

// atOnce is how many requests are under way together: enough to use the rate, and so few that
// none waits long for its place.
func (e *examination) atOnce() int { return int(min(8, max(1, e.Config.Rate))) }

// describe asks for the key in force, and again where an answer may change by itself.
func (e *examination) describe(ctx context.Context, t secrets.Target) outcome {
	var o outcome
	place := time.Duration(float64(e.atOnce()) / e.Config.Rate * float64(time.Second)) // within the rate
	ask := func() (secrets.Key, error) {
		o.tries++
		ctx, cancel := context.WithTimeout(ctx, place+2*lookLimit)
		defer cancel()
		key, err := e.Tencent.KeyInForce(ctx, t)
		var refused *rotator.APIError
		if errors.As(err, &refused) && (refused.Class == rotator.Refused || strings.HasPrefix(refused.Code, "AuthFailure")) {
			return key, backoff.Permanent(err)
		}
		if refused != nil {
			o.after = refused.Code
		}
		return key, err
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = 2 * time.Second
	key, err := backoff.Retry(ctx, ask, backoff.WithBackOff(pauses), backoff.WithMaxTries(4), backoff.WithMaxElapsedTime(lookLimit+place))
	o.key = key
	if err != nil && !errors.As(err, &o.err) {
		_, action := tencent.Actions(t.Service)
		o.err = &rotator.APIError{Action: action, Target: t, Code: "ClientError.NotSent", Message: err.Error(), Advice: unreachable}
	}
	return o
}
