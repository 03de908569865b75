package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"tiwkeyd/internal/page/pagetest"
)

// TestPolicy: a browser does what the policy tells it. Nothing inline runs, nothing comes from
// elsewhere, and nobody has the page in a frame.
func TestPolicy(t *testing.T) {
	r := newRig(t, pagetest.States())
	other := r.site(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/frame" {
			fmt.Fprintf(w, `<iframe src="%s/"></iframe>`, r.web.URL)
			return
		}
		if req.URL.Path != "/favicon.ico" { // a browser asks for its own
			t.Errorf("something was loaded from elsewhere: %s", req.URL)
		}
	})
	r.expect("Content Security Policy")
	r.open("/")
	for what, js := range map[string]string{
		"an inline script":    `(() => { const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s); })()`,
		"a handler":           `(() => { const b = document.createElement('button'); b.setAttribute('onclick', 'window.hacked = 1'); document.body.append(b); b.click(); })()`,
		"a picture":           `(() => { const i = new Image(); i.src = '` + other + `/x.png'; document.body.append(i); })()`,
		"somebody's script":   `(() => { const s = document.createElement('script'); s.src = '` + other + `/x.js'; document.body.append(s); })()`,
		"a style":             `(() => { const s = document.createElement('style'); s.textContent = 'body { display: none }'; document.head.append(s); })()`,
		"a request elsewhere": `fetch('` + other + `/x').catch(() => {})`,
	} {
		r.run(`window.broken = new Promise(done => document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective), { once: true })); 0`)
		r.run(js + `; 0`)
		if by := eval[string](r, `window.broken`); by == "" {
			t.Errorf("%s breaks no rule", what)
		}
	}
	if eval[bool](r, `'hacked' in window || getComputedStyle(document.body).display === 'none'`) {
		t.Error("something inline worked")
	}
	r.do(chromedp.Navigate(other+"/frame"), ready("iframe"))
	// Of a frame of another origin a script sees nothing, refused or not: the browser itself tells.
	tree, err := chromedp.Call(r.tab, page.GetFrameTree, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if frames := tree.FrameTree.ChildFrames; len(frames) != 1 || frames[0].Frame.UnreachableURL != r.web.URL+"/" {
		t.Errorf("somebody else's page has this one in a frame: %+v", frames)
	}
}

// TestOtherSites send forms to the page in the browser of somebody who is logged in to it: from
// another port, and from another name, which may be a different site.
func TestOtherSites(t *testing.T) {
	r := newRig(t, pagetest.States())
	r.login()
	r.expect("403")
	secret := eval[string](r, `document.querySelector('[name=csrf]').value`)
	evil := r.site(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if policy := req.URL.Query().Get("referrer"); policy != "" {
			w.Header().Set("Referrer-Policy", policy)
		}
		// Even one that knows the secret, which none can.
		fmt.Fprintf(w, `<form method="post" action="%s/rotate"><input name="csrf" value="%s"><input name="target" value="1400000001/whiteboard-push"></form><script>document.forms[0].submit()</script>`, r.web.URL, secret)
	})
	for _, from := range []string{evil, strings.Replace(evil, "127.0.0.1", "localhost", 1)} {
		for _, referrer := range []string{"", "no-referrer"} {
			r.do(chromedp.Navigate(from + "/?referrer=" + referrer))
			r.await("the form is answered", `location.pathname === '/rotate' && document.body.textContent.length > 0`)
			if said := eval[string](r, `document.body.textContent`); !strings.Contains(said, "sent from another site") || r.demands() != 0 {
				t.Errorf("%s %s: %s; %d demands", from, referrer, said, r.demands())
			}
		}
	}
	// The same form of the page itself is taken: it was not for something else that those failed.
	r.open("/target/1400000001/whiteboard-push")
	r.do(chromedp.Click(chromedp.CSS("#rotate")), ready(".note"))
	if r.demands() != 1 {
		t.Errorf("%d demands", r.demands())
	}
}
