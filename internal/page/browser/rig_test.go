package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/page"
	"tiwkeyd/internal/page/pagetest"
	"tiwkeyd/secrets"
)

const token = "CANARY-token-of-the-status-page"

// chromium is the browser's context: one process for all tests, a tab for each.
var chromium context.Context

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		fmt.Fprintln(os.Stderr, "there is no Chromium, which these tests look at the status page with: apt-get install chromium")
		return 1
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("font-render-hinting", "none"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it would not start otherwise
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	browser, stop := chromedp.NewContext(ctx)
	defer stop()
	if err := chromedp.Do(browser); err != nil {
		fmt.Fprintf(os.Stderr, "%s does not start: %v\n", path, err)
		return 1
	}
	chromium = browser
	return m.Run()
}

// rig is a status page and a tab that looks at it. Whatever the tab's console says is an error.
type rig struct {
	t   *testing.T
	web *httptest.Server
	tab context.Context

	others []*httptest.Server // of other sites

	mu        sync.Mutex
	rows      []observe.Row
	asked     []secrets.Target
	said      []string // by the console
	expected  []string
	away      bool
	refreshed int // how often the page asked for itself
}

// hang ends a wait that would never end; nothing is measured with it.
const hang = time.Minute

func newRig(t *testing.T, rows []observe.Row) *rig {
	r := &rig{t: t, rows: rows}
	p := page.New(page.Options{
		Look: func() observe.Report {
			r.mu.Lock()
			defer r.mu.Unlock()
			return observe.Report{Rows: slices.Clone(r.rows), Summary: fmt.Sprintf("%d targets: 7 settled, 1 waiting, 1 pushing, 1 rolled back; next rotation 2026-03-14T10:07:53Z", len(r.rows))}
		},
		Token: func() string { return token }, Now: func() time.Time { return pagetest.Now }, Version: "v1.2.3",
		Ask: func(t secrets.Target) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked = append(r.asked, t)
			return nil
		},
	})
	r.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		away := r.away
		if req.Header.Get("Tiwkeyd-Refresh") != "" {
			r.refreshed++
		}
		r.mu.Unlock()
		if away {
			panic(http.ErrAbortHandler)
		}
		p.ServeHTTP(w, req)
	}))
	r.web.Config.ErrorLog = nil
	ctx, stop := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	ctx, cancel := context.WithTimeout(ctx, hang)
	r.tab = ctx
	messages := chromedp.Console(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			r.mu.Lock()
			r.said = append(r.said, m.String()+" "+m.URL)
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		stop()
		for _, s := range append(r.others, r.web) { // after the tab, which may have asked them for something
			s.Close()
		}
		reading.Wait()
		for _, s := range r.said {
			if !slices.ContainsFunc(r.expected, func(text string) bool { return strings.Contains(s, text) }) {
				t.Errorf("the console: %s", s)
			}
		}
	})
	return r
}

// site is somebody else's, at another port.
func (r *rig) site(h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	r.others = append(r.others, s)
	return s.URL
}

func (r *rig) do(actions ...chromedp.Action[chromedp.Void]) {
	r.t.Helper()
	if err := chromedp.Do(r.tab, actions...); err != nil {
		r.t.Fatal(err)
	}
}

// open loads a page and waits for it to be whole.
func (r *rig) open(path string) {
	r.t.Helper()
	r.do(chromedp.Navigate(r.web.URL+path), ready("footer"))
}

// screen gives the tab a size, a colour scheme and, for little devices, fingers.
func (r *rig) screen(width, height int64, scheme string) {
	r.t.Helper()
	command(r, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
	command(r, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// command tells the browser something of its protocol.
func command[P, R any](r *rig, c cdp.Command[P, R], params P) {
	r.t.Helper()
	if _, err := chromedp.Call(r.tab, c, params); err != nil {
		r.t.Fatal(err)
	}
}

func ready(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitReady(chromedp.CSS(selector))
}

// eval runs JavaScript that gives a T, or the promise of one.
func eval[T any](r *rig, js string) T {
	r.t.Helper()
	v, err := chromedp.Run(r.tab, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		r.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// run runs JavaScript for what it does.
func (r *rig) run(js string) { r.t.Helper(); eval[chromedp.Void](r, js) }

// await waits until JavaScript says true. The page may be left for another one meanwhile.
func (r *rig) await(what, js string) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		is, err := chromedp.Run(r.tab, chromedp.Evaluate[bool]("!!("+js+")"))
		if err == nil && is {
			return
		}
		select {
		case <-tick.C:
		case <-r.tab.Done():
			r.t.Fatalf("it never came to this: %s: %v", what, err)
		}
	}
}

// press presses keys, in order.
func (r *rig) press(keys ...string) {
	r.t.Helper()
	for _, k := range keys {
		r.do(chromedp.KeyEvent(k))
	}
}

// expect has the console say what a test brings about; it may say it later than the page shows it.
func (r *rig) expect(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expected = append(r.expected, text)
}

func (r *rig) demands() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// picture takes a screenshot of the whole page, into the directory that TIWKEYD_SCREENSHOTS names,
// for people to look at.
func (r *rig) picture(name string) {
	r.t.Helper()
	dir := os.Getenv("TIWKEYD_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(r.tab, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// login logs in, as people do it.
func (r *rig) login() {
	r.t.Helper()
	r.open("/login")
	r.do(chromedp.SendKeys(chromedp.CSS("#token"), token+"\r"), ready("#list"))
}
