package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestNames: whatever daemon and proxy serve over a loopback address but callbacks, they serve under
// no name that a stranger's web page can have (DNS rebinding).
func TestNames(t *testing.T) {
	slow(t)
	t.Parallel()
	const token = "CANARY-token-of-the-page-by-its-name"
	r := newRig(t)
	r.secret(token)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon("TIWKEYD_HTTP_ADDR=127.0.0.1:0", "TIWKEYD_HTTP_TOKEN="+token, "TIWKEYD_HTTP_URL=https://keys.example")
	daemon := "http://" + r.pages().at(d)
	proxy := r.proxy(r.standing(nil), nil).metrics
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, url, host string, form url.Values) *http.Response {
		req, err := http.NewRequest(method, url, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	for _, c := range []struct {
		at    string
		paths []string
		names []string
	}{
		{daemon, []string{"/", "/login", "/target/" + testTarget.String(), "/static/x/page.css", "/metrics", "/healthz", "/readyz", "/nothing"}, []string{"", "localhost", "10.1.2.3:9469", "keys.example"}},
		{proxy, []string{"/metrics", "/healthz", "/readyz", "/nothing"}, []string{"", "localhost", "10.1.2.3:9470"}},
	} {
		for _, path := range c.paths {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				if resp := ask(method, c.at+path, "evil.example", nil); resp.StatusCode != http.StatusMisdirectedRequest {
					t.Errorf("%s %s%s under a stranger's name: %s", method, c.at, path, resp.Status)
				}
			}
			for _, name := range c.names {
				if resp := ask("GET", c.at+path, name, nil); resp.StatusCode == http.StatusMisdirectedRequest {
					t.Errorf("%s%s under the name %q: %s", c.at, path, name, resp.Status)
				}
			}
		}
	}
	resp := ask("POST", daemon+"/login", "keys.example", url.Values{"token": {token}})
	if c := resp.Cookies(); len(c) != 1 || !c[0].Secure || resp.StatusCode != http.StatusSeeOther {
		t.Errorf("the login behind TLS: %s, %v", resp.Status, resp.Header["Set-Cookie"])
	}
}
