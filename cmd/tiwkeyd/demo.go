package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/connlimit"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
	"tiwkeyd/tencent"
	"tiwkeyd/tencent/tiwtest"
)

// The demo runs sixty times as fast as the real thing: a minute of Tencent's is a second.
const (
	demoSpeed       = 60
	demoPropagation = time.Second
	demoGrace       = 10 * time.Second
	demoEvery       = 3 * time.Second
	demoRate        = 200
)

var demoTarget = secrets.Target{SdkAppID: 1400000001, Service: secrets.WhiteboardPush}

// demoFaults come one for each rotation, over and over.
var demoFaults = []struct {
	api   string
	fault tiwtest.Fault
}{
	{},
	{"Set", tiwtest.ApplyThenDrop()},
	{"Set", tiwtest.Refuse("ResourceUnavailable.ServiceExpired")},
	{},
	{"Set", tiwtest.DropThenApply(700 * time.Millisecond)},
	{"Set", tiwtest.HTTPError()},
	{"Set", tiwtest.Refuse("UnauthorizedOperation.SdkAppId")},
	{"Describe", tiwtest.Garbage()},
	{"Set", tiwtest.Delay(500 * time.Millisecond)},
	{"Set", tiwtest.Refuse("InternalError")},
}

func (p *program) demoCommand() *cobra.Command {
	var rotations int
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch rotations under load on this machine: no account, no Vault, no network",
		Long: `demo runs a TIW server, a file store, a webhook receiver whose view of the secret is up to
a second old, 200 callbacks a second, and tiwkeyd itself, sixty times as fast as in real
life. It rotates every few seconds; most rotations meet a fault. Watch refused: it stays 0.

With --rotations N it ends after N rotations with the line rotations=N callbacks=M refused=R,
and exit status 1 if R is not 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rotations < 0 {
				return &exitError{code: exitUsage, err: errors.New("--rotations must not be negative")}
			}
			return p.demo(cmd.Context(), rotations)
		},
	}
	c.Flags().IntVar(&rotations, "rotations", 0, "end after so many rotations (0: run until interrupted)")
	return c
}

// demo is the whole world of the demo.
type demo struct {
	server   *tiwtest.Server
	receiver *tiwtest.Receiver
	sender   *tiwtest.Sender
	store    rotator.Store
	engine   *rotator.Engine
	began    time.Time
	limit    int
	stop     context.CancelFunc

	mu         sync.Mutex
	rotations  int
	rolledBack int
	fault      string
	news       []string
}

func (p *program) demo(ctx context.Context, rotations int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	dir, err := os.MkdirTemp("", "tiwkeyd-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d := &demo{began: time.Now(), limit: rotations, stop: stop}
	closeAll, err := d.build(dir)
	if err != nil {
		return err
	}
	defer closeAll()

	var group sync.WaitGroup
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() { d.receiver.Watch(sending, d.store, demoTarget) })
	group.Go(func() { d.sender.Run(sending, demoRate) })
	group.Go(func() { d.engine.Run(ctx, []secrets.Target{demoTarget}) })
	group.Go(func() { d.ask(ctx) })
	d.show(ctx, p)
	stopSending()
	group.Wait()

	c := d.sender.Counts()
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(p.stdout, "rotations=%d callbacks=%d refused=%d\n", d.rotations, c.Sent, c.Refused+c.Failed)
	if c.Refused+c.Failed > 0 {
		return fmt.Errorf("%d callbacks were refused: %+v", c.Refused+c.Failed, c.Refusals)
	}
	return nil
}

// scaled gives the same proportions n times as fast.
func scaled(t rotator.Timing, n int64) rotator.Timing {
	for _, d := range []*time.Duration{&t.PushDeadline, &t.Skew, &t.RollbackKeep, &t.Lease,
		&t.RetryMin, &t.RetryMax, &t.RefusedMin, &t.RefusedMax} {
		*d /= time.Duration(n)
	}
	return t
}

// build makes the parts, none of which needs more than this machine.
func (d *demo) build(dir string) (closeAll func(), err error) {
	timing := scaled(rotator.StandardTiming(), demoSpeed)
	if d.server, err = tiwtest.Start(tiwtest.Options{SignatureLife: 5 * time.Minute / demoSpeed}); err != nil {
		return nil, err
	}
	const secretID, secretKey = "AKIDdemo", "demo-secret-key"
	d.server.AddCredential(secretID, secretKey, "")
	d.server.AddApp(demoTarget.SdkAppID)
	first, err := secrets.GenerateKey(nil, secrets.DefaultKeyLength)
	if err != nil {
		return nil, err
	}
	d.server.SetKey(demoTarget.SdkAppID, string(demoTarget.Service), first.Reveal())
	if d.store, err = file.Open(filepath.Join(dir, "keyrings")); err != nil {
		return nil, err
	}
	api, err := tencent.New(tencent.Options{Endpoint: d.server.URL, Credentials: tencent.Static(tencent.NewCredential(secretID, secretKey, ""))})
	if err != nil {
		return nil, err
	}
	d.receiver = tiwtest.NewReceiver(demoPropagation, 20*time.Millisecond)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	limit := connlimit.New("demo", connlimit.Callbacks(connlimit.Files(quiet)), 0)
	web := limit.Server(d.receiver, quiet)
	go func() { _ = web.Serve(limit.Listener(listener, quiet)) }()
	d.sender = tiwtest.NewSender(d.server, "http://"+listener.Addr().String(), tiwtest.Source{App: demoTarget.SdkAppID, Service: string(demoTarget.Service)})
	d.engine, err = rotator.New(rotator.Options{Store: d.store, API: api, Events: d.event,
		Due: func(_ secrets.Target, _ *rotator.Keyring, rotatedAt time.Time) time.Time {
			return rotatedAt.Add(demoEvery)
		},
		Policy: rotator.Policy{Propagation: demoPropagation, Grace: demoGrace, AttemptLimit: time.Hour / demoSpeed, Reconcile: 2 * time.Second,
			KeyLength: secrets.DefaultKeyLength, OnDrift: rotator.Reassert, Timing: timing}})
	if err != nil {
		return nil, err
	}
	return func() {
		_ = web.Close()
		api.Close()
		d.server.Close()
	}, nil
}

// ask makes up for a rotation that was rolled back: in real life the next attempt waits.
func (d *demo) ask(ctx context.Context) {
	tick := time.NewTicker(demoEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s, err := d.store.Read(ctx, demoTarget); err == nil && s.Keyring != nil && s.Keyring.Rotation != nil && s.Keyring.Pending() == nil {
				d.engine.Ask(rotator.BySignal, demoTarget)
			}
		}
	}
}

// event counts, plans the next fault, and keeps the news.
func (d *demo) event(ev rotator.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ev.Kind == rotator.Done {
		switch ev.Step {
		case rotator.StepStage:
			f := demoFaults[(d.rotations+d.rolledBack)%len(demoFaults)]
			d.fault = "none this time"
			if f.api != "" {
				d.server.Plan(f.api, 0, f.fault)
				d.fault = f.fault.String()
			}
		case rotator.StepCommit:
			d.rotations++
			if d.rotations == d.limit {
				d.stop()
			}
		case rotator.StepRollback:
			d.rolledBack++
		}
	}
	if text, _ := narrate(ev); text != "" && ev.Kind != rotator.Idle {
		if len(text) > 100 {
			text = text[:100] + "…"
		}
		d.news = append(d.news, ev.Time.Format("15:04:05.000")+"  "+text)
		d.news = d.news[max(0, len(d.news)-10):]
	}
}

// state takes a picture.
func (d *demo) state(ctx context.Context) demoState {
	s, _ := d.store.Read(ctx, demoTarget)
	c := d.sender.Counts()
	d.mu.Lock()
	defer d.mu.Unlock()
	st := demoState{elapsed: time.Since(d.began), keyring: s.Keyring, verified: d.receiver.Verified(), callbacks: c.Sent, refused: c.Refused + c.Failed,
		rate: demoRate, rotations: d.rotations, rolledBack: d.rolledBack, fault: d.fault, news: append([]string(nil), d.news...), now: time.Now()}
	st.signing = secrets.NewKey("not ours", d.server.KeyInForce(demoTarget.SdkAppID, string(demoTarget.Service)))
	if s.Keyring != nil {
		if e := s.Keyring.Lookup(st.signing); e != nil {
			st.signing = e.Key
		}
	}
	return st
}

// show draws until ctx ends: a screen for a terminal, news and now and then a line for a pipe.
func (d *demo) show(ctx context.Context, p *program) {
	live := isTerminal(p.stdout)
	every := time.Second
	if live {
		every = 100 * time.Millisecond
		fmt.Fprint(p.stdout, "\x1b[?25l\x1b[2J")
		defer fmt.Fprint(p.stdout, "\x1b[?25h")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if live {
				d.state(context.WithoutCancel(ctx)).draw(p.stdout)
			} else {
				fmt.Fprintln(p.stdout, d.state(context.WithoutCancel(ctx)).plain())
			}
		}
	}
}
