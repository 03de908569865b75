package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/webhook"
)

// Configure reads the configuration and reports all that is wrong with it. It gives nil if
// nothing can be looked at with it.
func Configure(environ []string, report func(Finding)) *config.Config {
	for _, name := range config.Unknown(environ) {
		report(Finding{Check: Variables, Target: name, Status: Warn, What: "it is set and means nothing", Mend: meant(name)})
	}
	c, err := config.Load(environ)
	if err != nil {
		Misconfigured(err, report)
		return nil
	}
	if c.AllProxy() {
		report(Finding{Check: Variables, Target: "ALL_PROXY", Status: Warn, What: "it is set, and nothing here goes by it", Mend: config.InsteadOfAllProxy})
	}
	return c
}

// configuration tells what is going to be looked at.
func (e *examination) configuration() {
	targets := fmt.Sprintf("%d targets", len(e.Config.Targets))
	if len(e.Config.Targets) == 1 {
		targets = e.Config.Targets[0].String()
	}
	e.ok(Configuration, "", "it is complete: %s in %s", targets, e.Store)
}

// Misconfigured reports each of an error's errors, and what is not looked at because of them.
func Misconfigured(err error, report func(Finding)) {
	errs := []error{err}
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		errs = several.Unwrap()
	}
	for _, err := range errs {
		report(misconfigured(err))
	}
	for _, c := range []Check{Schedule, Receivers, Vault, Tencent, Keyring} {
		report(skipped(c, Configuration))
	}
}

// misconfigured splits an error into what is wrong and what to do. Most begin with a variable's name.
func misconfigured(err error) Finding {
	f := Finding{Check: Configuration, Status: Fail, What: oneLine(err.Error())}
	name, rest, _ := strings.Cut(f.What, ": ")
	for _, v := range config.Variables() {
		if v.Name == name {
			f.Target, f.What = name, rest
			f.Mend = "set " + name + ": " + strings.ReplaceAll(v.Meaning, "`", "")
			if v.Default != "" {
				f.Mend += " (default " + v.Default + ")"
			}
			return f
		}
	}
	what, mend, ok := strings.Cut(f.What, ": ")
	switch {
	case name == "vault": // the library's error about its own variables
		f.Mend = "correct the VAULT_… variable that this is about, or unset it"
	case ok:
		f.What, f.Mend = what, mend
	default:
		f.Mend = "set the variable: `tiwkeyd run --help` lists them all"
	}
	return f
}

// meant says which variable a misspelt name is most like.
func meant(name string) string {
	best, least := "", len(name)/3+1
	for _, v := range config.Variables() {
		if d := distance(name, v.Name); d < least {
			best, least = v.Name, d
		}
	}
	if best == "" {
		return "unset it; `tiwkeyd run --help` lists the variables there are"
	}
	return fmt.Sprintf("set %s if that is meant, and unset %s", best, name)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// schedule shows when a key that is in force now would be replaced.
func (e *examination) schedule() {
	now := e.Now()
	next := slices.MinFunc(e.Config.Targets, func(a, b secrets.Target) int {
		return e.Config.Schedule.Due(a, now).Compare(e.Config.Schedule.Due(b, now))
	})
	var runs []string
	for at := now; len(runs) < 3; {
		at = e.Config.Schedule.Due(next, at)
		runs = append(runs, at.Format("2006-01-02 15:04:05 MST"))
	}
	f := Finding{Check: Schedule, Status: OK, What: fmt.Sprintf("%q comes next at %s", e.Config.Spec, strings.Join(runs, ", "))}
	e.crowded(&f, nil)
	if err := schedule.CheckZone(e.Config.Env("TZ")); err != nil {
		f.Status, f.What, f.Mend = Fail, "TZ="+err.Error(), "correct TZ, or unset it, or name the zone in TIWKEYD_SCHEDULE: CRON_TZ=Asia/Shanghai 0 3 * * *"
	}
	e.report(f)
}

// crowded warns of settings that have many keys accepted at a time. k is nil for those of all targets.
func (e *examination) crowded(f *Finding, k *rotator.Keyring) {
	if n := e.Config.Schedule.Keys(&e.Config.Policy, k); n > schedule.ManyKeys {
		f.Status, f.Mend = Warn, "rotate less often, or shorten the grace"
		f.What += fmt.Sprintf("; with the grace that applies it has %d keys or more accepted at a time", n)
	}
}

// agentLag is how late a Vault Agent's template follows a KV secret
// (static_secret_render_interval).
const agentLag = 5 * time.Minute

// receivers says what the propagation rests on: nobody can look at the receivers from here.
func (e *examination) receivers() {
	p := e.Config.Policy.Propagation
	f := Finding{Check: Receivers, Status: OK, What: fmt.Sprintf("a new key is set at Tencent %s after it was written (TIWKEYD_PROPAGATION): every receiver must have read it by then", p)}
	const mend = "set TIWKEYD_PROPAGATION to the time after which the slowest receiver has read a change, 6m for a Vault Agent"
	switch {
	case p == 0:
		f.Status, f.Mend = Warn, mend
		f.What = "TIWKEYD_PROPAGATION is 0: a new key is set as soon as it is written, which `tiwkeyd proxy` and the Go package webhook alone can follow (they read again before they refuse); any other receiver would refuse genuine callbacks"
	case p < agentLag:
		f.Status, f.Mend = Warn, mend
		f.What = fmt.Sprintf("TIWKEYD_PROPAGATION is %s: a receiver behind a Vault Agent sees a change up to %s late, and would refuse genuine callbacks", p, agentLag)
	}
	e.report(f)
	if n := len(e.Config.Targets); n > webhook.SureTargets && p < webhook.EveryFor(n) {
		e.report(Finding{Check: Receivers, Status: Warn, Mend: fmt.Sprintf("set TIWKEYD_PROPAGATION to %s or more, in which `tiwkeyd proxy` reads each keyring anyhow", webhook.EveryFor(n)),
			What: fmt.Sprintf("TIWKEYD_PROPAGATION is %s, and there are %d targets: while somebody floods `tiwkeyd proxy` with forged callbacks for more than %d of them, genuine ones with a new key may be answered 503", p, n, webhook.SureTargets)})
	}
}
