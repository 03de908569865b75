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

	"tiwkeyd/rotator"
)

func (p *program) setCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "set TARGET [NAME=VALUE…]",
		Short: "Give one target settings of its own, or show which apply to it",
		Long: `set writes settings of one target into its keyring, where they go before the TIWKEYD_…
variables of every daemon. NAME= without a value goes back to the variable. Without any
NAME=VALUE the settings that apply are shown.

  schedule     cron expression, as TIWKEYD_SCHEDULE
  grace        how long a replaced key stays accepted, as TIWKEYD_GRACE
  propagation  how late a receiver may see a change; not below TIWKEYD_PROPAGATION
  paused       true: neither the schedule nor SIGUSR1 replaces the key; tiwkeyd rotate does

Daemons go by a change the next time they deal with the target, and before they write its
keyring again at the latest. Exit status: 0 done; 2 wrong usage or configuration, or the
target has no keyring; 4 the store is away or the keyring changes all the time.`,
		Example: "  tiwkeyd set 1400000001 grace=48h schedule='0 4 * * 0'\n  tiwkeyd set 1400000001 paused=true\n  tiwkeyd set 1400000001 paused=\n  tiwkeyd set 1400000001",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withParts(cmd.Context(), func(ctx context.Context, parts *parts) error {
				return p.set(ctx, parts, args[0], args[1:], asJSON)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// setTries is how often a keyring that somebody else changed is read again.
const setTries = 10

func (p *program) set(ctx context.Context, parts *parts, target string, pairs []string, asJSON bool) error {
	t, err := rotator.ParseTarget(target)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	change, err := parseOverrides(pairs)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	k, err := overrideStored(ctx, parts, t, change)
	if err != nil {
		return err
	}
	return printSettings(p.stdout, parts, k, asJSON)
}

// overrideStored changes the overrides of a keyring in the store, if there is anything to change.
func overrideStored(ctx context.Context, parts *parts, t rotator.Target, change func(*rotator.Overrides)) (*rotator.Keyring, error) {
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
		if err := o.Validate(&parts.policy); err != nil {
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s: nothing was changed: %w", t, err)}
		}
		next := s.Keyring.With(o)
		if o.Schedule == before.Schedule && o.Grace == before.Grace && o.Propagation == before.Propagation && o.Paused == before.Paused {
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
	var d time.Duration
	if value != "" {
		var err error
		if d, err = time.ParseDuration(value); err != nil || d <= 0 {
			return nil, fmt.Errorf("%s: %q is not a duration, such as 90s, 6m or 24h", name, value)
		}
	}
	if name == "grace" {
		return func(o *rotator.Overrides) { o.Grace = d }, nil
	}
	return func(o *rotator.Overrides) { o.Propagation = d }, nil
}

// setting is one that applies to a target.
type setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"` // "the keyring", or a variable
}

func settingsOf(parts *parts, k *rotator.Keyring) []setting {
	all := []setting{
		{"schedule", parts.config.Spec, "TIWKEYD_SCHEDULE"},
		{"grace", parts.policy.Grace.String(), "TIWKEYD_GRACE"},
		{"propagation", parts.policy.Propagation.String(), "TIWKEYD_PROPAGATION"},
		{"paused", "false", "default"},
	}
	if k.Overrides != nil {
		for i, own := range overridesText(k.Overrides) {
			if own != "" {
				all[i].Value, all[i].From = own, "the keyring"
			}
		}
	}
	return all
}

// overridesText gives the values in the order of overrideNames, "" where nothing is overridden.
func overridesText(o *rotator.Overrides) [4]string {
	var text [4]string
	text[0] = o.Schedule
	if o.Grace != 0 {
		text[1] = o.Grace.String()
	}
	if o.Propagation != 0 {
		text[2] = o.Propagation.String()
	}
	if o.Paused {
		text[3] = "true"
	}
	return text
}

func printSettings(out io.Writer, parts *parts, k *rotator.Keyring, asJSON bool) error {
	all := settingsOf(parts, k)
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"target": k.Target.String(), "settings": all})
	}
	fmt.Fprintln(out, k.Target)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range all {
		fmt.Fprintf(w, "  %s\t%s\tfrom %s\n", s.Name, s.Value, s.From)
	}
	return w.Flush()
}
