package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

type rotateFlags struct {
	revoke  bool
	noWait  bool
	timeout time.Duration
}

func (p *program) rotateCommand() *cobra.Command {
	var f rotateFlags
	c := &cobra.Command{
		Use:   "rotate [TARGET…]",
		Short: "Replace keys now and show progress",
		Long: `rotate replaces the keys of the given targets now (of all that are served if none is
given) and ends when the new ones are in force. It is safe beside running daemons: a
rotation that one of them has in hand is joined.

Exit status: 0 the new keys are in force; 2 wrong usage or configuration, or Vault refuses
the login; 3 refused by Tencent and rolled back, the keys are what they were; 4 not settled
yet (an answer in doubt, the store away, or the timeout), a daemon or the next run goes on
with it.`,
		Example: "  tiwkeyd rotate\n  tiwkeyd rotate 1400000001 1400000001/online-record\n  tiwkeyd rotate --revoke 1400000001",
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withParts(cmd.Context(), func(ctx context.Context, parts *parts) error {
				return p.rotate(ctx, parts, args, f)
			})
		},
	}
	c.Flags().BoolVar(&f.revoke, "revoke", false, "a key has leaked: do not wait for receivers, and refuse the old key as soon as the new one is in force")
	c.Flags().BoolVar(&f.noWait, "no-wait", false, "only write the new key for the receivers; a running daemon does the rest")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "stop waiting after this long (default: ten minutes more than the receivers get that need longest)")
	return c
}

func (p *program) rotate(ctx context.Context, parts *parts, args []string, f rotateFlags) error {
	if err := parts.logIn(ctx); err != nil {
		return err
	}
	all, err := parts.targets(ctx)
	if err != nil {
		return err
	}
	targets, err := chosenTargets(all, args)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if f.timeout < 0 || (f.revoke && f.noWait) {
		return &exitError{code: exitUsage, err: errors.New("--timeout must not be negative, and --no-wait does not go with --revoke")}
	}
	if f.timeout == 0 {
		f.timeout = parts.longestWait(ctx, targets) + 10*time.Minute
	}
	reason := rotator.ByCommand
	if f.revoke {
		reason = rotator.ByRevoke
		fmt.Fprintln(p.stderr, "tiwkeyd: revoking: callbacks may be refused until every receiver has read the new key")
	}
	show := newProgress(p.stdout)
	if isTerminal(p.stderr) && parts.config.Env("TIWKEYD_LOG_LEVEL") == "" {
		parts.log = slog.New(slog.DiscardHandler) // the progress tells a person the same
	}
	parts.events = append(parts.events, show.event)
	engine, err := parts.engine(f.noWait)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	showing, hide := context.WithCancel(ctx)
	var display sync.WaitGroup
	display.Go(func() { show.run(showing) })

	errs := make([]error, len(targets))
	var group sync.WaitGroup
	for i, t := range targets {
		group.Go(func() {
			if f.noWait {
				errs[i] = engine.Begin(ctx, t, reason)
			} else {
				errs[i] = engine.Settle(ctx, t, reason)
			}
		})
	}
	group.Wait()
	hide()
	display.Wait()
	return rotateResult(errs)
}

// longestWait is how long receivers get at most, of all these targets. A keyring that cannot be read
// now is taken to say nothing.
func (ps *parts) longestWait(ctx context.Context, targets []secrets.Target) time.Duration {
	var group errgroup.Group
	group.SetLimit(enrollWidth)
	waits := make([]time.Duration, len(targets))
	for i, t := range targets {
		group.Go(func() error {
			s, _ := ps.store.Read(ctx, t)
			waits[i] = ps.policy.Of(s.Keyring).Propagation
			if k := s.Keyring; k != nil && k.Pending() != nil {
				waits[i] = max(waits[i], time.Until(k.Pending().PushAfter))
			}
			return nil
		})
	}
	_ = group.Wait()
	return slices.Max(append(waits, 0))
}

// chosenTargets are the ones named, or all. A target that the configuration does not name
// is refused: its callbacks may not be ours to change.
func chosenTargets(all []secrets.Target, args []string) ([]secrets.Target, error) {
	if len(args) == 0 {
		return all, nil
	}
	known := map[secrets.Target]bool{}
	for _, t := range all {
		known[t] = true
	}
	var chosen []secrets.Target
	var errs []error
	for _, arg := range args {
		t, err := secrets.ParseTarget(arg)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !known[t]:
			errs = append(errs, fmt.Errorf("target %q is not in TIWKEYD_TARGETS, nor found by TIWKEYD_DISCOVER", arg))
		default:
			chosen = append(chosen, t)
			known[t] = false // named twice is done once
		}
	}
	return chosen, errors.Join(errs...)
}

// rotateResult gives the exit status: the gravest of the targets'.
func rotateResult(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	code := exitInternal
	for _, e := range errs {
		var rolled *rotator.RolledBackError
		switch {
		case errors.As(e, &rolled) && rolled.Failure.Refused:
			return &exitError{code: exitRefused, err: err}
		case e != nil && (rolled != nil || errors.Is(e, rotator.ErrUnsettled)):
			code = exitUnsettled
		}
	}
	return &exitError{code: code, err: err}
}
