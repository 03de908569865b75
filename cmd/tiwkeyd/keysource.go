package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"tiwkeyd/internal/config"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/webhook"
	"tiwkeyd/webhook/vaultkeys"
)

// keyFileHelp documents --key-file for the commands that have it.
const keyFileHelp = "read the keys from a file, not from the store: a keyring's JSON as Vault Agent renders it, or one key a line; [TARGET=]PATH, may be repeated"

// loadReceiver reads the configuration of a command that verifies callbacks.
func (p *program) loadReceiver(needs config.Needs) (*config.Config, *slog.Logger, error) {
	c, err := config.LoadReceiver(os.Environ(), needs)
	if err != nil {
		return nil, nil, &exitError{code: exitUsage, err: err}
	}
	log := p.logger(c)
	tellUnused(log, c)
	return c, log, nil
}

// parseKeyFiles reads the values of --key-file. A path alone is for the only target there is.
func parseKeyFiles(values []string, targets []secrets.Target) (webhook.Files, error) {
	files := webhook.Files{}
	for _, v := range values {
		name, path, named := strings.Cut(v, "=")
		var t secrets.Target
		switch {
		case named:
			var err error
			if t, err = secrets.ParseTarget(name); err != nil {
				return nil, fmt.Errorf("--key-file: %w", err)
			}
		case len(targets) == 1:
			t, path = targets[0], v
		default:
			return nil, fmt.Errorf("--key-file %s: say which target it is for, as in 1400000001=%s", v, v)
		}
		if path == "" {
			return nil, errors.New("--key-file: the path is missing")
		}
		if _, twice := files[t]; twice {
			return nil, fmt.Errorf("--key-file: there are two for %s", t)
		}
		files[t] = path
	}
	return files, nil
}

// openKeys gives a reader of the keys in the store.
func openKeys(c *config.Config, log *slog.Logger) (reader webhook.Reader, closeStore func(), err error) {
	if c.FileStore != "" {
		return webhook.FileStore(c.FileStore), func() {}, nil
	}
	v, err := vault.New(vault.Options{Mount: c.VaultMount, Prefix: c.VaultPrefix, Login: c.Login, Log: log})
	if err != nil {
		return nil, nil, &exitError{code: exitUsage, err: err}
	}
	return vaultkeys.New(v), v.Close, nil
}
