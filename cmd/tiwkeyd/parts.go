package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/logs"
	"tiwkeyd/internal/schedule"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/tencent"
)

// parts is a configuration made real.
type parts struct {
	config   *config.Config
	log      *slog.Logger
	policy   rotator.Policy
	schedule *schedule.Schedule
	store    rotator.Store
	vault    *vault.Store // nil: nothing is in Vault
	lister   lister
	files    *file.Store // nil: the keyrings are in Vault
	api      rotator.CallbackAPI
	tencent  *tencent.Client
	secrets  tencent.Credentials
	gone     func(secrets.Target) // hears of targets whose keyring is gone; nil: nobody does
	events   []func(rotator.Event)
	// tokenExpiry is when the store's token ends; nil: it has none.
	tokenExpiry func() (time.Time, bool)
	closers     []func()

	before *rotator.Engine // that goes on with these parts after a reload; nil: there was none
	same   bool            // it finds store and Tencent where they were
}

// load reads the configuration, and warns of variables that mean nothing.
func (p *program) load() (*config.Config, *slog.Logger, error) {
	c, err := config.Load(os.Environ())
	if err != nil {
		return nil, nil, &exitError{code: exitUsage, err: err}
	}
	log := p.logger(c)
	tellUnused(log, c)
	return c, log, nil
}

// tellUnused warns of variables that nothing goes by.
func tellUnused(log *slog.Logger, c *config.Config) {
	if len(c.Unknown) > 0 {
		log.Warn("variables that mean nothing are set; misspelt?", "variables", strings.Join(c.Unknown, ", "))
	}
	if err := schedule.CheckZone(c.Env("TZ")); err != nil {
		log.Warn("TZ cannot be used", "error", err.Error())
	}
	if c.AllProxy() {
		log.Warn("ALL_PROXY is set, and nothing here goes by it", "instead", config.InsteadOfAllProxy)
	}
	if len(c.Traces) > 0 {
		log.Warn("OTEL_… variables are set, but tiwkeyd sends no traces: log, metrics, history and status page have each rotation's id", "variables", strings.Join(c.Traces, ", "))
	}
}

// logger gives the log, into which libraries write, too.
func (p *program) logger(c *config.Config) *slog.Logger {
	log := logs.New(p.stderr, c.LogLevel, c.LogJSON)
	slog.SetDefault(log)
	return log
}

// start makes the parts of what the environment says now.
func (p *program) start() (*parts, error) {
	c, log, err := p.load()
	if err != nil {
		return nil, err
	}
	return p.open(c, log, false)
}

// open makes the parts of a configuration. Nothing is contacted yet. Parts that are only to look
// make no directory and renew no token.
func (p *program) open(c *config.Config, log *slog.Logger, lookOnly bool) (*parts, error) {
	ps := &parts{config: c, log: log, policy: c.Policy, schedule: c.Schedule}
	if p.adjust != nil {
		p.adjust(&ps.policy)
	}
	if p.events != nil {
		ps.events = append(ps.events, p.events)
	}
	var read tencent.SecretReader
	if c.FileStore == "" || c.VaultCredentials() {
		v, err := vault.New(vault.Options{Mount: c.VaultMount, Prefix: c.VaultPrefix, Login: c.Login, Log: log, LookOnly: lookOnly})
		if err != nil {
			return nil, &exitError{code: exitUsage, err: err}
		}
		ps.closers = append(ps.closers, v.Close)
		ps.store, ps.vault, ps.lister, read, ps.tokenExpiry = v, v, v, v.ReadSecret, v.TokenExpiry
	}
	if c.FileStore != "" {
		f := file.At(c.FileStore)
		if !lookOnly {
			var err error
			if f, err = file.Open(c.FileStore); err != nil {
				ps.close()
				return nil, &exitError{code: exitUsage, err: err}
			}
		}
		ps.store, ps.files, ps.lister = f, f, f
	}
	credentials, err := tencent.ParseCredentials(c.Credentials, c.Env, read)
	if err != nil {
		ps.close()
		return nil, &exitError{code: exitUsage, err: err}
	}
	api, err := tencent.New(tencent.Options{Endpoint: c.Endpoint, Region: c.Region, Rate: c.Rate, Credentials: credentials})
	if err != nil {
		ps.close()
		return nil, &exitError{code: exitUsage, err: err}
	}
	ps.api, ps.tencent, ps.secrets = api, api, credentials
	ps.closers = append(ps.closers, api.Close)
	return ps, nil
}

