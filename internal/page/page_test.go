package page

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"tiwkeyd/internal/page/pagetest"
	"tiwkeyd/rotator"
)

var paths = []string{"/", "/?q=none", "/?state=wrong", "/login", "/target/1400000004/video-generation", "/nowhere", "/static/x/y"}

// TestHeaders are on every answer, also on one that refuses.
func TestHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range paths {
		resp, body := r.send("GET", path, nil)
		for name, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if regexp.MustCompile(`(?i)<style|<script>|\sstyle=|\son\w+=["']|javascript:|https?://`).MatchString(strings.ReplaceAll(body, "&#39; onfocus=alert(3)", "")) {
			t.Errorf("%s has something inline or of somebody else:\n%s", path, body)
		}
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%s is not in the policy", want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") {
		t.Errorf("the policy is loose: %s", policy)
	}
}

// TestFiles are kept for long under the address of this version, and not under another's.
func TestFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	files := regexp.MustCompile(`/static/[0-9a-f]{12}/[a-z.]+`).FindAllString(r.get("/"), -1)
	if len(files) != 3 {
		t.Fatalf("the page loads %v", files)
	}
	for _, f := range files {
		resp, body := r.send("GET", f, nil)
		kind := map[string]string{"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[f[strings.LastIndexByte(f, '.')+1:]]
		if resp.StatusCode != 200 || body == "" || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s, %v", f, resp.Status, resp.Header)
		}
		old := regexp.MustCompile(`[0-9a-f]{12}`).ReplaceAllString(f, "000000000000")
		if resp, _ := r.send("GET", old, nil); resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s, %v", old, resp.Status, resp.Header)
		}
	}
}

// TestWellFormed: every page is a tree, whatever the texts in it are, and none of them became
// a part of it.
func TestWellFormed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.login()
	for i := range r.rows {
		paths = append(paths, "/target/"+r.rows[i].Target.String())
	}
	for _, path := range append(paths, "/?q="+url.QueryEscape(pagetest.Hostile), "/login?back="+url.QueryEscape(pagetest.Hostile)) {
		resp, body := r.send("GET", path, nil)
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			continue
		}
		for _, bad := range []string{"<script>", "<img", "<b>\"", "ZgotmplZ", "%!", "\u202e"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %s:\n%s", path, bad, body)
			}
		}
		d := xml.NewDecoder(strings.NewReader(regexp.MustCompile(`(<(?:meta|link|input)[^>]*)>|\b(defer)\b`).ReplaceAllStringFunc(body, func(s string) string {
			if strings.HasSuffix(s, ">") {
				return regexp.MustCompile(` (required|autofocus|hidden)\b`).ReplaceAllString(strings.TrimSuffix(s, ">"), "") + "/>"
			}
			return s + `=""`
		})))
		d.Entity = xml.HTMLEntity
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Errorf("%s is no tree: %v\n%s", path, err, body)
				break
			}
		}
	}
	if body := r.get("/target/1400000010/online-record"); strings.Count(body, "&lt;script&gt;alert(1)") < 3 {
		t.Errorf("the hostile text is not shown as text:\n%s", body)
	}
}

