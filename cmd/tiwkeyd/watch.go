package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/connlimit"
	"tiwkeyd/internal/hostguard"
	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/page"
	"tiwkeyd/internal/sdnotify"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// watch is what looks on while the daemon runs, from one configuration to the next: metrics,
// health, the status page, and what systemd is told.
type watch struct {
	monitor *observe.Monitor
	server  *observe.Server
	systemd *sdnotify.Notifier
	stall   time.Duration
	version string
	config  atomic.Pointer[config.Config]               // nil: nothing yet
	targets atomic.Pointer[map[secrets.Target]struct{}] // that are served now
	found   []secrets.Target                            // by TIWKEYD_DISCOVER, for the engine after a reload; of the run loop only
	owed    bool                                        // SIGUSR1 came before the store was first listed; of the run loop, too
	asks    chan secrets.Target                         // for which the status page wants a new key

	ctx   context.Context // ends after the last step
	stop  context.CancelFunc
	group sync.WaitGroup
}

// pagePatience is how long an answer of the page, metrics or health is safe when connections run
// out: whoever does not take it must not keep health from others.
const pagePatience = 500 * time.Millisecond

// watch begins to look on, at the address that the configuration gives.
func (p *program) watch(ps *parts) (*watch, error) {
	built := builtFrom()
	m := observe.New(observe.Build{Version: built.Version, Revision: built.Revision, Go: built.Go})
	w := &watch{monitor: m, stall: p.stall, version: built.Version, asks: make(chan secrets.Target, maxAsks),
		systemd: &sdnotify.Notifier{Status: m.Status, Alive: m.Alive, Log: ps.log}}
	mux := http.NewServeMux()
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		mux.Handle(path, m.Handler())
	}
	mux.Handle("/", page.New(page.Options{Look: m.Report, Has: w.has, Ask: w.ask, Token: w.token, Secure: w.secure, Log: ps.log, Version: built.Version}))
	limit := connlimit.New("page", connlimit.Page(connlimit.Files(ps.log)), pagePatience)
	m.Registry.MustRegister(limit)
	w.server = &observe.Server{Handler: hostguard.Handler(mux, w.name), Limit: limit}
	if err := w.listen(ps); err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.group.Go(func() { w.systemd.Run(w.ctx) })
	return w, nil
}

// listen moves to the address of a configuration, if it is another one. An error leaves
// everything as it was.
func (w *watch) listen(ps *parts) error { return w.server.Listen(ps.config.HTTPAddr, ps.log) }

// over has the parts' engine be looked at.
func (w *watch) over(ps *parts) {
	ps.store, ps.api = w.monitor.Store(ps.store), w.monitor.API(ps.api)
	ps.events = append(ps.events, w.monitor.Event)
}

// maxAsks is how many demands of the status page wait for the daemon to take account of them.
const maxAsks = 100

var errBusy = errors.New("too much was asked for at once; try again in a few seconds")

// ask takes a demand of the status page. It waits through a reload, after which the engine
// hears it.
func (w *watch) ask(t secrets.Target) error {
	if !w.has(t) {
		return page.ErrNotServed
	}
	select {
	case w.asks <- t:
		return nil
	default:
		return errBusy
	}
}

// token is what the status page wants to be shown.
func (w *watch) token() string {
	if c := w.config.Load(); c != nil {
		return c.HTTPToken
	}
	return ""
}

// name is the one that people call this by, through a proxy before it; "": there is none.
func (w *watch) name() string {
	if c := w.config.Load(); c != nil && c.HTTPURL != nil {
		return c.HTTPURL.Hostname()
	}
	return ""
}

// secure reports whether that proxy speaks TLS with them.
func (w *watch) secure() bool {
	c := w.config.Load()
	return c != nil && c.HTTPURL != nil && c.HTTPURL.Scheme == "https"
}

// has reports whether a target is served now.
func (w *watch) has(t secrets.Target) bool {
	served := w.targets.Load()
	if served == nil {
		return false
	}
	_, is := (*served)[t]
	return is
}

// serves says which engine it is now, and what it looks after.
func (w *watch) serves(ps *parts, engine *rotator.Engine, targets []secrets.Target) {
	served := make(map[secrets.Target]struct{}, len(targets))
	for _, t := range targets {
		served[t] = struct{}{}
	}
	w.config.Store(ps.config)
	w.targets.Store(&served)
	w.monitor.Serve(observe.Served{Engine: engine, Targets: targets, Discovers: ps.config.Discover, Policy: ps.policy, TokenExpiry: ps.tokenExpiry, Limits: ps.tencent.Limits, StallLimit: w.stall})
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
