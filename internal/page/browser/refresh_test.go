package browser

import (
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"tiwkeyd/internal/page/pagetest"
)

// hasten has the page's timer tick all the time.
const hasten = `window.setInterval = (original => (f, ms) => { window.period = ms; return original(f, 30); })(window.setInterval)`

func (r *rig) change(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.rows {
		r.rows[i].KeyID = state
	}
}

func (r *rig) shows(state string) {
	r.t.Helper()
	r.await("it shows "+state, `document.querySelector('tbody code').textContent === '`+state+`'`)
}

// TestRefresh: what has changed comes by itself, and what somebody is at stays.
func TestRefresh(t *testing.T) {
	r := newRig(t, append(pagetest.States(), pagetest.Many(140)[20:]...))
	r.screen(1280, 500, "light")
	command(r, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: hasten})
	r.open("/?state=wrong")
	if ms := eval[int](r, `window.period`); ms != 10000 {
		t.Errorf("it refreshes every %d ms", ms)
	}
	r.change("first")
	r.shows("first")
	if r.refreshes() == 0 {
		t.Error("the daemon cannot tell that nobody asked for the page")
	}

	// The focus, where the page is scrolled to, and what was typed.
	r.run(`document.querySelector('#q').value = 'half of a na'; document.querySelectorAll('tbody a')[17].focus(); scrollTo(0, 700)`)
	before := eval[string](r, focus)
	r.change("second")
	r.shows("second")
	if now := eval[string](r, focus); now != before || before == "" {
		t.Errorf("the focus was at %q and is at %q", before, now)
	}
	if y := eval[int](r, `Math.round(scrollY)`); y != 700 {
		t.Errorf("it is scrolled to %d", y)
	}
	if typed := eval[string](r, `document.querySelector('#q').value`); typed != "half of a na" {
		t.Errorf("in the field is %q", typed)
	}

	// A selection keeps everything as it is.
	r.run(`getSelection().selectAllChildren(document.querySelector('tbody code'))`)
	r.change("third")
	r.quiet("second")
	r.run(`getSelection().removeAllRanges()`)
	r.shows("third")

	// So does whoever pauses it.
	r.do(chromedp.Click(chromedp.CSS("#pause")))
	r.change("fourth")
	r.quiet("third")
	r.do(chromedp.Click(chromedp.CSS("#pause")))
	r.shows("fourth")

	// A daemon that is away is told of, and what it said last stays.
	r.expect("net::ERR_")
	r.set(true)
	r.await("it says that the daemon is away", `document.querySelector('[role=status]').textContent.includes('does not answer')`)
	r.change("fifth")
	r.quiet("fourth")
	r.set(false)
	r.shows("fifth")
	r.await("it says so no more", `document.querySelector('[role=status]').textContent === ''`)

	// Nobody looks: nothing is asked.
	r.run(`Object.defineProperty(document, 'hidden', { get: () => window.gone, configurable: true }); window.gone = true; document.dispatchEvent(new Event('visibilitychange'))`)
	r.change("sixth")
	r.quiet("fifth")
	r.run(`window.gone = false; document.dispatchEvent(new Event('visibilitychange'))`)
	r.shows("sixth")
}

func (r *rig) set(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
}

// quiet lets the timer tick, and a request of another kind go there and back, and then there
// is still what there was. Meanwhile nothing was asked of the daemon.
func (r *rig) quiet(state string) {
	r.t.Helper()
	const ticks = `new Promise(done => { let n = 0; const timer = setInterval(() => { if (++n > 10) { clearInterval(timer); fetch(location.href).catch(() => {}).then(() => done(true)); } }, 30); })`
	r.run(ticks) // what was under way when it became quiet has ended
	before := r.refreshes()
	r.run(ticks)
	if now := eval[string](r, `document.querySelector('tbody code').textContent`); now != state {
		r.t.Errorf("it changed from %s to %s", state, now)
	}
	if n := r.refreshes() - before; n > 0 && !r.away {
		r.t.Errorf("it was asked for %d times", n)
	}
}

func (r *rig) refreshes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshed
}
