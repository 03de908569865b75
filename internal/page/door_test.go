package page

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"tiwkeyd/internal/observe"
)

func rotateForm(csrf string) url.Values {
	return url.Values{"csrf": {csrf}, "target": {"1400000001/whiteboard-push"}}
}

// TestRotate: who has logged in can ask for a key, is told so once, and is logged with its address.
func TestRotate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	csrf := r.login()
	if body := r.get("/target/1400000001/whiteboard-push"); !strings.Contains(body, "Rotate now") || !strings.Contains(body, csrf) {
		t.Errorf("there is no button:\n%s", body)
	}
	resp, body := r.send("POST", "/rotate", rotateForm(csrf))
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/target/1400000001/whiteboard-push" {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	if len(r.asked) != 1 || r.asked[0].String() != "1400000001/whiteboard-push" || !r.logged(`"msg":"a new key was asked for on the status page","target":"1400000001/whiteboard-push","remote":"127.0.0.1:`) {
		t.Errorf("asked for %v; the log:\n%s", r.asked, r.log.String())
	}
	// Another tab that refreshes itself in between does not take the word away.
	if _, body := r.send("GET", "/", nil, func(req *http.Request) { req.Header.Set(refreshed, "1") }); strings.Contains(body, "A new key was asked for") {
		t.Error("another page is told")
	}
	if body := r.get("/target/1400000001/whiteboard-push"); !strings.Contains(body, "A new key was asked for") {
		t.Error("it is not told")
	}
	if body := r.get("/target/1400000001/whiteboard-push"); strings.Contains(body, "A new key was asked for") {
		t.Error("it is told twice")
	}
	for err, want := range map[error]int{ErrNotServed: http.StatusNotFound, errors.New("busy"): http.StatusServiceUnavailable} {
		r.mu.Lock()
		r.askErr = err
		r.mu.Unlock()
		if resp, body := r.send("POST", "/rotate", rotateForm(csrf)); resp.StatusCode != want || !strings.Contains(body, err.Error()) {
			t.Errorf("%v: %s, %s", err, resp.Status, body)
		}
	}
	if resp, _ := r.send("POST", "/rotate", url.Values{"csrf": {csrf}, "target": {"x"}}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("no target: %s", resp.Status)
	}
	if resp, _ := r.send("POST", "/logout", url.Values{"csrf": {csrf}, "back": {"/?q=1"}}); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/?q=1" {
		t.Errorf("log out: %s", resp.Status)
	}
	if resp, _ := r.send("POST", "/rotate", rotateForm(csrf)); resp.StatusCode != http.StatusForbidden || r.demands() != 1 {
		t.Errorf("after the logout: %s, %d demands", resp.Status, r.demands())
	}
}

// TestWaysAround are all that a stranger may try to have a key rotated.
func TestWaysAround(t *testing.T) {
	t.Parallel()
	set := func(pairs ...string) func(*http.Request) {
		return func(req *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				req.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	host := func(name string) func(*http.Request) { return func(req *http.Request) { req.Host = name } }
	for _, c := range []struct {
		what   string
		method string
		form   func(csrf string) url.Values
		change func(*http.Request)
		status int
	}{
		{"no session", "POST", rotateForm, set("Cookie", ""), http.StatusForbidden},
		{"a made-up session", "POST", rotateForm, set("Cookie", "tiwkeyd_session=AAAAAAAAAAAAAAAAAAAAAAAAAA"), http.StatusForbidden},
		{"no secret in the form", "POST", func(string) url.Values { return rotateForm("") }, set(), http.StatusForbidden},
		{"a wrong secret", "POST", func(c string) url.Values { return rotateForm(c[1:] + "A") }, set(), http.StatusForbidden},
		{"the token for the secret", "POST", func(string) url.Values { return rotateForm(token) }, set(), http.StatusForbidden},
		{"GET", "GET", rotateForm, set(), http.StatusNotFound},
		{"PUT", "PUT", rotateForm, set(), http.StatusMethodNotAllowed},
		{"a form of another site", "POST", rotateForm, set("Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"), http.StatusForbidden},
		{"one of another port of this host", "POST", rotateForm, set("Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"), http.StatusForbidden},
		{"an old browser's, of another origin", "POST", rotateForm, set("Origin", "http://evil.example"), http.StatusForbidden},
		{"of no origin at all", "POST", rotateForm, set("Origin", "null"), http.StatusForbidden},
		{"a foreign name for this machine", "POST", rotateForm, host("evil.example"), http.StatusMisdirectedRequest},
		{"the same with a port", "POST", rotateForm, host("evil.example:9469"), http.StatusMisdirectedRequest},
		{"a name that looks like an address", "POST", rotateForm, host("127.0.0.1.evil.example"), http.StatusMisdirectedRequest},
		{"a form that is too long", "POST", func(c string) url.Values {
			return url.Values{"csrf": {c}, "target": {"1400000001" + strings.Repeat(" ", maxForm)}}
		}, set(), http.StatusForbidden},
		{"another kind of form", "POST", rotateForm, set("Content-Type", "text/plain"), http.StatusForbidden},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t)
			csrf := r.login()
			change := func(req *http.Request) {
				c.change(req)
				if req.Header.Get("Cookie") == "" && req.Header["Cookie"] != nil {
					req.Header.Del("Cookie")
				}
			}
			if strings.Contains(c.what, "session") {
				r.client.Jar = nil
			}
			resp, body := r.send(c.method, "/rotate", c.form(csrf), change)
			if resp.StatusCode != c.status || r.demands() != 0 {
				t.Errorf("%s, %d demands: %s", resp.Status, r.demands(), body)
			}
		})
	}
	t.Run("the secret of another session", func(t *testing.T) {
		r := newRig(t)
		csrf := r.login()
		if r.login() == csrf {
			t.Error("two sessions have the same secret")
		}
		if resp, _ := r.send("POST", "/rotate", rotateForm(csrf)); resp.StatusCode != http.StatusForbidden || r.demands() != 0 {
			t.Error(resp.Status)
		}
	})
	t.Run("names of this machine", func(t *testing.T) {
		r := newRig(t)
		resp, _ := r.send("POST", "/login", url.Values{"token": {token}})
		csrf, cookie := r.csrf(), resp.Cookies()[0]
		r.client.Jar = nil // it would keep the cookie from another name
		with := func(req *http.Request) { req.AddCookie(cookie) }
		_, port, _ := strings.Cut(strings.TrimPrefix(r.web.URL, "http://"), ":")
		for n, name := range []string{"localhost", "LOCALHOST:" + port, "[::1]:" + port, "127.0.0.1", "127.8.9.1:1"} {
			if resp, _ := r.send("POST", "/rotate", rotateForm(csrf), host(name), with); resp.StatusCode != http.StatusSeeOther || r.demands() != n+1 {
				t.Errorf("%s: %s", name, resp.Status)
			}
		}
		if resp, _ := r.send("GET", "/", nil, host("evil.example")); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("a foreign name may look: %s", resp.Status)
		}
	})
	t.Run("an address that is not the loopback's", func(t *testing.T) {
		// There the name may be any: there is no local address in such a request.
		w := httptest.NewRecorder()
		New(Options{Look: func() observe.Report { return observe.Report{} }}).ServeHTTP(w, httptest.NewRequest("GET", "http://status.example/", nil))
		if w.Code != http.StatusOK {
			t.Error(w.Code)
		}
	})
}

// TestSessions end: with time, with another token, and where there are too many.
func TestSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	resp, _ := r.send("POST", "/login", url.Values{"token": {token}})
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "" || c.MaxAge != 8*3600 || c.Value == token || len(c.Value) < 26 || !strings.HasPrefix(c.Name, "tiwkeyd_session_") {
		t.Errorf("the cookie: %v", c)
	}
	if c, ok := newDoor(func() string { return "" }, func() bool { return false }, time.Now).open(httptest.NewRequest("POST", "/login", nil), ""); ok {
		t.Errorf("where there is no token, none opens: %v", c)
	}
	csrf := r.csrf()
	r.later(sessionSpan - time.Second)
	if r.csrf() != csrf {
		t.Error("it ended early")
	}
	r.later(time.Second)
	if resp, _ := r.send("POST", "/rotate", rotateForm(csrf)); resp.StatusCode != http.StatusForbidden || r.csrf() != "" {
		t.Errorf("it did not end: %s", resp.Status)
	}
	csrf = r.login()
	r.mu.Lock()
	r.token = token + "-the-next"
	r.mu.Unlock()
	if resp, _ := r.send("POST", "/rotate", rotateForm(csrf)); resp.StatusCode != http.StatusForbidden || r.csrf() != "" {
		t.Errorf("it did not end with its token: %s", resp.Status)
	}
	if resp, _ := r.send("POST", "/login", url.Values{"token": {token}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("the old token: %s", resp.Status)
	}
	// Too many: the oldest goes.
	now := time.Unix(0, 0)
	d := newDoor(func() string { return token }, func() bool { return false }, func() time.Time { return now })
	req := func(c *http.Cookie) *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(c)
		return r
	}
	var all []*http.Cookie
	for range maxSessions + 1 {
		now = now.Add(time.Second)
		c, ok := d.open(httptest.NewRequest("POST", "/login", nil), token)
		if !ok {
			t.Fatal("no session")
		}
		all = append(all, c)
	}
	for i, c := range all {
		if _, _, in := d.enter(req(c)); in != (i > 0) || len(d.sessions) != maxSessions {
			t.Errorf("session %d of %d: %v", i, len(d.sessions), in)
		}
	}
	now = now.Add(sessionSpan)
	if _, ok := d.open(httptest.NewRequest("POST", "/login", nil), token); !ok || len(d.sessions) != 1 {
		t.Errorf("%d sessions are kept that have ended", len(d.sessions))
	}
}

// TestSecure: where people come by TLS, the browser sends the cookie over nothing else. A session is
// found again when that changes.
func TestSecure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	session := func(secure bool) (*http.Cookie, string) {
		r.mu.Lock()
		r.secure = secure
		r.mu.Unlock()
		resp, _ := r.send("POST", "/login", url.Values{"token": {token}})
		c := resp.Cookies()[0]
		if c.Secure != secure {
			t.Errorf("where people come by TLS is %v: %v", secure, c.Secure)
		}
		_, body := r.send("GET", "/", nil, func(req *http.Request) { req.AddCookie(c) })
		return c, secretField.FindStringSubmatch(body)[1]
	}
	r.client.Jar = nil // it would not send a secure one to the test's server
	for _, secure := range []bool{false, true} {
		c, csrf := session(secure)
		r.mu.Lock()
		r.secure = !secure
		r.mu.Unlock()
		if resp, _ := r.send("POST", "/rotate", rotateForm(csrf), func(req *http.Request) { req.AddCookie(c) }); resp.StatusCode != http.StatusSeeOther {
			t.Errorf("one that was opened where it is %v is not found: %s", secure, resp.Status)
		}
	}
}

// TestLooks: what shows no target costs no look at all of them, whoever asks for it, and however often.
func TestLooks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	csrf := r.login()
	cross := func(req *http.Request) { req.Header.Set("Sec-Fetch-Site", "cross-site") }
	none := func(*http.Request) {}
	for _, c := range []struct {
		method, path string
		form         url.Values
		change       func(*http.Request)
		status, most int
	}{
		{"GET", "/", nil, none, 200, 1},
		{"HEAD", "/?q=1", nil, none, 200, 1},
		{"GET", "/target/1400000001/whiteboard-push", nil, none, 200, 1},
		{"GET", "/target/999/whiteboard-push", nil, none, 404, 0},
		{"GET", "/target/x/whiteboard-push", nil, none, 404, 0},
		{"HEAD", "/target/999/whiteboard-push", nil, none, 404, 0},
		{"GET", "/wp-login.php", nil, none, 404, 0},
		{"GET", "/target/", nil, none, 404, 0},
		{"GET", "/login", nil, none, 200, 0},
		{"POST", "/login", url.Values{"token": {"wrong"}}, none, 403, 0},
		{"POST", "/login", url.Values{"token": {token}}, none, 303, 0},
		{"POST", "/login", url.Values{"token": {token}}, cross, 403, 0},
		{"POST", "/login", url.Values{"token": {strings.Repeat("x", 2*maxForm)}}, none, 403, 0},
		{"POST", "/rotate", rotateForm("wrong"), none, 403, 0},
		{"POST", "/rotate", rotateForm(csrf), none, 403, 0}, // the session is another by now
		{"POST", "/logout", url.Values{}, none, 403, 0},
		{"PUT", "/", nil, none, 405, 0},
		{"GET", "/", nil, func(req *http.Request) { req.Host = "evil.example" }, 421, 0},
		{"GET", "/favicon.ico", nil, none, 200, 0},
		{"GET", "/static/" + readAssets().Version + "/page.css", nil, none, 200, 0},
		{"GET", "/static/x/y", nil, none, 404, 0},
	} {
		r.mu.Lock()
		r.looks = 0
		r.mu.Unlock()
		resp, _ := r.send(c.method, c.path, c.form, c.change)
		r.mu.Lock()
		if resp.StatusCode != c.status || r.looks > c.most {
			t.Errorf("%s %s: %s, %d looks", c.method, c.path, resp.Status, r.looks)
		}
		r.mu.Unlock()
	}
}

// TestGuessing: wrong tokens are refused, logged without what was tried, and slowed down.
func TestGuessing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for n := range 5 {
		resp, body := r.send("POST", "/login", url.Values{"token": {"wrong-GUESS"}, "back": {"/?q=1"}})
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "That is not the token.") || !strings.Contains(body, `name="back" value="/?q=1"`) || len(resp.Cookies()) != 0 {
			t.Errorf("guess %d: %s, %s", n, resp.Status, body)
		}
	}
	if !r.logged("the token is wrong") || r.logged("GUESS") {
		t.Errorf("the log:\n%s", r.log.String())
	}
	for _, guess := range []string{"wrong", token} {
		if resp, body := r.send("POST", "/login", url.Values{"token": {guess}}); resp.StatusCode != http.StatusTooManyRequests || len(resp.Cookies()) != 0 || !strings.Contains(body, "too many tries") {
			t.Errorf("one guess too many: %s, %s", resp.Status, body)
		}
	}
	r.later(time.Second)
	r.login()
	for _, guess := range []string{"", token[:len(token)-1], token + "x", strings.ToLower(token)} {
		r.later(time.Second)
		if resp, _ := r.send("POST", "/login", url.Values{"token": {guess}}); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%q: %s", guess, resp.Status)
		}
	}
	// A token in the address would stand in logs.
	r.later(time.Second)
	if resp, _ := r.send("POST", "/login?token="+token, nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a token in the address: %s", resp.Status)
	}
	// And another site cannot log anybody in.
	r.later(time.Second)
	if resp, _ := r.send("POST", "/login", url.Values{"token": {token}}, func(req *http.Request) { req.Header.Set("Sec-Fetch-Site", "cross-site") }); resp.StatusCode != http.StatusForbidden || len(resp.Cookies()) != 0 {
		t.Errorf("a login from another site: %s", resp.Status)
	}
}

// TestBack leads to a page of ours, and nowhere else.
func TestBack(t *testing.T) {
	t.Parallel()
	for back, want := range map[string]string{"": "/", "/": "/", "/?q=1&state=wrong": "/?q=1&state=wrong", "/target/1/online-record": "/target/1/online-record", "//evil.example": "/", "//evil.example/": "/", "//evil.example/target/1/x": "/", "https://evil.example/": "/",
		`/\evil.example`: "/", `\\evil.example`: "/", "javascript:alert(1)": "/", "/logout": "/", "evil": "/", "/target/../logout": "/target/../logout", "/\t/evil.example": "/", "//u@evil.example/target/": "/", "/#x": "/", "http:/target/1": "/", "%2F%2Fevil.example": "/"} {
		if got := inside(back); got != want {
			t.Errorf("%q: %s, want %s", back, got, want)
		}
	}
}
