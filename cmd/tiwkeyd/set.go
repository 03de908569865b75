package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

func (p *program) setCommand() *cobra.Command {
	var asJSON, everyone bool
	c := &cobra.Command{
		Use:   "set TARGET|--all [NAME=VALUE…]",
		Short: "Give targets settings of their own, or show which apply to them",
		Long: `set writes settings of a target into its keyring, where they go before the TIWKEYD_…
variables of every daemon. NAME= without a value goes back to the variable. Without any
NAME=VALUE the settings that apply are shown. --all does so for each target of the
configuration and, with TIWKEYD_DISCOVER, each that has a keyring; where one fails, the
others are done all the same.

  schedule     cron expression, as TIWKEYD_SCHEDULE
  grace        how long a replaced key stays accepted, as TIWKEYD_GRACE
  propagation  how late a receiver may see a change, 0s to 24h. It holds for keys staged
               afterwards. A process in which TIWKEYD_PROPAGATION is set to more, such
               as a daemon, raises it again
  paused       true: neither the schedule nor SIGUSR1 replaces the key; tiwkeyd rotate does

Daemons go by a change the next time they deal with the target, and before they write its
keyring again at the latest. Exit status: 0 done; 2 wrong usage or configuration, or the
target has no keyring; 4 the store is away or the keyring changes all the time.`,
		Example: "  tiwkeyd set 1400000001 grace=48h schedule='0 4 * * 0'\n  tiwkeyd set 1400000001 paused=true\n  tiwkeyd set 1400000001 paused=\n  tiwkeyd set 1400000001\n  tiwkeyd set --all propagation=10s",
		Args: func(cmd *cobra.Command, args []string) error {
			if everyone {
				return nil
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withParts(cmd.Context(), func(ctx context.Context, parts *parts) error {
				return p.set(ctx, parts, args, everyone, asJSON)
			})
		},
	}
	c.Flags().BoolVar(&everyone, "all", false, "all targets, in place of one")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// setTries is how often a keyring that somebody else changed is read again.
const setTries = 10

func (p *program) set(ctx context.Context, parts *parts, args []string, everyone, asJSON bool) error {
	var targets []secrets.Target
	pairs := args
	if !everyone {
		t, err := secrets.ParseTarget(args[0])
		if err != nil {
			return &exitError{code: exitUsage, err: err}
		}
		targets, pairs = []secrets.Target{t}, args[1:]
	}
	change, err := parseOverrides(pairs)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if everyone {
		if targets, err = parts.targets(ctx); err != nil {
			return err
		}
	}
	done, errs := make([]*settings, len(targets)), make([]error, len(targets))
	var group errgroup.Group
	group.SetLimit(enrollWidth)
	for i, t := range targets {
		group.Go(func() error {
			k, err := overrideStored(ctx, parts, t, change)
			if errs[i] = err; err == nil {
				done[i] = settingsOf(parts, k)
			}
			return nil
		})
	}
	_ = group.Wait()
	done = slices.DeleteFunc(done, func(s *settings) bool { return s == nil })
	if len(done) > 0 && slices.ContainsFunc(pairs, func(pair string) bool { return strings.HasPrefix(pair, "propagation=") }) {
		fmt.Fprintln(p.stderr, "tiwkeyd: the propagation holds for keys that are staged from now on; a process in which TIWKEYD_PROPAGATION is set to more, such as a daemon, raises it again")
	}
	if err := printSettings(p.stdout, done, everyone, asJSON); err != nil {
		return err
	}
	return gravest(errs)
}

// gravest joins errors that have exit statuses; the highest is the gravest.
func gravest(errs []error) error {
	worst := 0
	for _, err := range errs {
		var exit *exitError
		if errors.As(err, &exit) {
			worst = max(worst, exit.code)
		}
	}
	if worst == 0 {
		return nil
	}
	return &exitError{code: worst, err: errors.Join(errs...)}
}

// overrideStored changes the overrides of a keyring in the store, if there is anything to change.
func overrideStored(ctx context.Context, parts *parts, t secrets.Target, change func(*rotator.Overrides)) (*rotator.Keyring, error) {
	for range setTries {
		s, err := parts.store.Read(ctx, t)
		switch {
		case err != nil:
			return nil, &exitError{code: exitUnsettled, err: fmt.Errorf("read the keyring of %s: %w", t, err)}
		case s.Keyring == nil:
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s has no keyring at %s: a daemon makes it, or tiwkeyd rotate", t, parts.store)}
		}
		var o rotator.Overrides
		if s.Keyring.Overrides != nil {
			o = *s.Keyring.Overrides
		}
		before := o
		change(&o)
		if err := schedule.Validate(&o, &parts.policy); err != nil {
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s: nothing was changed: %w", t, err)}
		}
		next := s.Keyring.With(o)
		if overridesText(&o) == overridesText(&before) {
			return next, nil
		}
		if err := parts.crowded(s.Keyring, next); err != nil {
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s: nothing was changed: %w", t, err)}
		}
		_, err = parts.store.Write(ctx, t, next, s.Version)
		switch {
		case errors.Is(err, rotator.ErrConflict):
		case err != nil:
			return nil, &exitError{code: exitUnsettled, err: fmt.Errorf("write the keyring of %s: %w", t, err)}
		default:
			return next, nil
		}
	}
	return nil, &exitError{code: exitUnsettled, err: fmt.Errorf("%s: the keyring was changed by somebody else each of %d times; try again", t, setTries)}
}

// overrideNames are the settings of a target, in the order in which they are shown.
var overrideNames = []string{"schedule", "grace", "propagation", "paused"}

// parseOverrides reads NAME=VALUE pairs; everything that is wrong with them is told.
func parseOverrides(pairs []string) (func(*rotator.Overrides), error) {
	var changes []func(*rotator.Overrides)
	var errs []error
	seen := map[string]bool{}
	for _, pair := range pairs {
		name, value, found := strings.Cut(pair, "=")
		switch {
		case !found:
			errs = append(errs, fmt.Errorf("%q is not of the form NAME=VALUE", pair))
			continue
		case !slices.Contains(overrideNames, name):
			errs = append(errs, fmt.Errorf("%q is no setting of a target; these are %s", name, strings.Join(overrideNames, ", ")))
			continue
		case seen[name]:
			errs = append(errs, fmt.Errorf("%s is there twice", name))
			continue
		}
		seen[name] = true
		change, err := parseOverride(name, strings.TrimSpace(value))
		if err != nil {
			errs = append(errs, err)
		}
		changes = append(changes, change)
	}
	return func(o *rotator.Overrides) {
		for _, change := range changes {
			change(o)
		}
	}, errors.Join(errs...)
}

func parseOverride(name, value string) (func(*rotator.Overrides), error) {
	switch name {
	case "schedule":
		return func(o *rotator.Overrides) { o.Schedule = value }, nil
	case "paused":
		on, err := strconv.ParseBool(value)
		if err != nil && value != "" {
			return nil, fmt.Errorf("paused: %q is neither true nor false", value)
		}
		return func(o *rotator.Overrides) { o.Paused = on }, nil
	}
	var d *time.Duration
	if value != "" {
		span, err := time.ParseDuration(value)
		if err != nil || span < 0 || (span == 0 && name == "grace") {
			return nil, fmt.Errorf("%s: %q is not a duration, such as 90s, 6m or 24h", name, value)
		}
		d = &span
	}
	if name == "propagation" {
		return func(o *rotator.Overrides) { o.Propagation = d }, nil
	}
	return func(o *rotator.Overrides) {
		if o.Grace = 0; d != nil {
			o.Grace = *d
		}
	}, nil
}

// setting is one that applies to a target.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"` // "the keyring", a variable, or "default"
}

// settings are those that apply to a target.
type settings struct {
	Target   string    `json:"target"`
	Settings []setting `json:"settings"`
}

func settingsOf(parts *parts, k *rotator.Keyring) *settings {
	told := "default"
	if parts.policy.PropagationSet {
		told = "TIWKEYD_PROPAGATION"
	}
	all := []setting{
		{"schedule", parts.config.Spec, "TIWKEYD_SCHEDULE"},
		{"grace", parts.policy.Grace.String(), "TIWKEYD_GRACE"},
		{"propagation", parts.policy.Propagation.String(), told},
		{"paused", "false", "default"},
	}
	if k.Overrides != nil {
		for i, own := range overridesText(k.Overrides) {
			if own != "" {
				all[i].Value, all[i].From = own, "the keyring"
			}
		}
	}
	if holds := parts.policy.Of(k).Propagation.String(); holds != all[2].Value {
		all[2].Value, all[2].From = holds, told // more than the keyring says
	}
	return &settings{k.Target.String(), all}
}

// overridesText gives the values in the order of overrideNames, "" where nothing is overridden.
func overridesText(o *rotator.Overrides) [4]string {
	var text [4]string
	text[0] = o.Schedule
	if o.Grace != 0 {
		text[1] = o.Grace.String()
	}
	if o.Propagation != nil {
		text[2] = o.Propagation.String()
	}
	if o.Paused {
		text[3] = "true"
	}
	return text
}

func printSettings(out io.Writer, all []*settings, everyone, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		switch {
		case everyone:
			return enc.Encode(all)
		case len(all) > 0:
			return enc.Encode(all[0])
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, of := range all {
		fmt.Fprintln(w, of.Target)
		for _, s := range of.Settings {
			fmt.Fprintf(w, "  %s\t%s\tfrom %s\n", s.Name, s.Value, s.From)
		}
	}
	return w.Flush()
}
