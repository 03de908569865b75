package browser

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"tiwkeyd/internal/page/pagetest"
)

// contrast gives the texts of the page whose colour does not stand out from what is behind
// them by 4.5 to 1, and how many there are in all. Rows and buttons are looked at with a
// pointer over them as well.
const contrast = `(() => {
  const parse = c => { const m = c.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/); if (!m) throw new Error(c); return [+m[1], +m[2], +m[3], m[4] === undefined ? 1 : +m[4]]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const behind = e => { const all = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); all.push(c); if (c[3] === 1) break; } return all.reduceRight((b, c) => over(c, b), [255, 255, 255, 1]); };
  const probe = document.createElement('div'); probe.className = 'probe'; document.body.append(probe);
  const sheet = [...document.styleSheets][0]; sheet.insertRule('.probe { background: var(--hover) }', sheet.cssRules.length);
  const hover = parse(getComputedStyle(probe).backgroundColor); probe.remove();
  const bad = []; let n = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim(), e = walk.currentNode.parentElement;
    if (!text || e.closest('svg') || !e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || e.closest('.hidden')) continue;
    n++;
    const ground = behind(e), grounds = [ground];
    if (e.closest('tbody tr, button:not(#rotate), .filters a:not([aria-current])')) grounds.push(hover);
    for (const g of grounds) {
      const is = ratio(over(parse(getComputedStyle(e).color), g), g);
      if (is < 4.5) bad.push(text.slice(0, 40) + ': ' + is.toFixed(2));
    }
  }
  return { n, bad };
})()`

// shapes gives what is no text and does not stand out by 3 to 1: what a picture's marks and the
// borders of fields are told by.
const shapes = `(() => {
  const parse = c => c.match(/[\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const value = name => { const d = document.createElement('div'); d.style.color = 'var(' + name + ')'; document.body.append(d); const c = parse(getComputedStyle(d).color); d.remove(); return c; };
  return [['--stroke', '--paper'], ['--stroke', '--band'], ['--bad', '--paper'], ['--bad', '--band'], ['--stroke', '--line'], ['--soft', '--paper'], ['--link', '--paper'], ['--link', '--ground']]
    .map(([a, b]) => [a + ' on ' + b, ratio(value(a), value(b))]).filter(([, is]) => is < 3).map(([what, is]) => what + ': ' + is.toFixed(2));
})()`

type seen struct {
	N   int      `json:"n"`
	Bad []string `json:"bad"`
}

// TestLook looks at every page, light and dark, on a wide screen, a laptop, a tablet and a phone.
func TestLook(t *testing.T) {
	r := newRig(t, pagetest.States())
	pages := []struct{ name, path string }{{"list", "/"}, {"empty", "/?q=none"}, {"rolled-back", "/target/1400000004/video-generation"}, {"hostile", "/target/1400000010/online-record"}, {"waiting", "/target/1400000002/online-record"},
		{"login", "/login"}, {"missing", "/nowhere"}}
	r.expect("404") // of the page that is not there
	look := func(who string) {
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1440, 1280, 1000, 700, 360} {
				r.screen(width, 900, scheme)
				for _, p := range pages {
					name := fmt.Sprintf("%s-%s%s-%d", p.name, who, scheme, width)
					r.open(p.path)
					if is := eval[seen](r, contrast); is.N < 5 || len(is.Bad) > 0 {
						t.Errorf("%s: of %d texts these are hard to read: %s", name, is.N, strings.Join(is.Bad, "; "))
					}
					if bad := eval[[]string](r, shapes); len(bad) > 0 {
						t.Errorf("%s: hard to see: %s", name, strings.Join(bad, "; "))
					}
					if over := eval[[]string](r, `[...document.querySelectorAll('body *')].filter(e => !e.closest('.hidden, .skip, thead') && e.getBoundingClientRect().right > innerWidth - (e.closest('main > *') ? 13 : 0)).map(e => e.tagName + '.' + e.className + ' ' + e.getBoundingClientRect().right)`); len(over) > 0 ||
						eval[bool](r, `document.scrollingElement.scrollWidth > innerWidth`) {
						t.Errorf("%s is wider than the screen: %s", name, strings.Join(over, ", "))
					}
					r.picture(name)
				}
			}
		}
	}
	look("")
	r.login()
	pages = pages[:5]
	look("in-")
}

// TestStructure is what a reader of the screen gets.
func TestStructure(t *testing.T) {
	r := newRig(t, pagetest.States())
	for _, path := range []string{"/", "/?sort=age", "/target/1400000004/video-generation", "/login"} {
		r.open(path)
		if bad := eval[[]string](r, `(() => {
  const bad = [], all = s => [...document.querySelectorAll(s)];
  if (document.documentElement.lang !== 'en') bad.push('no language');
  if (all('h1').length !== 1) bad.push(all('h1').length + ' first headings');
  if (all('main').length !== 1 || all('header').length !== 1) bad.push('no landmarks');
  for (const e of all('th')) if (!e.scope) bad.push('a head without a scope');
  for (const e of all('table')) if (!e.caption) bad.push('a table without a caption');
  for (const e of all('input:not([type=hidden], [hidden])')) if (!e.labels.length) bad.push('a field without a label');
  for (const e of all('a, button')) if (!e.textContent.trim()) bad.push('something to press without a name');
  for (const e of all('svg[role=img]')) if (!e.querySelector('title').textContent) bad.push('a picture without a name');
  for (const e of all('svg:not([role=img])')) if (e.getAttribute('aria-hidden') !== 'true') bad.push('a picture that is read out');
  for (const e of all('[id]')) if (all('#' + CSS.escape(e.id)).length > 1) bad.push('twice: ' + e.id);
  for (const name of ['aria-labelledby', 'aria-describedby', 'for']) for (const e of all('[' + name + ']')) for (const id of e.getAttribute(name).split(' ')) if (!document.getElementById(id)) bad.push(name + ' of nothing: ' + id);
  for (const e of all('time')) if (isNaN(Date.parse(e.dateTime))) bad.push('a time that is none: ' + e.dateTime);
  for (const e of all('nav')) if (!e.getAttribute('aria-label')) bad.push('a nav without a name');
  if (all('[style], style, script:not([src])').length) bad.push('something inline');
  return bad; })()`); len(bad) > 0 {
			t.Errorf("%s: %s", path, strings.Join(bad, "; "))
		}
	}
}

// TestDocs: the picture of docs/operations.md is small. It is TIWKEYD_SCREENSHOTS's status-page.png.
func TestDocs(t *testing.T) {
	rows := pagetest.States()
	r := newRig(t, append(rows[:6:6], rows[7:9]...)) // the hostile one does not become a manual
	r.screen(1280, 900, "light")
	r.open("/")
	r.picture("status-page")
	if info, err := os.Stat("../../../docs/status-page.png"); err != nil || info.Size() > 150_000 {
		t.Errorf("docs/status-page.png: %v, %v", info, err)
	}
}
