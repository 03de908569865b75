package vault

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/proxyenv"
)

// checkEnvironment reports what the library, too, would find wrong, but without naming the variable, or
// with a password in the text.
func checkEnvironment() error {
	for _, name := range []string{api.EnvVaultProxyAddr, api.EnvHTTPProxy} {
		if v := os.Getenv(name); v != "" {
			if err := proxyenv.CheckURL(v); err != nil {
				return fmt.Errorf("vault: %s %w", name, err)
			}
		}
	}
	if v := os.Getenv(api.EnvVaultMaxRetries); v != "" {
		if _, err := strconv.ParseUint(v, 10, 32); err != nil {
			return fmt.Errorf("vault: %s %q is not a whole number", api.EnvVaultMaxRetries, v)
		}
	}
	return nil
}

// limit sets how long a request may take with all its tries: as VAULT_CLIENT_TIMEOUT says, which may be less.
func limit(cfg *api.Config) error {
	if os.Getenv(api.EnvVaultClientTimeout) == "" {
		cfg.Timeout = callTimeout
	}
	if cfg.Timeout < time.Second || cfg.Timeout > callTimeout {
		return fmt.Errorf("vault: %s must be 1s to %s: what waits for Vault has no more time; unset it for %[2]s", api.EnvVaultClientTimeout, callTimeout)
	}
	return nil
}
