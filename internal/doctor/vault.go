package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tiwkeyd/secrets/vault"
)

// vault looks at Vault from the outside in: is it there, may one come in, is the mount what it
// must be, and what is allowed.
func (e *examination) vault(ctx context.Context) {
	e.vaultServer(ctx)
	if !e.blocked(VaultToken, Vault) {
		e.vaultToken(ctx)
	}
	if e.Directory == nil && !e.blocked(VaultMount, Vault, VaultToken) {
		e.vaultMount(ctx)
	}
	if !e.blocked(VaultPolicy, Vault, VaultToken) {
		e.vaultPolicy(ctx)
	}
	if e.because[VaultMount] == VaultPolicy && e.because[VaultPolicy] == "" {
		// Nothing is known to be missing, so the keyrings are read: that shows what it is.
		delete(e.because, VaultMount)
	}
}

func (e *examination) vaultServer(ctx context.Context) {
	var health vault.Health
	at, err := e.ask(ctx, func(ctx context.Context) (_ time.Time, err error) {
		health, err = e.Vault.Health(ctx)
		return health.Date, err
	})
	switch {
	case err != nil:
		e.report(vaultFailure(Vault, "", err))
	case !health.Initialized:
		e.report(Finding{Check: Vault, Status: Fail, What: "Vault runs and was never initialised", Mend: "initialise and unseal it: `vault operator init`, `vault operator unseal`"})
	case health.Sealed:
		e.report(Finding{Check: Vault, Status: Fail, What: "Vault runs and is sealed: nobody can read or write a key", Mend: "unseal it: `vault operator unseal`"})
	default:
		e.ok(Vault, "", "Vault %s answers and is unsealed", health.Version)
	}
	if !e.blocked(VaultClock, Vault) {
		e.clock(VaultClock, "Vault", "set the clock that is wrong (NTP): the one of this machine, unless it agrees with Tencent's, or Vault's", at)
	}
}

// vaultFailure splits an error into what came back and what to do.
func vaultFailure(c Check, target string, err error) Finding {
	f := Finding{Check: c, Target: target, Status: Fail, What: err.Error(), Mend: "see that VAULT_ADDR leads to a Vault that runs and answers"}
	var failed *vault.Error
	if errors.As(err, &failed) {
		f.What = failed.Finding()
		if failed.Advice != "" {
			f.Mend = failed.Advice
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		f.What = strings.Replace(f.What, context.DeadlineExceeded.Error(), "no answer came in time", 1)
	}
	return f
}

// soon is how near a token's end is a failure: the first rotation alone may take that long.
const soon = time.Hour

func (e *examination) vaultToken(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	token, err := e.Vault.LookUpToken(ctx)
	if err != nil {
		e.report(vaultFailure(VaultToken, "", err))
		return
	}
	e.report(judgeToken(token, e.Now()))
}

// judgeToken tells how long the daemon will have a token. One that it logs in for is had again
// at its end; one in a file is replaced by whoever wrote it.
func judgeToken(t vault.TokenInfo, now time.Time) Finding {
	f := Finding{Check: VaultToken, Status: OK}
	if t.Hidden {
		return Finding{Check: VaultToken, Status: Warn, What: fmt.Sprintf("Vault does not let the token (%s) ask about itself: when it ends is not known", t.Method),
			Mend: `give the token the policy "default" too, or add to its own: path "auth/token/lookup-self" { capabilities = ["read"] }`}
	}
	left, renewed := t.TTL, "renewable"
	if !t.Renewable {
		renewed = "not renewable"
	}
	life := fmt.Sprintf("it has %s left, %s", left.Round(time.Second), renewed)
	if left == 0 {
		life = "it never expires"
	}
	if t.Renewable && !t.Ends.IsZero() {
		left = t.Ends.Sub(now)
		life += fmt.Sprintf(" until %s", t.Ends.UTC().Format(time.RFC3339))
	}
	policies := strings.Join(t.Policies, ", ")
	f.What = fmt.Sprintf("Vault knows the token (%s); %s; policies %s", t.Method, life, policies)
	ends := left > 0 && (!t.Renewable || !t.Ends.IsZero())
	switch {
	case slices.Contains(t.Policies, "root"):
		f.Status, f.Mend = Warn, "use a token with the policy of deploy/vault/policy.hcl and nothing more"
	case t.Method == vault.TokenFile && ends && left < soon:
		f.Status, f.Mend = Warn, "see that what writes VAULT_TOKEN_FILE replaces the token before its end"
	case t.Method == vault.Token && ends:
		f.Status, f.Mend = Warn, "the daemon can do nothing after the token's end: give a periodic one (`vault token create -period=24h -policy=tiwkeyd`), or use VAULT_TOKEN_FILE, AppRole or Kubernetes"
		if left < soon {
			f.Status = Fail
		}
	}
	return f
}

func (e *examination) vaultMount(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	known, err := e.Vault.CheckMount(ctx, e.Config.Targets[0])
	switch mount := e.Config.VaultMount; {
	case err != nil:
		e.report(vaultFailure(VaultMount, mount, err))
	case !known:
		e.because[VaultMount] = VaultPolicy
		e.report(Finding{Check: VaultMount, Target: mount, Status: Skip, What: "not looked at: Vault tells this token nothing of the mount before its policy allows something there"})
	default:
		e.ok(VaultMount, mount, "it is there and a KV version 2 engine")
	}
}