func (ps *parts) close() {
	for _, c := range ps.closers {
		c()
	}
}

// lookShare is the share of Tencent's limit that looks at settled targets may take: one in so many
// calls. The rest is for rotations, and for other replicas' looks.
const lookShare = 4

// engine makes the engine, or gives the one from before a reload these parts. An ownerless one leaves
// what it begins to others at once.
func (ps *parts) engine(ownerless bool) (*rotator.Engine, error) {
	policy := ps.policy
	if ownerless {
		policy.Owner, policy.Timing.Lease = "nobody", 0
	}
	o := rotator.Options{Store: ps.store, API: ps.api, Policy: policy, Due: ps.schedule.ByKeyring(ps.log), Gone: ps.gone, Log: ps.log,
		LookRate: ps.config.Rate / lookShare, StageRate: ps.config.Rate, Share: ps.tencent.Share,
		Events: func(ev rotator.Event) {
			for _, f := range ps.events {
				f(ev)
			}
			logEvent(ps.log, ev)
		}}
	if ps.before != nil {
		ps.before.Reconfigure(o, ps.same)
		return ps.before, nil
	}
	return rotator.New(o)
}

// logEvent tells of a step: of one that only looks, or begins, to who debugs.
func logEvent(log *slog.Logger, ev rotator.Event) {
	level, msg := slog.LevelDebug, string(ev.Step)
	switch {
	case ev.Kind == rotator.Error && !ev.Until.IsZero():
		return // the engine has logged what the store answered
	case ev.Kind == rotator.Error:
		level, msg = slog.LevelError, string(ev.Step)+" failed"
	case ev.Kind == rotator.Done && ev.Step != rotator.StepObserve:
		level, msg = slog.LevelInfo, string(ev.Step)+" done"
	case ev.Kind == rotator.Begin:
		msg = string(ev.Step) + " begins"
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("target", ev.Target.String()), slog.String("why", ev.Why), slog.Any("key", ev.Key)}
	if ev.Rotation != "" {
		attrs = append(attrs, slog.String("rotation", ev.Rotation), slog.String("reason", string(ev.Reason)))
	}
	if !ev.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", ev.Until))
	}
	if ev.Err != nil {
		attrs = append(attrs, slog.String("error", ev.Err.Error()))
		var api *rotator.APIError
		if errors.As(ev.Err, &api) {
			attrs = append(attrs, slog.String("code", api.Code), slog.String("request_id", api.RequestID))
		}
	}
	log.LogAttrs(context.Background(), level, msg, attrs...)
}

// places are the store and the Tencent that the engine deals with.
func (ps *parts) places() [5]string {
	return [...]string{ps.store.String(), ps.config.VaultMount, ps.config.VaultPrefix, ps.config.Endpoint, ps.config.Region}
}

// withParts runs a one-shot command.
func (p *program) withParts(ctx context.Context, run func(context.Context, *parts) error) error {
	ps, err := p.start()
	if err != nil {
		return err
	}
	defer ps.close()
	return run(ctx, ps)
}

// logIn reports a login that Vault refuses: it would every time, and nothing goes on with what it is for.
func (ps *parts) logIn(ctx context.Context) error {
	if ps.vault == nil {
		return nil
	}
	_, err := ps.vault.LookUpToken(ctx)
	if errors.Is(err, vault.ErrLoginRefused) || vault.Denied(err) {
		return &exitError{code: exitUsage, err: err}
	}
	return nil
}
