package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `run looks after all targets until it is told to stop.

Signals: SIGUSR1 rotates all targets now; SIGHUP reads --env-file, credentials and tokens
again, and keeps the old configuration if the new one is wrong; SIGTERM and SIGINT finish
the step in hand and stop.

Variables:
` + config.Text(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			oneProcessor()
			return p.run(cmd.Context())
		},
	}
}

// run serves one configuration after the other.
func (p *program) run(ctx context.Context) error {
	ps, err := p.start()
	if err != nil {
		return err
	}
	w, err := p.watch(ps)
	if err != nil {
		ps.close()
		return err
	}
	defer w.close()
	w.group.Go(w.modest)
	for err == nil && ps != nil {
		ps, err = p.serve(ctx, ps, w, p.hangups, p.demands)
	}
	return err
}

var errStuck = errors.New("it was stopped before the step in hand had ended")

// reloadPause is for how long the engine runs at least until the next reload: in a flood of them it
// would do nothing else.
const reloadPause = 200 * time.Millisecond

// serve runs the engine until ctx ends, or until a reload gives the parts of another
// configuration, with which the same engine goes on.
func (p *program) serve(ctx context.Context, ps *parts, w *watch, hangups, demands <-chan os.Signal) (next *parts, err error) {
	defer ps.close()
	w.over(ps)
	changed := make(chan struct{}, 1)
	ps.gone = func(secrets.Target) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	engine, err := ps.engine(false)
	if err != nil {
		return nil, err
	}
	engine.Serve(ps.config.Targets...)
	s := &serving{ps: ps, engine: engine, w: w, found: leaving(engine.Targets(), ps.config.Targets)}
	unlisted := ps.config.Discover && w.found == nil // nothing is known of what the store has
	switch {
	case !ps.config.Discover:
		engine.Drop(s.found...) // they went with a reload
	case !unlisted:
		s.update(w.found)
	}
	s.refresh()
	if ps.before == nil {
		p.announce(ctx, ps, w.server.Addr())
	}

	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		engine.Run(running, ps.config.Targets)
	}()
	if ps.before != nil { // not before it runs: a slow store would keep it from its reads
		p.announce(ctx, ps, w.server.Addr())
	}
	found := make(chan []secrets.Target)
	if ps.config.Discover {
		listing, end := context.WithCancel(ctx)
		d := &discovery{lister: ps.lister, store: ps.store, log: ps.log, found: found, failed: w.monitor.Listed}
		var group sync.WaitGroup
		group.Go(func() { d.run(listing) })
		defer func() { end(); group.Wait() }()
	}
	w.systemd.Ready()
	pause := time.NewTimer(reloadPause)
	defer pause.Stop()
	var heed <-chan os.Signal // hangups, once the engine has run for a while
	for {
		select {
		case <-ctx.Done():
			ps.log.Info("stopping: the step in hand is finished first")
			w.stopping()
			if !finished(ctx, done, ps.log) {
				return nil, errStuck
			}
			ps.log.Info("stopped")
			return nil, nil
		case <-demands:
			ps.log.Info("rotating all targets now, as SIGUSR1 asked for")
			engine.Ask(rotator.BySignal, engine.Served()...)
			w.owed = unlisted
		case all := <-found:
			s.update(all)
			w.monitor.Listed(nil) // not before its targets are served: it is ready then
			if unlisted = false; w.owed {
				engine.Ask(rotator.BySignal, all...)
				w.owed = false
			}
		case <-changed:
			s.refresh()
		case t := <-w.asks:
			if w.has(t) { // it may have gone with a reload
				engine.Ask(rotator.ByCommand, t)
			}
		case <-pause.C:
			heed = hangups
		case <-heed:
			w.systemd.Reloading()
			next, err := p.reload(ps.log, w)
			w.reloaded(err)
			if err == nil {
				stop()
				if !finished(ctx, done, ps.log) {
					next.close()
					return nil, errStuck
				}
				next.before, next.same = engine, next.places() == ps.places()
				return next, nil
			}
		}
	}
}

// reload makes the parts of the configuration as it is now. If something is wrong with it,
// the environment is again what it was, and the old one goes on.
func (p *program) reload(log *slog.Logger, w *watch) (*parts, error) {
	undo, err := p.envFile.Apply()
	if err == nil {
		next, startErr := p.start()
		if startErr == nil {
			if startErr = w.listen(next); startErr == nil {
				log.Info("reloaded", "from_env_file", p.envFile.Names())
				return next, nil
			}
			next.close()
		}
		undo()
		err = startErr
	}
	log.Error("the new configuration is wrong; the old one goes on", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
	return nil, err
}

// announceWait bounds the look into the store for the announcement.
const announceWait = 5 * time.Second

// announce logs one line that says what is going to happen, and another if that is much.
func (p *program) announce(ctx context.Context, ps *parts, address string) {
	var names []string
	for _, t := range ps.config.Targets {
		names = append(names, t.String())
	}
	const shown = 20
	targets := strings.Join(names[:min(shown, len(names))], ", ")
	if len(names) > shown {
		targets += ", …"
	}
	ps.log.Info("tiwkeyd serves these targets",
		"targets", targets, "count", len(names), "schedule", ps.config.Spec, "next", ps.nextRun(ctx),
		"propagation", ps.policy.Propagation.String(), "grace", ps.policy.Grace.String(),
		"store", ps.store.String(), "endpoint", ps.config.Endpoint, "credentials", ps.config.Credentials,
		"http", address, "version", builtFrom().Version)
	if n := ps.schedule.Keys(&ps.config.Policy, nil); n > schedule.ManyKeys {
		ps.log.Warn(manyKeys, "keys", n, "schedule", ps.config.Spec, "grace", ps.policy.Grace.String())
	}
}

// nextRun is when the first rotation is due, as far as the store tells soon.
func (ps *parts) nextRun(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, announceWait)
	defer cancel()
	var next time.Time
	const asked = 20 // of thousands of targets these few must do
	for _, t := range ps.config.Targets[:min(asked, len(ps.config.Targets))] {
		s, err := ps.store.Read(ctx, t)
		if err != nil {
			return "unknown: " + err.Error()
		}
		st := statusOf(t, s.Keyring, ps.schedule, time.Now())
		switch {
		case st.Paused && s.Keyring.Pending() == nil:
		case st.Next == nil:
			return "now"
		case next.IsZero() || st.Next.Before(next):
			next = *st.Next
		}
	}
	switch {
	case len(ps.config.Targets) == 0:
		return "when the keyrings are found"
	case next.IsZero():
		return "on demand"
	}
	return next.UTC().Format(time.RFC3339)
}
