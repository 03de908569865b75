package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tiwkeyd/internal/config"
	"tiwkeyd/internal/hostport"
)

// healthWait bounds the question: who asks has a timer of their own, and it is longer.
const healthWait = 5 * time.Second

// healthCommand is for images that have no shell and no curl to ask with.
func (p *program) healthCommand() *cobra.Command {
	var address string
	var ready bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask a daemon or proxy on this machine whether it is well",
		Long: `health asks /healthz (with --ready: /readyz) at TIWKEYD_HTTP_ADDR, prints the answer, and
exits 0 if it is good, 1 if it is not or none came, 2 if it does not know whom to ask. It is
made for HEALTHCHECK. Of a proxy name the address: that of its --metrics.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address == "" {
				var err error
				if address, err = config.HTTPAddr(os.Environ()); err != nil {
					return &exitError{code: exitUsage, err: err}
				}
			}
			if address == "" {
				return &exitError{code: exitUsage, err: errors.New("TIWKEYD_HTTP_ADDR is empty, so health is served nowhere: set it, or name the address with --address")}
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			return p.health(cmd.Context(), address, path)
		},
	}
	c.Flags().StringVar(&address, "address", "", "whom to ask, HOST:PORT (default TIWKEYD_HTTP_ADDR)")
	c.Flags().BoolVar(&ready, "ready", false, "ask /readyz: does it do its work, too")
	return c
}

// health asks for a page and prints its line.
func (p *program) health(ctx context.Context, address, path string) error {
	if err := hostport.Dial(address); err != nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("--address %w", err)}
	}
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // who listens everywhere listens here
	}
	url := "http://" + net.JoinHostPort(host, port) + path
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	client := &http.Client{Transport: &http.Transport{}} // no proxy from the environment: the daemon is near
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no answer: %w: is it running, and is this its TIWKEYD_HTTP_ADDR?", err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	line := strings.TrimSpace(string(body))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", url, answer.StatusCode, line)
	}
	_, err = fmt.Fprintln(p.stdout, line)
	return err
}
