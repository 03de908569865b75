package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tiwkeyd/secrets/vault"
)

// asked is how many paths Vault is asked about at once.
const asked = 200

// credentialTarget is what the need for Tencent's credential in Vault is told under.
const credentialTarget = "TIWKEYD_TENCENT_CREDENTIALS"

// vaultPolicy asks for each path what the token may do there. Nothing is tried: what can only
// be found out by writing is asked.
func (e *examination) vaultPolicy(ctx context.Context) {
	var needs []vault.Need
	var targets []string
	if e.Config.VaultCredentials() {
		need, err := e.needToRead(ctx, strings.Trim(strings.TrimPrefix(e.Config.Credentials, "vault:"), "/"))
		if err != nil {
			e.report(vaultFailure(VaultPolicy, credentialTarget, err))
			return
		}
		needs, targets = append(needs, need), append(targets, credentialTarget)
	}
	if e.Directory == nil {
		for _, t := range e.Config.Targets {
			for _, n := range e.Vault.Needs(t, e.Config.Policy.KeepVersions) {
				needs, targets = append(needs, n), append(targets, t.String())
			}
		}
	}
	done := 0
	for some := range slices.Chunk(needs, asked) {
		missing, err := e.missing(ctx, some)
		if err != nil {
			f := vaultFailure(VaultPolicy, "", err)
			if vault.Denied(err) { // the daemon does not need to ask
				f.Status = Warn
			}
			e.report(f)
			return
		}
		for i, n := range some {
			e.report(judgeNeed(n, targets[done+i], missing[i]))
			if slices.Contains(missing[i], "read") {
				e.locked = e.locked || targets[done+i] == credentialTarget
				e.unreadable = e.unreadable || targets[done+i] != credentialTarget
			}
		}
		done += len(some)
		e.Progress(VaultPolicy, done, len(needs))
	}
}

func (e *examination) needToRead(ctx context.Context, path string) (vault.Need, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	return e.Vault.NeedToRead(ctx, path)
}

func (e *examination) missing(ctx context.Context, needs []vault.Need) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	return e.Vault.Missing(ctx, needs)
}

func judgeNeed(n vault.Need, target string, missing []string) Finding {
	f := Finding{Check: VaultPolicy, Target: target, Status: OK, What: fmt.Sprintf("the token may %s %s", list(n.Capabilities), n.Path)}
	if len(missing) > 0 {
		f.Status, f.Mend = Fail, "add to the token's policy: "+n.Policy
		f.What = fmt.Sprintf("the token may not %s %s", list(missing), n.Path)
		if n.Guessed {
			f.What += ", or where else it is: Vault does not tell of a mount in which the token may do nothing"
			f.Mend += ` (where the mount's name has a slash, as in team/kv, it is path "team/kv/data/…")`
		}
	}
	return f
}

func list(words []string) string {
	if last := len(words) - 1; last > 0 {
		return strings.Join(words[:last], ", ") + " and " + words[last]
	}
	return strings.Join(words, "")
}
