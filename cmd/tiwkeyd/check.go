package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/doctor"
	"tiwkeyd/internal/printable"
)

func (p *program) checkCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Look at all that a rotation needs, and tell what is wrong and how to mend it",
		Long: `check looks at the configuration, the clock, the store (Vault's state, login, mount and
policy, or the directory), Tencent (credential, region, permission, each SdkAppId) and the
keyrings that are there, and prints a line for each: ok, warn, FAIL, or skip where something
before it failed. What mends it stands after the arrow.

It writes nothing and sets no key, so that it cannot tell whether the credential may call
Set…CallbackKey. With AppRole or Kubernetes it logs in to Vault as the daemon would; a token
that it was given is not renewed. Of thousands of targets it looks at all, within TIWKEYD_RATE.

Exit status: 0 nothing failed; 2 something did, or wrong usage.`,
		Example: "  tiwkeyd check\n  tiwkeyd check --json | jq '.[] | select(.status != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.check(cmd.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of objects with check, target, status, what, mend")
	return c
}

// check makes the checks and prints what they find.
func (p *program) check(ctx context.Context, asJSON bool) error {
	all := []doctor.Finding{}
	lines := &findingLines{out: p.stdout}
	failed := 0
	report := func(f doctor.Finding) {
		if ctx.Err() != nil {
			return // what fails from here on fails because of that
		}
		if f.Status == doctor.Fail {
			failed++
		}
		if asJSON {
			all = append(all, f)
			return
		}
		lines.print(f)
	}
	if err := p.examine(ctx, report); err != nil {
		return err
	}
	if lines.flush(); lines.err != nil {
		return lines.err
	}
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(all); err != nil {
			return err
		}
	}
	if failed > 0 {
		return &exitError{code: exitUsage, err: fmt.Errorf("%d failed: mend them from the top, and check again", failed)}
	}
	return nil
}

func (p *program) examine(ctx context.Context, report func(doctor.Finding)) error {
	c := doctor.Configure(os.Environ(), report)
	if c == nil {
		return nil
	}
	ps, err := p.open(c, slog.New(slog.DiscardHandler), true)
	if err != nil {
		doctor.Misconfigured(err, report)
		return nil
	}
	defer ps.close()
	if c.Discover {
		listing, cancel := context.WithTimeout(ctx, listLimit)
		defer cancel()
		all, err := ps.targets(listing)
		switch {
		case err != nil:
			doctor.Misconfigured(fmt.Errorf("TIWKEYD_DISCOVER: %w", err), report)
		case len(all) == 0:
			doctor.Misconfigured(fmt.Errorf("TIWKEYD_DISCOVER: %s has no keyring of any target yet, and TIWKEYD_TARGETS names none: begin with tiwkeyd enroll", ps.store), report)
		default:
			c.Targets = all
		}
		if len(c.Targets) == 0 {
			return nil
		}
	}
	doctor.Examine(ctx, p.subject(c, ps, report))
	if ctx.Err() != nil {
		return errors.New("interrupted: not everything was looked at")
	}
	return nil
}

func (p *program) subject(c *config.Config, ps *parts, report func(doctor.Finding)) doctor.Subject {
	s := doctor.Subject{Config: c, Store: ps.store, Tencent: ps.tencent, Phase: phaseOf, Now: time.Now, Report: report,
		Credential: func(ctx context.Context) error {
			_, err := ps.secrets.Get(ctx)
			return err
		},
		Progress: func(check doctor.Check, done, of int) {
			if done%progressStep == 0 && done < of {
				fmt.Fprintf(p.stderr, "tiwkeyd: %s: %d of %d\n", check, done, of)
			}
		}}
	if ps.vault != nil {
		s.Vault = ps.vault
	}
	if ps.files != nil {
		s.Directory = ps.files
	}
	return s
}

// progressStep is after how many targets a long check says how far it is.
const progressStep = 100

// alike is how many lines of one check and one status are printed before the rest are counted.
const alike = 20

// findingLines prints findings, a line for each; of thousands that are alike, the first few.
type findingLines struct {
	out  io.Writer
	err  error // of the first line that could not be printed
	last doctor.Finding
	same int
}

func (l *findingLines) line(format string, args ...any) {
	_, err := fmt.Fprintf(l.out, format, args...)
	l.err = cmp.Or(l.err, err)
}

func (l *findingLines) print(f doctor.Finding) {
	if f.Check != l.last.Check || f.Status != l.last.Status {
		l.flush()
	}
	l.last = f
	if l.same++; l.same <= alike {
		l.line("%s\n", findingLine(f))
	}
}

// flush tells how many of the last kind were not printed.
func (l *findingLines) flush() {
	if more := l.same - alike; more > 0 {
		l.line("%-4s  %-13s  %d more like these; --json has them all\n", word(l.last.Status), l.last.Check, more)
	}
	l.same = 0
}

func findingLine(f doctor.Finding) string {
	what, mend := f.What, ""
	if f.Target != "" {
		what = f.Target + ": " + what
	}
	if f.Mend != "" {
		mend = " → " + f.Mend
	}
	return fmt.Sprintf("%-4s  %-13s  %s%s", word(f.Status), f.Check, printable.Text(what), printable.Text(mend))
}

// word is a status as a person is to see it: a failure must not be overlooked.
func word(s doctor.Status) string {
	if s == doctor.Fail {
		return "FAIL"
	}
	return string(s)
}