// TestStates: what the list says of each target.
func TestStates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lines := map[string]line{}
	for i := range r.rows {
		l := lineOf(&r.rows[i], pagetest.Now)
		lines[l.Target[:10]] = l
	}
	for app, want := range map[string]string{
		"1400000001": "settled|Kq70000001xZ|6 h of 1 d 25%|in 18 h|false",
		"1400000002": "waiting for receivers|Kq70000002xZ then Wm2pendingT4|1 d of 1 d 100%|in force in 4 min|false",
		"1400000003": "setting the key,late|Kq70000003xZ then Wm2pendingT4|1 d of 1 d 100%|under way|true",
		"1400000004": "rolled back,overdue|Kq70000004xZ|3 d of 1 d 100%|in 41 min|true",
		"1400000005": "unsigned|| of  0%|on demand|false",
		"1400000006": "not adopted yet|| of  0%|due 3 min ago|true",
		"1400000007": "not read yet|| of  0%|due 10 s ago|false",
		"1400000008": "settled,drift,contested|Kq70000008xZ|6 h of 1 d 25%|in 18 h|true",
		"1400000009": "settled,overdue|Kq70000009xZ|1 d 6 h of 1 d 100%|due 6 h ago|true",
		"1400000011": "settled|Kq70000011xZ|1 min 30 s of  0%|due 1 min 30 s ago|false",
		"1400000012": "settled|Kq70000012xZ|6 h of  0%|on demand|false",
	} {
		l := lines[app]
		var words []string
		for _, m := range l.Marks {
			words = append(words, m.Word)
		}
		key := l.Key
		if l.Pending != "" {
			key += " then " + l.Pending
		}
		if got := fmt.Sprintf("%s|%s|%s of %s %d%%|%s|%v", strings.Join(words, ","), key, l.Age, l.Period, l.Share, l.Next, l.Bad); got != want {
			t.Errorf("%s: %s\nwant %s", app, got, want)
		}
	}
	body := r.get("/target/1400000004/video-generation")
	for _, want := range []string{"ResourceUnavailable.ServiceExpired", "please renew it", "0b1f9e52-8c1b-4f3f-9a5e-52a1d4ff9a01", "Renew the TIW package", "Rr8rotation3", "docs/operations.md", "2026-03-14 09:07:53 UTC", "19 min ago",
		`datetime="2026-03-14T09:07:53Z"`, "in 41 min", "The new key did not come into force", "rolled back: ResourceUnavailable.ServiceExpired", "1 h 4 min", "The key should have been replaced by now"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a target does not say %q", want)
		}
	}
	for path, want := range map[string]string{"/target/1400000003/transcode": "The new key should be in force by now", "/target/1400000008/video-generation": "Find the other daemon, script or person"} {
		if other := r.get(path); !strings.Contains(other, want) || strings.Contains(body, want) {
			t.Errorf("%s and it alone is to say %q", path, want)
		}
	}
	if strings.Contains(body, "Rotate now") || strings.Contains(body, "<form") || !strings.Contains(body, "Log in to rotate") {
		t.Error("who is not logged in is offered something else than to log in")
	}
	if resp, _ := r.send("GET", "/target/1/whiteboard-push", nil); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
	if resp, _ := r.send("GET", "/target/x/whiteboard-push", nil); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
	r.mu.Lock()
	r.wrong = errAway
	r.mu.Unlock()
	if body := r.get("/"); !strings.Contains(body, "Not ready: the store cannot be read: no route") {
		t.Error("the page does not say that the daemon is not ready")
	}
}

