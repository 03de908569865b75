package main

import (
	"strings"
	"sync"
	"testing"
)

// TestNoPasswordIsQuoted: whatever variable holds a URL with a password, and whatever is wrong with it, every command
// refuses it, names it, and does not quote it.
func TestNoPasswordIsQuoted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const canary = "CANARYpw"
	r.secret(canary)
	commands := map[string][]string{"run": {"run"}, "rotate": {"rotate", testTarget.String()}, "check": {"check"}, "check as JSON": {"check", "--json"}, "status": {"status"},
		"proxy": {"proxy", "--listen", "127.0.0.1:0", "--metrics", "", "--upstream", "http://127.0.0.1:1"}}
	var group sync.WaitGroup
	turns := make(chan struct{}, 8)
	for name, args := range commands {
		for _, c := range []struct{ set, want string }{
			{"HTTPS_PROXY=http://user:" + canary + "%zz@proxy:3128", "HTTPS_PROXY is not a URL of the form http://HOST:PORT"},
			{"http_proxy=http://user:" + canary + "\n@proxy:3128", "http_proxy is not a URL of the form http://HOST:PORT"},
			{"VAULT_PROXY_ADDR=http://user:" + canary + "%zz@proxy:3128", "VAULT_PROXY_ADDR is not a URL of the form http://HOST:PORT"},
			{"VAULT_HTTP_PROXY=user:" + canary + "@proxy:3128", "VAULT_HTTP_PROXY is not a URL of the form http://HOST:PORT"},
			{"VAULT_ADDR=https://user:" + canary + "%zz@vault:8200", "VAULT_ADDR"},
			{"VAULT_CLIENT_TIMEOUT=1m", "VAULT_CLIENT_TIMEOUT must be 1s to 10s"},
			{"VAULT_CLIENT_TIMEOUT=0", "VAULT_CLIENT_TIMEOUT must be 1s to 10s"},
			{"VAULT_CLIENT_TIMEOUT=soon", "VAULT_CLIENT_TIMEOUT"},
			{"VAULT_MAX_RETRIES=few", "VAULT_MAX_RETRIES"},
			{"VAULT_RATE_LIMIT=few", "VAULT_RATE_LIMIT"},
			{"VAULT_SRV_LOOKUP=often", "VAULT_SRV_LOOKUP"},
		} {
			group.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				out, code := r.ended(args, "TIWKEYD_STORE=vault", "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=a-token", c.set)
				if code != exitUsage || !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(out, "\n", " "), "  ", " "), c.want) || strings.Contains(out, canary) {
					t.Errorf("%s with %.20s: %d, want %q\n%s", name, c.set, code, c.want, out)
				}
			})
		}
	}
	const flag = "CANARY in a flag" // which the command line shows anyway
	for _, args := range [][]string{{"proxy", "--upstream", "http://user:" + flag + "%zz@127.0.0.1:1"}, {"proxy", "--upstream", "http://127.0.0.1:1", "--listen", "http://user:" + flag + "@h:1"},
		{"health", "--address", "http://user:" + flag + "@h:1"}} {
		if out, code := r.ended(args); code != exitUsage || strings.Contains(out, flag) {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
	group.Wait()
}
