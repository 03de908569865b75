// Command fetch makes sure that there is a Vault for the tests, and builds one if not.
package main

import (
	"bytes"
	"context"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if path, err := vaulttest.Find(); err == nil {
		fmt.Println("Vault for the tests:", path)
		return nil
	}
	target, err := vaulttest.BuiltPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	lock := flock.New(target + ".lock")
	fmt.Println("Waiting for another build of Vault, if there is one …")
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer func() { _ = lock.Unlock() }()
	if path, err := vaulttest.Find(); err == nil {
		fmt.Println("Vault for the tests:", path)
		return nil
	}
	return build(ctx, target)
}

// build makes the program under another name first, so that half of one is never used.
func build(ctx context.Context, target string) error {
	dir, err := output(ctx, ".", "list", "-f", "{{.Dir}}", "tiwkeyd/secrets/vault/vaulttest")
	if err != nil {
		return err
	}
	server := filepath.Join(dir, "server")
	version, err := output(ctx, server, "list", "-m", "-f", "{{.Version}}", modulePath)
	if err != nil {
		return err
	}
	if version != "v"+vaulttest.Version {
		return fmt.Errorf("the module in %s names Vault %s, but the tests want v%s", server, version, vaulttest.Version)
	}
	fmt.Printf("Building Vault %s for the tests from its Go module. This takes about twelve minutes on two cores, once …\n", version)
	began := time.Now()
	done := make(chan struct{})
	defer close(done)
	go report(done, began)
	cmd := command(ctx, server, "build", "-trimpath", "-ldflags=-s -w", "-o", target+".new", modulePath)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build Vault: %w", err)
	}
	if err := os.Rename(target+".new", target); err != nil {
		return err
	}
	fmt.Printf("Built in %s: %s\n", time.Since(began).Round(time.Second), target)
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
