package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/connlimit"
	"tiwkeyd/internal/hostguard"
	"tiwkeyd/internal/hostport"
	"tiwkeyd/internal/kept"
	"tiwkeyd/internal/proxy"
	"tiwkeyd/secrets"
	"tiwkeyd/webhook"
)

// proxyFlags are the flags of `tiwkeyd proxy`.
type proxyFlags struct {
	upstream, listen, metrics                                       string
	tlsCert, tlsKey                                                 string
	keyFiles                                                        []string
	maxBody                                                         int64
	bodyTimeout, upstreamTimeout, upstreamWait, leeway, stopTimeout time.Duration
	replayGuard, allowUnsigned                                      bool
}

func (p *program) proxyCommand() *cobra.Command {
	var f proxyFlags
	c := &cobra.Command{
		Use:   "proxy --upstream URL",
		Short: "Hand genuine callbacks on to a receiver in any language, and refuse the others",
		Long: `proxy stands in front of a webhook receiver. It verifies each callback with the keys of
TIWKEYD_TARGETS, from the store (TIWKEYD_STORE, VAULT_…) or from --key-file, and hands it on
to --upstream: at the URL's path if it has one, else at the path it came in at. The body stays as
it is, as application/json, with the headers
  X-Tiwkeyd-Key-Id       the id of the key that signed it
  X-Tiwkeyd-Event-Type   the EventType, if it is of letters, digits and . _ -
  X-Tiwkeyd-Sdk-App-Id   the SdkAppId
  Idempotency-Key        the SHA-256 of the body: the same for a callback that comes twice
which it takes away from what comes from outside. A receiver that is restarting is waited for; one
that breaks off a connection may get a callback twice. All others are answered 400 (not a
callback), 401 (not genuine, expired, another application's), 408 (it did not come whole), 413
(too long), 503 (the keys cannot be read) or 508 (it came back from --upstream: Via has this
proxy); the log has the reason.

It needs no credential for Tencent, and in Vault the capability read on the keyrings alone.
--metrics serves /metrics, /healthz and /readyz. SIGTERM finishes the requests in hand.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.proxy(cmd.Context(), f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.upstream, "upstream", "", "URL of the receiver; required")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to serve at")
	flags.StringVar(&f.metrics, "metrics", "127.0.0.1:9470", "address of /metrics, /healthz and /readyz; \"\" for none")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "serve HTTPS with this certificate (PEM); read again when it changes")
	flags.StringVar(&f.tlsKey, "tls-key", "", "the certificate's key (PEM)")
	flags.StringArrayVar(&f.keyFiles, "key-file", nil, keyFileHelp)
	flags.Int64Var(&f.maxBody, "max-body", webhook.DefaultMaxBody, "longest body, in bytes")
	flags.DurationVar(&f.bodyTimeout, "body-timeout", webhook.DefaultBodyTimeout, "how long a body may take to come")
	flags.DurationVar(&f.upstreamTimeout, "upstream-timeout", 30*time.Second, "how long the receiver may take to begin its answer")
	flags.DurationVar(&f.upstreamWait, "upstream-wait", 10*time.Second, "how long a receiver that does not listen is tried again")
	flags.DurationVar(&f.stopTimeout, "stop-timeout", 25*time.Second, "how long the requests in hand may take when told to stop")
	flags.DurationVar(&f.leeway, "leeway", 0, "accept a callback so long after its ExpireTime")
	flags.BoolVar(&f.replayGuard, "replay-guard", false, "hand the very same callback on only once, until it expires")
	flags.BoolVar(&f.allowUnsigned, "allow-unsigned", false, "hand on callbacks without Sign while an application has no key yet; anybody can send these")
	return c
}

// check reports all that is wrong with the flags.
func (f *proxyFlags) check() (upstream *url.URL, err error) {
	var errs []error
	upstream, err = url.Parse(f.upstream)
	switch {
	case f.upstream == "":
		errs = append(errs, errors.New("--upstream is missing: the URL of the receiver, such as http://127.0.0.1:3000"))
	case err != nil || (upstream.Scheme != "http" && upstream.Scheme != "https") || upstream.Host == "" || upstream.User != nil || upstream.RawQuery != "" || upstream.Fragment != "":
		errs = append(errs, errors.New("--upstream is not a URL of the form http://HOST:PORT[/PATH]"))
	default:
		if err := hostport.URL(upstream); err != nil {
			errs = append(errs, fmt.Errorf("--upstream is not a URL of the form http://HOST:PORT[/PATH]: %w", err))
		}
	}
	for _, a := range []struct{ name, value string }{{"listen", f.listen}, {"metrics", f.metrics}} {
		if err := hostport.Listen(a.value); err != nil && (a.value != "" || a.name == "listen") {
			errs = append(errs, fmt.Errorf("--%s %w", a.name, err))
		}
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		errs = append(errs, errors.New("--tls-cert and --tls-key go together"))
	}
	if f.maxBody < 1 {
		errs = append(errs, fmt.Errorf("--max-body %d is not positive", f.maxBody))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{{"body-timeout", f.bodyTimeout, 1}, {"upstream-timeout", f.upstreamTimeout, 1}, {"stop-timeout", f.stopTimeout, 1}, {"upstream-wait", f.upstreamWait, 0}, {"leeway", f.leeway, 0}} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("--%s %s is too short", d.name, d.value))
		}
	}
	return upstream, errors.Join(errs...)
}

// proxy serves until ctx ends.
func (p *program) proxy(ctx context.Context, f proxyFlags) error {
	// What these mean to `run` must not end a proxy that whoever sends them did not think of.
	// Keys and certificates are read again without being told.
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1)
	upstream, flagErr := f.check()
	c, log, err := p.loadReceiver(config.Needs{Targets: !allNamed(f.keyFiles), Store: len(f.keyFiles) == 0})
	var cert *proxy.Certificate
	var certErr error
	if f.tlsCert != "" && f.tlsKey != "" {
		cert, certErr = proxy.LoadCertificate(f.tlsCert, f.tlsKey, log)
	}
	var targets []secrets.Target
	var reader webhook.Reader
	closeStore := func() {}
	if err == nil {
		targets, reader, closeStore, err = f.keys(c, log)
	}
	if err = errors.Join(flagErr, certErr, err); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	defer closeStore()

	// The requests in hand go on when ctx ends, and need keys and store meanwhile.
	cache := webhook.NewCache(context.WithoutCancel(ctx), reader, webhook.CacheOptions{Log: log}, targets...)
	defer cache.Close()
	metrics := proxy.NewMetrics(cache)
	files := connlimit.Files(log)
	limit := connlimit.New("callbacks", connlimit.Callbacks(files), 0)
	metrics.Registry.MustRegister(limit)
	o := proxy.Options{Upstream: upstream, UpstreamConns: connlimit.Callbacks(files), UpstreamTimeout: f.upstreamTimeout, UpstreamWait: f.upstreamWait, Log: log, Metrics: metrics,
		Webhook: webhook.Options{Keys: cache, MaxBody: f.maxBody, BodyTimeout: f.bodyTimeout, AllowUnsigned: f.allowUnsigned, Leeway: f.leeway,
			// Whoever waits for keys holds a connection, and may be a forger: half are for the others.
			MaxWaiting: connlimit.Callbacks(files) / 2}}
	if f.replayGuard {
		o.Webhook.Replays = webhook.NewReplayGuard(0)
	}
	handler, closeIdle := proxy.New(o)
	defer closeIdle()

	server := limit.Server(handler, log)
	server.ReadTimeout = f.bodyTimeout + 20*time.Second
	server.WriteTimeout = f.bodyTimeout + webhook.DefaultRereadTimeout + f.upstreamWait + f.upstreamTimeout + 10*time.Second
	if cert != nil {
		server.TLSConfig = &tls.Config{GetCertificate: cert.Get, MinVersion: tls.VersionTLS12}
	}
	var stopping atomic.Bool
	stopMetrics, metricsAt, err := f.serveMetrics(cache, len(targets), metrics, connlimit.Metrics(files), &stopping, log)
	if err != nil {
		return err
	}
	defer stopMetrics()
	plain, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen at --listen %s: %w", f.listen, err)
	}
	listener := limit.Listener(plain, log)
	defer func() { _ = listener.Close() }()
	if flag := proxy.LeadsTo(ctx, upstream, map[string]string{"--listen": listener.Addr().String(), "--metrics": metricsAt}); flag != "" {
		return &exitError{code: exitUsage, err: fmt.Errorf("--upstream %s leads to this proxy itself, to its %s: give the receiver's own address", upstream, flag)}
	}
	log.Info("tiwkeyd proxy hands genuine callbacks on", "listen", listener.Addr().String(), "tls", f.tlsCert != "", "upstream", upstream.String(),
		"metrics", metricsAt, "targets", names(targets), "keys_from", reader.String(), "version", builtFrom().Version)
	return serveUntil(ctx, server, listener, f, &stopping, log)
}

// serveUntil serves until ctx ends, and then finishes the requests in hand.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener, f proxyFlags, stopping *atomic.Bool, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() {
		if f.tlsCert != "" {
			failed <- server.ServeTLS(listener, "", "")
		} else {
			failed <- server.Serve(listener)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve at %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopping.Store(true)
	log.Info("stopping: the requests in hand are finished first")
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.stopTimeout)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		_ = server.Close()
		return fmt.Errorf("requests were still in hand %s after it was told to stop (--stop-timeout)", f.stopTimeout)
	}
	log.Info("stopped")
	return nil
}

// keys gives what to serve, and where its keys are.
func (f *proxyFlags) keys(c *config.Config, log *slog.Logger) ([]secrets.Target, webhook.Reader, func(), error) {
	if len(f.keyFiles) == 0 {
		reader, closeStore, err := openKeys(c, log)
		return c.Targets, reader, closeStore, err
	}
	files, err := parseKeyFiles(f.keyFiles, c.Targets)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, t := range c.Targets {
		if _, ok := files[t]; !ok {
			return nil, nil, nil, fmt.Errorf("--key-file: there is none for %s, which TIWKEYD_TARGETS names", t)
		}
	}
	return slices.SortedFunc(maps.Keys(files), secrets.Target.Compare), files, func() {}, nil
}

// serveMetrics serves what monitoring wants to know, apart from the callbacks.
func (f *proxyFlags) serveMetrics(cache *webhook.Cache, targets int, metrics *proxy.Metrics, connections int, stopping *atomic.Bool, log *slog.Logger) (stop func(), address string, err error) {
	if f.metrics == "" {
		return func() {}, "", nil
	}
	listener, err := net.Listen("tcp", f.metrics)
	if err != nil {
		return nil, "", fmt.Errorf("listen at --metrics %s: %w", f.metrics, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", kept.Metrics(metrics.Registry, func() int { return targets }))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	var ready kept.Value[bool]
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case stopping.Load():
			http.Error(w, "stopping", http.StatusServiceUnavailable)
		case !ready.Get(targets, cache.Ready):
			http.Error(w, "no key could be read yet, or not every place was looked at", http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, "ok")
		}
	})
	limit := connlimit.New("metrics", connections, pagePatience)
	metrics.Registry.MustRegister(limit)
	server := limit.Server(hostguard.Handler(mux, nil), log)
	go func() { _ = server.Serve(limit.Listener(listener, log)) }()
	return func() { _ = server.Close() }, listener.Addr().String(), nil
}

// allNamed reports whether the key files name their targets, all of them.
func allNamed(keyFiles []string) bool {
	for _, f := range keyFiles {
		if !slices.Contains([]byte(f), '=') {
			return false
		}
	}
	return len(keyFiles) > 0
}

// names lists targets for a line of the log, the first of many.
func names(targets []secrets.Target) []string {
	const some = 20
	var all []string
	for i, t := range targets {
		if i == some {
			return append(all, fmt.Sprintf("and %d more", len(targets)-some))
		}
		all = append(all, t.String())
	}
	return all
}