// TestTimeline: what is drawn where.
func TestTimeline(t *testing.T) {
	t.Parallel()
	now := pagetest.Now
	for _, c := range []struct {
		what    string
		history []rotator.Past
		want    []string
	}{
		{"nothing", nil, []string{"0 new keys, 0 rollbacks", `class="band" d=""`, `class="new" d=""`, `class="back" d=""`}},
		{"a key in the middle", []rotator.Past{{StartedAt: now.Add(-15 * 24 * time.Hour), Overlap: 3 * 24 * time.Hour}}, []string{"1 new key,", `class="new" d="M150 1v16"`, `class="band" d="M150 9h30"`}},
		{"bands that meet", []rotator.Past{{StartedAt: now.Add(-15 * 24 * time.Hour), Overlap: 3 * 24 * time.Hour}, {StartedAt: now.Add(-12 * 24 * time.Hour), Overlap: 24 * time.Hour}}, []string{`class="band" d="M150 9h40"`}},
		{"an overlap that goes on", []rotator.Past{{StartedAt: now.Add(-24 * time.Hour), Overlap: 300 * 24 * time.Hour}}, []string{`class="band" d="M290 9h10"`}},
		{"a rollback", []rotator.Past{{StartedAt: now.Add(-15*24*time.Hour - time.Hour), Took: time.Hour, Overlap: time.Minute, Code: "x"}}, []string{"0 new keys, 1 rollback<", `class="back" d="M150 15h0"`, `class="new" d=""`}},
		{"a key of long ago whose older one stayed", []rotator.Past{{StartedAt: now.Add(-33 * 24 * time.Hour), Overlap: 6 * 24 * time.Hour}}, []string{"0 new keys", `class="new" d=""`, `class="band" d="M0 9h30"`}},
		{"long ago, and in the future", []rotator.Past{{StartedAt: now.Add(-99 * 24 * time.Hour)}, {StartedAt: now.Add(time.Hour)}}, []string{"0 new keys", `class="new" d=""`}},
	} {
		got := string(timeline(c.history, now, 300, 18, false))
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: there is no %s in\n%s", c.what, want, got)
			}
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	now := pagetest.Now
	for d, want := range map[time.Duration]string{0: "now", 400 * time.Millisecond: "now", -900 * time.Millisecond: "now", time.Second: "in 1 s", -59 * time.Second: "59 s ago", time.Minute: "in 1 min", -61 * time.Second: "1 min 1 s ago",
		time.Hour + 59*time.Minute + 59*time.Second: "in 1 h 59 min", -25 * time.Hour: "1 d 1 h ago", 400 * 24 * time.Hour: "in 400 d"} {
		if got := relative(now.Add(d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if got := beginning("äöü", 2); got != "äö…" || beginning("äö", 2) != "äö" {
		t.Error(got)
	}
}

// TestWeight: a page whose targets all have the longest history, an error and a pending key
// stays below 100 kB, and so do a target's own page and all that a browser loads besides.
func TestWeight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rows = pagetest.Many(10000)
	r.login()
	list, one := r.get("/?page=7&q=14&state=wrong&sort=age"), r.get("/target/1400000004/whiteboard-push")
	rest := 0
	for _, f := range r.filesOf(list) {
		rest += len(r.get(f))
	}
	t.Logf("the list has %d bytes, the page of a target %d, the files beside them %d", len(list), len(one), rest)
	if strings.Count(list, "<tr") != perPage+1 || len(list)+rest > 100_000 || len(one)+rest > 100_000 {
		t.Errorf("a page is too heavy: %d, %d and %d bytes", len(list), len(one), rest)
	}
}

func (r *rig) filesOf(body string) []string {
	return regexp.MustCompile(`/static/[0-9a-f]{12}/[a-z.]+`).FindAllString(body, -1)
}

// TestAdviceDocumented: docs/operations.md says the same as the pages.
func TestAdviceDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range advices {
		if line := "| " + stateName(a.state) + " | " + a.advice + " |\n"; !strings.Contains(string(text), line) {
			t.Errorf("docs/operations.md does not have this line:\n%s", line)
		}
	}
}

// TestNoToken: without a token there is nothing to press, and nothing that a form would do.
func TestNoToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.token = ""
	for _, path := range []string{"/", "/target/1400000001/whiteboard-push"} {
		if body := r.get(path); strings.Contains(body, "Log in") || strings.Contains(body, "/rotate") || strings.Contains(body, `method="post"`) {
			t.Errorf("%s offers something:\n%s", path, body)
		}
	}
	for _, c := range []struct{ method, path string }{{"GET", "/login"}, {"POST", "/login"}, {"POST", "/rotate"}, {"POST", "/logout"}} {
		if resp, body := r.send(c.method, c.path, url.Values{"token": {""}, "csrf": {""}, "target": {"1400000001"}}); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "TIWKEYD_HTTP_TOKEN") || len(resp.Cookies()) != 0 {
			t.Errorf("%s %s: %s, %s", c.method, c.path, resp.Status, body)
		}
	}
	if r.demands() != 0 {
		t.Error("a key was asked for")
	}
}
