package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
)

type enrollFlags struct {
	file   string
	format string
	asJSON bool
}

func (p *program) enrollCommand() *cobra.Command {
	var f enrollFlags
	c := &cobra.Command{
		Use:   "enroll [TARGET…]",
		Short: "Adopt applications in bulk: write the key in force at Tencent into a keyring for each",
		Long: `enroll gives each target that has no keyring one, with the key that is in force at Tencent as
the current key. It sets nothing at Tencent; daemons with TIWKEYD_DISCOVER=true find the
keyrings and replace the keys by schedule. A target that has a keyring is left as it is, so a
run that was broken off is resumed by running it again.

--from-file reads targets from a file, or from - for standard input: CSV with a header of which
the column target, or sdk_app_id and perhaps service, is read, and the columns schedule, grace,
propagation and paused, as tiwkeyd set takes them; or a JSON list of targets, as texts or as
objects with members of the same names.

Exit status: 0 every target has a keyring; 2 wrong usage, configuration or file, or Vault
refuses the login, nothing was changed; 3 Tencent refused some; 4 some are not settled yet,
the next run goes on with them.`,
		Example: "  tiwkeyd enroll 1400000001 1400000001/online-record\n  tiwkeyd enroll --from-file applications.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := enrollments(args, f, cmd.InOrStdin())
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			return p.withParts(cmd.Context(), func(ctx context.Context, parts *parts) error {
				return p.enroll(ctx, parts, wanted, f.asJSON)
			})
		},
	}
	c.Flags().StringVar(&f.file, "from-file", "", "read targets from this file; - is standard input")
	c.Flags().StringVar(&f.format, "format", "", "csv or json; by default what the file's name ends with")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print the outcome as JSON")
	return c
}

// enrollWidth is how many targets are dealt with at the same time.
const enrollWidth = 32

// enrolled is the outcome, for --json.
type enrolled struct {
	Enrolled int            `json:"enrolled"`
	Already  int            `json:"already_there"`
	Failed   []enrollFailed `json:"failed"`
	NotTried int            `json:"not_tried"`
}

type enrollFailed struct {
	Target string `json:"target"`
	Error  string `json:"error"`
}

func (p *program) enroll(ctx context.Context, parts *parts, wanted enrollList, asJSON bool) error {
	var errs []error
	for _, w := range wanted {
		var o rotator.Overrides
		w.override(&o)
		if err := schedule.Validate(&o, &parts.policy); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.target, err))
		} else if w.overrides && parts.schedule.Keys(&parts.policy, (&rotator.Keyring{}).With(o)) > schedule.MaxKeys {
			errs = append(errs, fmt.Errorf("%s: its schedule replaces more than %d keys within its grace, and no store holds so many", w.target, schedule.MaxKeys))
		}
	}
	if err := atMost(errs); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if err := parts.logIn(ctx); err != nil {
		return err
	}
	if isTerminal(p.stderr) && parts.config.Env("TIWKEYD_LOG_LEVEL") == "" {
		parts.log = slog.New(slog.DiscardHandler) // failures are listed at the end
	}
	engine, err := parts.engine(false)
	if err != nil {
		return err
	}
	show := newEnrollProgress(p.stderr, len(wanted))
	var mu sync.Mutex
	out, codes := enrolled{Failed: []enrollFailed{}}, []error{}
	var group errgroup.Group
	group.SetLimit(enrollWidth)
	for _, w := range wanted {
		group.Go(func() error {
			if ctx.Err() != nil { // what is in hand is finished, nothing is begun
				mu.Lock()
				defer mu.Unlock()
				out.NotTried++
				return nil
			}
			already, err := engine.Enroll(context.WithoutCancel(ctx), w.target)
			if err == nil && w.overrides {
				_, err = overrideStored(context.WithoutCancel(ctx), parts, w.target, w.override)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				codes = append(codes, err)
				out.Failed = append(out.Failed, enrollFailed{w.target.String(), err.Error()})
			case already:
				out.Already++
			default:
				out.Enrolled++
			}
			show.add(out)
			return nil
		})
	}
	_ = group.Wait()
	show.end()
	if asJSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "enrolled=%d already_there=%d failed=%d not_tried=%d\n", out.Enrolled, out.Already, len(out.Failed), out.NotTried)
	}
	if out.NotTried > 0 {
		codes = append(codes, fmt.Errorf("%w: stopped before %d targets were tried; run the same command again", rotator.ErrUnsettled, out.NotTried))
	}
	return rotateResult(codes)
}

// enrollProgress shows how far it has come: a bar for a person, a line now and then for a log.
type enrollProgress struct {
	out   io.Writer
	total int
	bar   *progressbar.ProgressBar
	told  time.Time
}

const progressEvery = 5 * time.Second

func newEnrollProgress(out io.Writer, total int) *enrollProgress {
	s := &enrollProgress{out: out, total: total, told: time.Now()}
	if isTerminal(out) {
		s.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("enrolling"),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return s
}

func (s *enrollProgress) add(o enrolled) {
	switch {
	case s.bar != nil:
		_ = s.bar.Add(1)
	case time.Since(s.told) >= progressEvery:
		s.told = time.Now()
		fmt.Fprintf(s.out, "tiwkeyd: %d of %d targets: %d enrolled, %d already there, %d failed\n", o.Enrolled+o.Already+len(o.Failed), s.total, o.Enrolled, o.Already, len(o.Failed))
	}
}

func (s *enrollProgress) end() {
	if s.bar != nil {
		_ = s.bar.Finish()
	}
}

// enrollments reads the targets of the command line and of the file.
func enrollments(args []string, f enrollFlags, stdin io.Reader) (enrollList, error) {
	if (len(args) == 0) == (f.file == "") {
		return nil, errors.New("name targets, or a file with --from-file")
	}
	if f.file == "" {
		return enrollArgs(args)
	}
	format, err := enrollFormat(f)
	if err != nil {
		return nil, err
	}
	in := stdin
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return nil, fmt.Errorf("read the targets: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	return readEnrollments(in, format, f.file)
}
