// Command tiwkeyd replaces the callback keys of Tencent Interactive Whiteboard applications,
// so that no genuine callback is ever refused.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // CRON_TZ= works where there are no zone files, as in the image

	"github.com/spf13/cobra"

	"tiwkeyd/internal/alive"
	"tiwkeyd/internal/bounded"
	"tiwkeyd/internal/config"
	"tiwkeyd/internal/logs"
	"tiwkeyd/internal/printable"
	"tiwkeyd/rotator"
)

func main() {
	p := &program{stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.main(os.Args[1:]))
}

// maxAnswer is how much is read of an HTTP answer, or of a file, where nothing else is said.
const maxAnswer = 1 << 20

// program is the command line with what it is given from outside.
type program struct {
	stdout, stderr io.Writer
	envFile        *config.EnvFile
	lines          *logs.Queue // before stderr; nil: none

	hangups, demands chan os.Signal // SIGHUP and SIGUSR1, for `run`

	// What only tests set: other timing than Tencent's, an ear for the engine's events, when a
	// visit counts as stuck, and how many bytes of log lines may wait.
	adjust func(*rotator.Policy)
	events func(rotator.Event)
	stall  time.Duration
	room   int
}

// lastLines is how long the end waits for who reads the log. With stopLimit it is less than the ten
// seconds that whoever stops a daemon may wait.
const lastLines = time.Second

// main runs one command and gives the exit status.
func (p *program) main(args []string) int {
	p.hangups, p.demands = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(p.hangups, syscall.SIGHUP) // first of all: it ends whoever does not listen yet
	signal.Notify(p.demands, syscall.SIGUSR1)
	if err := keepOutOfCoreDumps(); err != nil {
		fmt.Fprintf(p.stderr, "tiwkeyd: core dumps, which would hold keys, could not be turned off: %v\n", err)
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok { // with which Tencent's library asks for credentials
		alive.Watch(t)
		http.DefaultTransport = bounded.Transport{Transport: t, Max: maxAnswer}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := p.rootCommand()
	root.SetArgs(args)
	status := p.exitStatus(root.ExecuteContext(ctx))
	if p.lines != nil {
		p.lines.Close(lastLines)
	}
	return status
}

// heedNoReader has a command that serves neither end nor wait when nobody reads what it prints, and
// one that changes things go on to its end. Others end as any do in a shell: `tiwkeyd status | head`.
func (p *program) heedNoReader(command string) {
	if command != "run" {
		p.unheard()
	}
	switch command {
	case "run", "proxy":
		p.lines = logs.NewQueue(p.stderr, p.room)
		p.stderr = p.lines
	case "rotate", "set", "enroll":
	default:
		return
	}
	signal.Ignore(syscall.SIGPIPE) // a write fails then, which is all that it has to do
}

// unheard has SIGHUP and SIGUSR1 do what they do to any other command, also those that have come already.
func (p *program) unheard() {
	signal.Reset(syscall.SIGHUP, syscall.SIGUSR1)
	for sig, came := range map[syscall.Signal]chan os.Signal{syscall.SIGHUP: p.hangups, syscall.SIGUSR1: p.demands} {
		if len(came) > 0 {
			_ = syscall.Kill(os.Getpid(), sig)
		}
	}
}

func (p *program) rootCommand() *cobra.Command {
	var envFile string
	root := &cobra.Command{
		Use:   "tiwkeyd",
		Short: "Rotate the callback keys of Tencent Interactive Whiteboard, and refuse no genuine callback",
		Long: `tiwkeyd replaces the callback keys of Tencent Interactive Whiteboard applications on a
schedule or on demand: it writes a new key to Vault for the webhook receivers, waits until
they accept it, sets it at Tencent, checks that it is in force, and retires the old one.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			p.heedNoReader(c.Name())
			slog.SetDefault(logs.New(p.stderr, slog.LevelInfo, os.Getenv("TIWKEYD_LOG_FORMAT") != "text")) // until all settings are known
			p.envFile = config.NewEnvFile(envFile)
			if _, err := p.envFile.Apply(); err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			return nil
		},
	}
	root.PersistentFlags().StringVar(&envFile, "env-file", "", "read variables from this file too, NAME=VALUE; the environment goes before it")
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{code: exitUsage, err: err} })
	root.AddCommand(p.runCommand(), p.rotateCommand(), p.statusCommand(), p.checkCommand(), p.proxyCommand(), p.verifyCommand(), p.demoCommand(), p.versionCommand())
	root.AddCommand(p.setCommand(), p.enrollCommand(), p.healthCommand(), p.manualCommand())
	return root
}

// Exit statuses.
const (
	exitInternal  = 1 // a fault of this program
	exitUsage     = 2 // wrong usage or configuration
	exitRefused   = 3 // refused by Tencent and rolled back
	exitUnsettled = 4 // a later run goes on with it
)

// exitError is an error with an exit status.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitStatus prints an error, each of several on a line of its own. Errors that are not ours
// come from the parser of the command line.
func (p *program) exitStatus(err error) int {
	if err == nil {
		return 0
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.stderr, "tiwkeyd: %s\n", printable.Text(strings.TrimRight(line, "\n")))
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if text := err.Error(); strings.HasPrefix(text, "unknown command") || strings.Contains(text, "arg(s)") {
		return exitUsage
	}
	return exitInternal
}
