package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// visitor is somebody at the status page of a daemon, with a browser's memory. What is said to
// them is searched for secrets at the end.
type visitor struct {
	r      *rig
	base   string
	client *http.Client
	said   *output
}

func (p *pages) visitor(addr string) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.r.t.Fatal(err)
	}
	return &visitor{p.r, "http://" + addr, &http.Client{Jar: jar}, p.said}
}

// fetch fetches a page or, with a form, sends it, and follows where that leads.
func (v *visitor) fetch(path string, form url.Values) (int, string) {
	v.r.t.Helper()
	var resp *http.Response
	var err error
	if form == nil {
		resp, err = v.client.Get(v.base + path)
	} else {
		resp, err = v.client.PostForm(v.base+path, form)
	}
	if err != nil {
		v.r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.r.t.Fatal(err)
	}
	_, _ = v.said.Write(body)
	return resp.StatusCode, string(body)
}

var formSecret = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func (v *visitor) rotate(t secrets.Target) (int, string) {
	v.r.t.Helper()
	_, body := v.fetch("/", nil)
	found := formSecret.FindStringSubmatch(body)
	if found == nil {
		return 0, "not logged in"
	}
	return v.fetch("/rotate", url.Values{"csrf": {found[1]}, "target": {t.String()}})
}

// TestStatusPage: a daemon's page shows the ids of its keys, has a key rotated for whoever has
// the token, through reloads, and takes another token with one.
func TestStatusPage(t *testing.T) {
	slow(t)
	t.Parallel()
	const first, second = "CANARY-first-token-of-the-page", "CANARY-second-token-of-the-page"
	r := newRig(t)
	r.secret(first)
	r.secret(second)
	other := secrets.Target{SdkAppID: 1400000002, Service: secrets.WhiteboardPush}
	r.server.AddApp(other.SdkAppID)
	for _, id := range []int64{testTarget.SdkAppID, other.SdkAppID} {
		r.server.SetKey(id, string(testTarget.Service), oldKey)
	}
	inForce := func(t secrets.Target) string { return r.server.KeyInForce(t.SdkAppID, string(t.Service)) }
	env := filepath.Join(t.TempDir(), "env")
	r.env = without(r.env, "TIWKEYD_HTTP_ADDR", "TIWKEYD_TARGETS")
	configure := func(token string, targets ...secrets.Target) {
		t.Helper()
		var names []string
		for _, t := range targets {
			names = append(names, t.String())
		}
		if err := os.WriteFile(env, []byte("TIWKEYD_HTTP_ADDR=127.0.0.1:0\nTIWKEYD_TARGETS="+strings.Join(names, ",")+"\nTIWKEYD_HTTP_TOKEN="+token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(first, testTarget, other)
	d := r.start([]string{"run", "--env-file", env})
	r.awaitOutput(d, "serves these targets")
	p := r.pages()
	v := p.visitor(p.at(d))
	r.await("first rotations", func() bool { return r.settled() && inForce(testTarget) != oldKey && inForce(other) != oldKey })
	r.await("the page has the key's id", func() bool {
		_, body := v.fetch("/", nil)
		return strings.Contains(body, r.currentID()) && strings.Contains(body, `<span class="m good">settled</span>`) && strings.Contains(body, "1 new key")
	})
	if status, body := v.fetch("/target/"+testTarget.String(), nil); status != 200 || !strings.Contains(body, r.currentID()) || strings.Contains(body, "Rotate now") {
		t.Errorf("%d:\n%s", status, body)
	}
	if status, body := v.fetch("/login", url.Values{"token": {"a-wrong-token-of-the-page"}}); status != http.StatusForbidden || !strings.Contains(body, "not the token") {
		t.Errorf("a wrong token: %d", status)
	}
	if status, _ := v.fetch("/login", url.Values{"token": {first}}); status != 200 {
		t.Fatalf("the token: %d", status)
	}
	r.await("nothing is in hand", r.settled)
	before := r.currentID()
	if status, body := v.rotate(testTarget); status != 200 || !strings.Contains(body, "A new key was asked for") {
		t.Fatalf("%d: %s", status, body)
	}
	r.await("another key is in force", func() bool { return r.settled() && r.currentID() != before })
	if strings.Count(d.String(), `"msg":"a new key was asked for on the status page"`) != 1 {
		t.Error("it is not logged who asked")
	}

	// While a reload waits for the step in hand, a demand for another target is made.
	old := inForce(other)
	r.server.Plan("Set", testTarget.SdkAppID, tiwtest.Delay(time.Second))
	v.rotate(testTarget)
	r.await("the push is under way", func() bool { return r.server.Planned() == 0 })
	d.signal(syscall.SIGHUP)
	r.awaitOutput(d, `"msg":"reloaded"`)
	if status, body := v.rotate(other); status != 200 {
		t.Fatalf("%d: %s", status, body)
	}
	t.Logf("the demand was made while the daemon served for the %d. time", strings.Count(d.String(), "serves these targets"))
	r.await("the engine after the reload hears it", func() bool { return inForce(other) != old })

	// A reload takes a target away, and another token.
	r.await("nothing is in hand", r.settled)
	configure(second, testTarget)
	n := strings.Count(d.String(), "serves these targets")
	d.signal(syscall.SIGHUP)
	r.await("it serves one target", func() bool { return strings.Count(d.String(), "serves these targets") > n })
	if status, body := v.rotate(testTarget); status != 0 {
		t.Errorf("a login goes on after its token: %d, %s", status, body)
	}
	if status, _ := v.fetch("/login", url.Values{"token": {first}}); status != http.StatusForbidden {
		t.Errorf("the old token: %d", status)
	}
	if status, _ := v.fetch("/login", url.Values{"token": {second}}); status != 200 {
		t.Errorf("the new token: %d", status)
	}
	if status, body := v.rotate(other); status != http.StatusNotFound || !strings.Contains(body, "not served") {
		t.Errorf("a target that is gone: %d, %s", status, body)
	}
	r.keyring()
	d.signal(syscall.SIGTERM)
	if <-d.done; d.code != 0 {
		t.Errorf("it ended with %d", d.code)
	}
}
