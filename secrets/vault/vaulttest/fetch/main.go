// Command fetch makes sure that there is a Vault for the tests, and builds one if not.
//
//	fetch           the server that most tests need
//	fetch -full     the whole program, for the tests that need its command line or its agent
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"tiwkeyd/secrets/vault/vaulttest"
)

const modulePath = "github.com/hashicorp/vault"

func main() {
	full := flag.Bool("full", false, "the whole program, not the server alone")
	flag.Parse()
	program := vaulttest.ServerOnly
	if *full {
		program = vaulttest.Full
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, program); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program vaulttest.Program) error {
	dir, err := output(ctx, ".", "list", "-f", "{{.Dir}}", "tiwkeyd/secrets/vault/vaulttest")
	if err != nil {
		return err
	}
	b := builder{program: program, source: filepath.Join(dir, "server")}
	if b.target, err = program.Path(); err != nil {
		return err
	}
	if b.sum, err = b.sources(); err != nil {
		return err
	}
	if b.ready() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(b.target), 0o755); err != nil {
		return err
	}
	lock := flock.New(b.target + ".lock")
	if free, err := lock.TryLock(); err == nil && !free {
		fmt.Println("Waiting for another build of Vault …")
	}
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer func() { _ = lock.Unlock() }()
	if b.ready() {
		return nil
	}
	return b.build(ctx)
}

// builder makes one program from the module beside package vaulttest.
type builder struct {
	program        vaulttest.Program
	source, target string
	sum            string // of the source
}

// ready reports whether there is a program that is not older than its source.
func (b builder) ready() bool {
	path, err := b.program.Find()
	if err != nil {
		return false
	}
	if built, err := os.ReadFile(b.target + ".sum"); path == b.target && (err != nil || string(built) != b.sum) {
		return false
	}
	fmt.Println("Vault for the tests:", path)
	return true
}

// sources sums up what the program is built from: the versions of all modules and, for the
// server, its own code.
func (b builder) sources() (string, error) {
	files, err := os.ReadDir(b.source)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".go") && b.program.Package != "." {
			continue
		}
		text, err := os.ReadFile(filepath.Join(b.source, f.Name()))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n%s", f.Name(), len(text), text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// build makes the program under another name first, so that half of one is never used.
func (b builder) build(ctx context.Context) error {
	version, err := output(ctx, b.source, "list", "-m", "-f", "{{.Version}}", modulePath)
	if err != nil {
		return err
	}
	if version != "v"+vaulttest.Version {
		return fmt.Errorf("the module in %s names Vault %s, but the tests want v%s", b.source, version, vaulttest.Version)
	}
	fmt.Printf("Building Vault %s for the tests from its Go module. This takes about %s on two cores, once …\n", version, b.program.Takes)
	began := time.Now()
	done := make(chan struct{})
	defer close(done)
	go report(done, began)
	cmd := command(ctx, b.source, "build", "-trimpath", "-ldflags=-s -w", "-o", b.target+".new", b.program.Package)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build Vault: %w", err)
	}
	if err := os.Rename(b.target+".new", b.target); err != nil {
		return err
	}
	if err := os.WriteFile(b.target+".sum", []byte(b.sum), 0o644); err != nil {
		return err
	}
	fmt.Printf("Built in %s: %s\n", time.Since(began).Round(time.Second), b.target)
	return nil
}

// report shows that the build goes on.
func report(done <-chan struct{}, began time.Time) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Printf("  … still building, %s so far\n", time.Since(began).Round(time.Second))
		case <-done:
			return
		}
	}
}

func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := command(ctx, dir, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	return cmd
}
