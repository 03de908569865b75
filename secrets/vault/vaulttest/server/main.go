// Command server is a Vault for tests: Vault's own core, HTTP API and storage, from its
// module, with the few engines that the tests use. It builds in a third of the time that
// the whole program takes, because cloud storage, database plugins and the command line
// stay out.
//
//	server server -config FILE   serve, until SIGTERM
//	server version               "Vault v…", as the real program says it
//
// It differs from `vault server` in its start alone:
//   - engines: kv, token, AppRole and Kubernetes, besides those that the core brings
//     (system, identity, cubbyhole); storage: file, raft and inmem; seal: Shamir.
//   - no reload on SIGHUP, telemetry, service registration, audit device or plugin directory;
//     the environment is not read.
//   - it logs from the first line on, and prints no banner.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault for tests:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	config := flags.String("config", "", "the `file` with the configuration")
	switch {
	case len(args) == 1 && args[0] == "version":
		fmt.Println(version.GetVersion().FullVersionNumber(true))
		return nil
	case len(args) > 1 && args[0] == "server" && flags.Parse(args[1:]) == nil && *config != "":
		return serve(*config)
	}
	return errors.New("usage: server -config FILE | version; for the command line or the agent, run `make vault-full`")
}

var storages = map[string]physical.Factory{"file": file.NewFileBackend, "raft": raft.NewRaftBackend, "inmem": inmem.NewInmem}

// serve runs a server until it is told to end. Its steps are those of Vault's own
// command/server.go, in the same order.
func serve(path string) error {
	config, err := server.LoadConfigFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if config.Storage == nil || storages[config.Storage.Type] == nil {
		return fmt.Errorf("%s: the storage must be file, raft or inmem", path)
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	backend, err := storages[config.Storage.Type](config.Storage.Config, logger.Named("storage."+config.Storage.Type))
	if err != nil {
		return fmt.Errorf("open the storage: %w", err)
	}
	settings := &vault.CoreConfig{
		RawConfig: config, Physical: backend, StorageType: config.Storage.Type, Logger: logger, LogLevel: config.LogLevel,
		RedirectAddr: config.APIAddr, DisableMlock: config.DisableMlock, DisableCache: config.DisableCache, BuiltinRegistry: builtins,
		DefaultLeaseTTL: config.DefaultLeaseTTL, MaxLeaseTTL: config.MaxLeaseTTL,
		LogicalBackends:    map[string]logical.Factory{"plugin": plugin.Factory, "kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{"plugin": plugin.Factory},
	}
	if ha, ok := backend.(physical.HABackend); ok && ha.HAEnabled() {
		settings.HAPhysical = ha
		if settings.ClusterAddr, err = asTLS(config.ClusterAddr); err != nil {
			return fmt.Errorf("cluster_addr: %w", err)
		}
	}
	core, err := vault.NewCore(settings)
	if err != nil {
		return fmt.Errorf("make the core: %w", err)
	}
	return listen(core, config, logger)
}

// asTLS gives a cluster address as Vault wants it: nodes speak TLS among themselves, whatever
// the configuration says.
func asTLS(address string) (string, error) {
	u, err := url.ParseRequestURI(address)
	if err != nil {
		return "", err
	}
	u.Scheme = "https"
	return u.String(), nil
}

func listen(core *vault.Core, config *server.Config, logger hclog.Logger) error {
	var cluster []*net.TCPAddr
	var listeners []net.Listener
	for _, l := range config.Listeners {
		ln, _, _, err := server.NewListener(l, os.Stderr, nil)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, ln)
		if l.ClusterAddress == "" {
			continue
		}
		address, err := net.ResolveTCPAddr("tcp", l.ClusterAddress)
		if err != nil {
			return fmt.Errorf("cluster_address: %w", err)
		}
		cluster = append(cluster, address)
	}
	core.SetClusterListenerAddrs(cluster)
	core.SetClusterHandler(handler(core, &configutil.Listener{}))

	failed := make(chan error, len(listeners))
	for i, ln := range listeners {
		// The limits of time are those of `vault server`.
		s := &http.Server{Handler: handler(core, config.Listeners[i]), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
			IdleTimeout: 5 * time.Minute, ErrorLog: logger.StandardLogger(nil)}
		go func() { failed <- s.Serve(ln) }()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return core.Shutdown()
	}
}

// handler is Vault's HTTP API with the limits that `vault server` sets where the
// configuration has none.
func handler(core *vault.Core, l *configutil.Listener) http.Handler {
	if l.MaxRequestSize == 0 {
		l.MaxRequestSize = vaulthttp.DefaultMaxRequestSize
	}
	if l.MaxRequestDuration == 0 {
		l.MaxRequestDuration = vault.DefaultMaxRequestDuration
	}
	for limit, value := range map[*int64]int64{
		&l.CustomMaxJSONDepth: vaulthttp.CustomMaxJSONDepth, &l.CustomMaxJSONStringValueLength: vaulthttp.CustomMaxJSONStringValueLength,
		&l.CustomMaxJSONObjectEntryCount: vaulthttp.CustomMaxJSONObjectEntryCount, &l.CustomMaxJSONArrayElementCount: vaulthttp.CustomMaxJSONArrayElementCount,
	} {
		if *limit == 0 {
			*limit = value
		}
	}
	return vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: l})
}
