package page

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// below puts a proxy with TLS before the page, which has it under a path and takes that path away.
func (r *rig) below(path string) {
	r.t.Helper()
	daemon, err := url.Parse(r.web.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(daemon) }}
	front := httptest.NewTLSServer(http.StripPrefix(path, proxy))
	r.t.Cleanup(front.Close)
	r.secure = true
	r.client.Transport = front.Client().Transport
	r.web.URL = front.URL + path
}

var (
	addresses = regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	hidden    = regexp.MustCompile(`name="back" value="([^"]*)"`)
)

// TestBelowAPath walks over every link, form and redirect of a page behind such a proxy: none leads out of the path, all
// lead to something, and what else there is under the proxy's name gets no cookie of ours.
func TestBelowAPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/tiw", "/ops/tiw"} {
		r := newRig(t)
		r.below(path)
		at := func(page, link string) string { // as a browser has it
			base, err := url.Parse(r.web.URL + page)
			if err != nil {
				t.Fatal(err)
			}
			u, err := base.Parse(html.UnescapeString(link))
			if err != nil {
				t.Fatal(err)
			}
			inside, ok := strings.CutPrefix(u.String(), r.web.URL+"/")
			if !ok {
				t.Fatalf("%q on %s%s leads to %s", link, path, page, u)
			}
			return "/" + inside
		}
		walk := func(start ...string) map[string]bool {
			seen := map[string]bool{}
			for len(start) > 0 {
				page := start[0]
				start = start[1:]
				if seen[page] {
					continue
				}
				seen[page] = true
				resp, body := r.send("GET", page, nil)
				if resp.StatusCode != http.StatusOK && !strings.HasPrefix(page, "/nowhere/at/all") {
					t.Errorf("%s%s: %s", path, page, resp.Status)
				}
				for _, m := range addresses.FindAllStringSubmatch(body, -1) {
					to := at(page, m[1])
					if to != "/logout" && to != "/rotate" && (page == "/" || !strings.Contains(to, "?")) { // one query of a kind is enough
						start = append(start, to)
					}
				}
			}
			return seen
		}
		const target = "/target/1400000001/whiteboard-push"
		if seen := walk("/", "/nowhere/at/all"); !seen[target] || !seen["/?state=wrong"] || !seen["/login?back=%2f"] {
			t.Errorf("a link is missing: %v", seen)
		}
		// In from a target, and back to it.
		login := at(target, regexp.MustCompile(`"([^"]*/login[^"]*)"`).FindStringSubmatch(r.get(target))[1])
		resp, _ := r.send("POST", "/login", url.Values{"token": {token}, "back": {html.UnescapeString(hidden.FindStringSubmatch(r.get(login))[1])}})
		if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != path+target {
			t.Errorf("the login leads to %q: %s", resp.Header.Get("Location"), resp.Status)
		}
		csrf := r.csrf()
		if csrf == "" {
			t.Fatalf("below %q nobody stays logged in: %v", path, resp.Header["Set-Cookie"])
		}
		walk("/")
		front, _ := url.Parse(r.web.URL)
		for page, want := range map[string]int{path + "/": 1, path + "/target/1/x": 1, "/tiwother": 0, "/": 0} {
			if path == "" {
				want = 1
			}
			if n := len(r.client.Jar.Cookies(front.ResolveReference(&url.URL{Path: page}))); n != want {
				t.Errorf("below %q, %s gets %d cookies", path, page, n)
			}
		}
		if resp, _ := r.send("POST", at(target, "../../rotate"), rotateForm(csrf)); resp.Header.Get("Location") != path+target || r.demands() != 1 {
			t.Errorf("the button leads to %q, %d demands", resp.Header.Get("Location"), r.demands())
		}
		if resp, _ := r.send("POST", "/logout", url.Values{"csrf": {csrf}, "back": {target}}); resp.Header.Get("Location") != path+target || r.csrf() != "" {
			t.Errorf("the logout leads to %q", resp.Header.Get("Location"))
		}
	}
}
