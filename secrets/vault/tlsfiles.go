package vault

import (
	"fmt"

	"tiwkeyd/internal/bounded"
	"tiwkeyd/internal/private"
)

// maxPEM is the largest file that is read for a private key.
const maxPEM = 1 << 20

// checkFiles looks at the files for TLS before the library reads them: of what is wrong with them it says little, and
// whose a private key is it does not ask.
func checkFiles(env func(string) string) error {
	for _, name := range []string{"VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"} {
		path := env(name)
		if path == "" {
			continue
		}
		err := bounded.Unmarked(path)
		if err == nil && name == "VAULT_CLIENT_KEY" {
			_, err = private.ReadFile(path, maxPEM)
		}
		if err != nil {
			return fmt.Errorf("vault: %s: %w", name, err)
		}
	}
	return nil
}
