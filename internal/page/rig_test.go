package page

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tiwkeyd/internal/hostguard"
	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/page/pagetest"
	"tiwkeyd/secrets"
)

const token = "CANARY-token-of-the-status-page"

// rig is a page behind a server, with a browser's memory for cookies. All that is said and
// logged is searched for the token at the end.
type rig struct {
	t      *testing.T
	web    *httptest.Server
	client *http.Client
	rows   []observe.Row

	mu      sync.Mutex
	now     time.Time
	token   string
	asked   []secrets.Target
	askErr  error
	looks   int // at all targets
	secure  bool
	wrong   error
	said    bytes.Buffer
	log     bytes.Buffer
	cookies []string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, rows: pagetest.States(), now: pagetest.Now, token: token}
	p := New(Options{Version: "v1.2.3",
		Look: func() observe.Report {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.looks++
			return observe.Report{Rows: r.rows, Wrong: r.wrong, Summary: "12 targets"}
		},
		Token: func() string { r.mu.Lock(); defer r.mu.Unlock(); return r.token },
		Has: func(target secrets.Target) bool {
			return slices.ContainsFunc(r.rows, func(row observe.Row) bool { return row.Target == target })
		},
		Secure: func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.secure },
		Now:    func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		Ask: func(target secrets.Target) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.askErr == nil {
				r.asked = append(r.asked, target)
			}
			return r.askErr
		},
		Log: slog.New(slog.NewJSONHandler(writer{r}, nil))})
	r.web = httptest.NewServer(hostguard.Handler(p, nil))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.client = r.web.Client()
	r.client.Jar = jar
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() {
		r.web.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, text := range []string{r.said.String(), r.log.String()} {
			if strings.Contains(text, "CANARY") {
				t.Errorf("a secret shows:\n%s", text)
			}
			for _, c := range r.cookies {
				if strings.Contains(text, c) {
					t.Error("a session shows")
				}
			}
		}
	})
	return r
}

// writer is the log.
type writer struct{ r *rig }

func (w writer) Write(b []byte) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	return w.r.log.Write(b)
}

func (r *rig) later(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) demands() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func (r *rig) logged(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.log.String(), text)
}

// send sends a request and gives the answer with all of its body.
func (r *rig) send(method, path string, form url.Values, change ...func(*http.Request)) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.web.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range change {
		c(req)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said.Write(body)
	if to, err := resp.Location(); err == nil { // as a browser understands it
		resp.Header.Set("Location", to.RequestURI())
	}
	for _, c := range resp.Cookies() {
		r.cookies = append(r.cookies, c.Value)
	}
	return resp, string(body)
}

func (r *rig) get(path string) string {
	r.t.Helper()
	resp, body := r.send("GET", path, nil)
	if resp.StatusCode != http.StatusOK {
		r.t.Errorf("%s: %s", path, resp.Status)
	}
	return body
}

// login logs in, and gives what forms must have.
func (r *rig) login() (csrf string) {
	r.t.Helper()
	resp, body := r.send("POST", "/login", url.Values{"token": {r.token}, "back": {"/"}})
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		r.t.Fatalf("%s: %s", resp.Status, body)
	}
	return r.csrf()
}

var secretField = regexp.MustCompile(`name="csrf" value="([A-Z2-7]{26})"`)

func (r *rig) csrf() string {
	r.t.Helper()
	found := secretField.FindStringSubmatch(r.get("/"))
	if found == nil {
		return ""
	}
	return found[1]
}

var errAway = errors.New("the store cannot be read:\n\tno route")
