package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/sdnotify"
	"tiwkeyd/internal/tracing"
	"tiwkeyd/rotator"
)

// watch is what looks on while the daemon runs, from one configuration to the next: metrics,
// health, traces, and what systemd is told.
type watch struct {
	monitor *observe.Monitor
	server  *observe.Server
	systemd *sdnotify.Notifier
	stall   time.Duration
	version string

	stop  context.CancelFunc
	group sync.WaitGroup
}

// watch begins to look on, at the address that the configuration gives.
func (p *program) watch(ps *parts) (*watch, error) {
	built := builtFrom()
	m := observe.New(observe.Build{Version: built.Version, Revision: built.Revision, Go: built.Go})
	w := &watch{monitor: m, server: &observe.Server{Handler: m.Handler()}, stall: p.stall, version: built.Version,
		systemd: &sdnotify.Notifier{Status: m.Status, Alive: m.Alive, Log: ps.log}}
	if err := w.listen(ps); err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	ctx, stop := context.WithCancel(context.Background()) // it ends after the last step
	w.stop = stop
	w.group.Go(func() { w.systemd.Run(ctx) })
	return w, nil
}

// listen moves to the address of a configuration, if it is another one. An error leaves
// everything as it was.
func (w *watch) listen(ps *parts) error { return w.server.Listen(ps.config.HTTPAddr, ps.log) }

// over has the parts' engine be looked at.
func (w *watch) over(ps *parts) {
	ps.store, ps.api = w.monitor.Store(ps.store), w.monitor.API(ps.api)
	ps.events = append(ps.events, w.monitor.Event)
	traces, err := tracing.Start(context.Background(), w.version, ps.log)
	if err != nil {
		ps.log.Error("there are no traces", "error", err.Error())
	}
	if traces != nil {
		ps.events = append(ps.events, traces.Event)
		ps.closers = append(ps.closers, traces.Close)
	}
}

// serves says which engine it is now.
func (w *watch) serves(ps *parts, engine *rotator.Engine) {
	w.monitor.Serve(observe.Served{Engine: engine, Targets: ps.config.Targets, Policy: ps.policy, TokenExpiry: ps.tokenExpiry, StallLimit: w.stall})
}

// reloaded tells how a reload went. After one that succeeded the daemon is ready once it serves.
func (w *watch) reloaded(err error) {
	w.monitor.Reloaded(err)
	if err != nil {
		w.systemd.Ready()
	}
}

// stopping tells that the end has come.
func (w *watch) stopping() {
	w.monitor.Stopping()
	w.systemd.Stopping()
}

func (w *watch) close() {
	w.stop()
	w.group.Wait()
	w.server.Close()
}

// stopLimit is when the daemon ends although a step has not: the engine gives a step seven
// seconds, and whoever stopped the daemon may wait for ten.
const stopLimit = 8500 * time.Millisecond

// finished waits for the engine's end. It reports false if the engine is stuck: the daemon is
// to stop, and it does not.
func finished(ctx context.Context, done <-chan struct{}, log *slog.Logger) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-limit.C:
		log.Error("the step in hand did not end in time and is given up; the next start goes on with it", "limit", stopLimit.String())
		return false
	}
}
