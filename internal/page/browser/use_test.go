package browser

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"tiwkeyd/internal/page/pagetest"
)

const focus = `(() => { const e = document.activeElement; return e === document.body ? '' : (e.id ? '#' + e.id : e.getAttribute('href') || e.textContent.trim() || e.getAttribute('aria-label')); })()`

// TestKeyboard does everything with keys alone. Whatever has the focus shows it.
func TestKeyboard(t *testing.T) {
	r := newRig(t, pagetest.States())
	r.screen(1280, 900, "light")
	walk := func(path string) []string {
		t.Helper()
		r.open(path)
		var visited []string
		for {
			r.press(kb.Tab)
			at := eval[string](r, focus)
			if at == "" || len(visited) > 200 {
				return visited
			}
			visited = append(visited, at)
			if bad := eval[string](r, `(() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
				if (s.outlineStyle === 'none' || parseFloat(s.outlineWidth) < 2) return 'no outline';
				if (b.width < 1 || b.top < -1 || b.bottom > innerHeight + 1) return 'out of sight: ' + JSON.stringify(b);
				return ''; })()`); bad != "" {
				t.Errorf("%s, at %s: %s", path, at, bad)
			}
		}
	}
	for _, path := range []string{"/", "/target/1400000004/video-generation", "/login"} {
		visited := walk(path)
		if n := eval[int](r, `[...document.querySelectorAll('a[href], button, input:not([type=hidden], [hidden]), [tabindex="0"]')].length`); path != "/login" && (n != len(visited) || visited[0] != "#main") {
			t.Errorf("%s: of %d things to use, these were come to: %v", path, n, visited)
		}
	}
	// Over the head to the content.
	r.open("/")
	r.press(kb.Tab, kb.Enter)
	r.await("the content has the focus", `document.activeElement.id === 'main'`)
	// Sort by a head, both ways, and filter.
	to := func(what string) {
		t.Helper()
		for range 200 {
			if eval[string](r, focus) == what {
				return
			}
			r.press(kb.Tab)
		}
		t.Fatalf("no way to %s", what)
	}
	to("./?sort=age")
	r.press(kb.Enter)
	r.await("sorted by age", `document.querySelector('th[aria-sort=ascending]')?.textContent.startsWith('Age')`)
	to("./?dir=desc&sort=age")
	r.press(kb.Enter)
	r.await("sorted the other way", `document.querySelector('th[aria-sort=descending]')?.textContent.startsWith('Age')`)
	to("#q")
	r.do(chromedp.KeyEvent("transcode" + kb.Enter))
	r.await("three are found, sorted as before", `document.querySelectorAll('tbody tr').length === 3 && location.search.includes('sort=age') && location.search.includes('dir=desc')`)
	// Log in, and rotate.
	to("./login?back=%2f%3fq%3dtranscode%26sort%3dage%26dir%3ddesc")
	r.press(kb.Enter)
	r.await("the form", `document.activeElement.id === 'token'`)
	r.expect("403")
	r.do(chromedp.KeyEvent("not-the-token-of-the-status-page" + kb.Enter))
	r.await("it is refused, and can be tried again", `document.getElementById('failed')?.textContent.includes('not the token') && document.activeElement.id === 'token'`)
	r.do(chromedp.KeyEvent(token + kb.Enter))
	r.await("back where it was", `location.search.includes('transcode') && [...document.querySelectorAll('button')].some(b => b.textContent === 'Log out')`)
	to("./target/1400000003/transcode")
	r.press(kb.Enter)
	r.await("the target", `document.getElementById('rotate')`)
	to("#rotate")
	r.press(kb.Enter)
	r.await("it is told", `document.querySelector('.note[role=status]')?.textContent.includes('A new key was asked for')`)
	if r.demands() != 1 || r.asked[0].String() != "1400000003/transcode" {
		t.Errorf("asked for %v", r.asked)
	}
	if cookies := eval[string](r, `document.cookie`); cookies != "" {
		t.Errorf("a script sees the session: %s", cookies)
	}
	to("Log out")
	r.press(kb.Enter)
	r.await("logged out", `!document.getElementById('rotate') && document.body.textContent.includes('Log in to rotate')`)
}

// TestWithoutJavaScript does the same with a browser that runs none.
func TestWithoutJavaScript(t *testing.T) {
	r := newRig(t, append(pagetest.States(), pagetest.Many(120)[20:]...))
	command(r, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	r.open("/")
	if eval[bool](r, `!!document.getElementById('pause')`) {
		t.Fatal("scripts run")
	}
	click := func(selector, comes string) {
		t.Helper()
		r.do(chromedp.Click(chromedp.CSS(selector)))
		r.await("after a click on "+selector+": "+comes, "document.readyState === 'complete' && "+comes)
	}
	click(`.pages a[rel=next]`, `document.querySelector('.pages a[rel=prev]')`)
	click(`.pages a[rel=prev]`, `!document.querySelector('.pages a[rel=prev]')`)
	click(`thead .t a`, `document.querySelector('th.t[aria-sort=ascending]')`)
	click(`.filters a[href*="state=wrong"]`, `location.search.includes('state=wrong') && location.search.includes('sort=target')`)
	click(`.filters a`, `!location.search.includes('state=wrong')`)
	r.do(chromedp.SendKeys(chromedp.CSS("#q"), "1400000001/"))
	click(`.search button`, `location.search.includes('1400000001') && document.querySelectorAll('tbody tr').length === 1`)
	click(`tbody a`, `document.getElementById('target')`)
	click(`.title a`, `document.getElementById('token')`)
	r.do(chromedp.SendKeys(chromedp.CSS("#token"), token))
	click(`.login button`, `document.getElementById('rotate')`)
	click(`#rotate`, `document.querySelector('.note')`)
	if r.demands() != 1 || r.asked[0].String() != "1400000001/whiteboard-push" {
		t.Errorf("asked for %v", r.asked)
	}
	click(`#refresh`, `document.getElementById('target') && !document.querySelector('.note')`)
}
