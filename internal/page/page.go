// Package page is the status page of the daemon: a table of the targets, and a page for each.
// It is rendered on the server from what the engine remembers anyway, so that looking at it
// costs no call to Vault or Tencent. It works without JavaScript; with it, it refreshes
// itself. It shows ids of keys and no key. Whoever has the token may have keys rotated.
package page

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tiwkeyd/internal/logs"
	"tiwkeyd/internal/observe"
	"tiwkeyd/secrets"
)

// ErrNotServed says that a target is none of those that are looked after.
var ErrNotServed = errors.New("this target is not served")

// Options are a page's parts. Look is required.
type Options struct {
	Look    func() observe.Report      // how everything stands, the targets in any order; it costs time
	Has     func(secrets.Target) bool  // a target is looked after; nil: Look tells
	Ask     func(secrets.Target) error // asks for a new key; ErrNotServed, or why it cannot; nil: nobody may
	Token   func() string              // what allows to ask; nil or "": nobody may
	Secure  func() bool                // people come by TLS, which a proxy before this ends; nil: they do not
	Now     func() time.Time           // nil: time.Now
	Log     *slog.Logger               // nil: none
	Version string
}

// Page serves the status page. It is safe for concurrent use.
type Page struct {
	Options
	refused *slog.Logger // what strangers were refused
	door    *door
	assets  assets
	mux     http.Handler
}

//go:embed templates
var texts embed.FS

var templates = template.Must(template.New("").ParseFS(texts, "templates/*.html"))

// New gives a Page.
func New(o Options) *Page {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Token == nil || o.Ask == nil {
		o.Token = func() string { return "" }
	}
	if o.Secure == nil {
		o.Secure = func() bool { return false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Page{Options: o, refused: logs.Limit(o.Log), door: newDoor(o.Token, o.Secure, o.Now), assets: readAssets()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.list)
	mux.HandleFunc("GET /target/{id}/{service}", p.target)
	mux.HandleFunc("GET /static/{version}/{name}", p.assets.serve)
	mux.HandleFunc("GET /favicon.ico", p.assets.icon)
	mux.HandleFunc("GET /login", p.askForToken)
	mux.HandleFunc("POST /login", p.login)
	mux.HandleFunc("POST /logout", p.logout)
	mux.HandleFunc("POST /rotate", p.rotate)
	mux.HandleFunc("GET /", p.missing)
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.refused.Warn("a form of another site was sent to the status page and refused", "path", r.URL.Path, "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"))
		http.Error(w, "this form was sent from another site: open the status page itself", http.StatusForbidden)
	}))
	p.mux = guarded(origin.Handler(mux))
	return p
}

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// policy lets a browser load nothing but our own files, send forms nowhere else, and show the
// page in nobody's frame.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guarded sets what a browser has to heed.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin") // no-referrer would have forms sent with the origin "null"
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// frame is what every page has.
type frame struct {
	Title   string
	Version string
	Now     stamp
	Here    string // the address of this page
	up      string // from it to the first page
	Wrong   string // with the daemon
	Summary string
	Login   bool // it is possible
	In      bool // and done
	CSRF    string
	Note    string // what was done a moment ago
	Failed  string // why a login was refused
	Back    string // where a login leads to
	Assets  assets
	Body    any
}

// At is where a page of ours is, as seen from this one: whatever path a proxy puts before ours, it
// does not know.
func (f frame) At(page string) string { return f.up + page }

// up leads from what was asked for to the first page, but for the slash at its end.
func up(r *http.Request) string {
	return strings.TrimSuffix("./"+strings.Repeat("../", max(0, strings.Count(r.URL.EscapedPath(), "/")-1)), "/")
}

// redirect sends to a page of ours. http.Redirect would make its address an absolute one.
func redirect(w http.ResponseWriter, r *http.Request, page string) {
	w.Header().Set("Location", up(r)+page)
	w.WriteHeader(http.StatusSeeOther)
}

// frame takes an empty report for a page that is to cost no look at the targets.
func (p *Page) frame(r *http.Request, report observe.Report, title string, body any) frame {
	now := p.Now()
	f := frame{Title: title, Version: p.Version, Now: stampOf(now, now), Here: r.URL.RequestURI(), up: up(r), Summary: report.Summary, Login: p.Token() != "", Assets: p.assets, Body: body}
	if report.Wrong != nil {
		f.Wrong = plain(report.Wrong.Error())
	}
	f.CSRF, f.Note, f.In = p.door.enter(r)
	return f
}

// show renders into memory first: a page is whole, or it is an error.
func (p *Page) show(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		p.Log.Error("the status page could not be rendered", "error", err.Error())
		http.Error(w, "the page could not be rendered; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = b.WriteTo(w)
}

func (p *Page) missing(w http.ResponseWriter, r *http.Request) {
	p.show(w, http.StatusNotFound, "missing.html", p.frame(r, observe.Report{}, "Not here", nil))
}
