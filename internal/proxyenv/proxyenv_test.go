package proxyenv

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for value, good := range map[string]bool{
		"": true, "http://proxy:3128": true, "https://proxy": true, "socks5://127.0.0.1:1080": true, "socks5h://proxy:1": true, "proxy:3128": true, "proxy": true,
		"10.0.0.1:8080": true, "[::1]:3128": true, "http://user:CANARY%25pw@proxy:3128": true, "user:CANARY@proxy:3128": true,
		"http://user:CANARY%zz@proxy:3128": false, "user:CANARY%zz@proxy:3128": false, "http://user:CANARY/pw@proxy:3128": false, "http://user:CANARY pw@proxy": false,
		"http://proxy:99999": false, "http://proxy:3128\n": false, "http://": false, "ftp://proxy:21": false, "http://proxy:http": false, "http://:3128": false,
	} {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
			errs := Check(func(n string) string { return map[string]string{name: value}[n] })
			switch {
			case good && len(errs) > 0:
				t.Errorf("%s=%q: %v", name, value, errs)
			case !good && (len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), name+" is not a URL") || strings.Contains(errs[0].Error(), "CANARY")):
				t.Errorf("%s=%q: %v", name, value, errs)
			}
		}
	}
	// The library looks at the lower-case name only where the other one is empty.
	both := map[string]string{"HTTPS_PROXY": "http://proxy:3128", "https_proxy": "http://proxy:99999"}
	if errs := Check(func(n string) string { return both[n] }); len(errs) > 0 {
		t.Error(errs)
	}
}
