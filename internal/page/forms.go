package page

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"tiwkeyd/internal/observe"
	"tiwkeyd/secrets"
)

const (
	maxForm = 4 << 10 // bytes
	noToken = "nothing can be changed here: TIWKEYD_HTTP_TOKEN is not set"
)

// askForToken shows the form to log in with.
func (p *Page) askForToken(w http.ResponseWriter, r *http.Request) {
	if p.Token() == "" {
		http.Error(w, noToken, http.StatusNotFound)
		return
	}
	f := p.frame(r, observe.Report{}, "Log in", nil)
	f.Back = inside(r.URL.Query().Get("back"))
	p.show(w, http.StatusOK, "login.html", f)
}

func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	back := inside(r.PostFormValue("back"))
	refuse := func(status int, log, says string) {
		p.refused.Warn(log, "remote", r.RemoteAddr)
		f := p.frame(r, observe.Report{}, "Log in", nil)
		f.Failed, f.Back, f.Here = says, back, "/login"
		p.show(w, status, "login.html", f)
	}
	switch {
	case p.Token() == "":
		http.Error(w, noToken, http.StatusNotFound)
		return
	case !p.door.tries.AllowN(p.Now(), 1):
		w.Header().Set("Retry-After", "5")
		refuse(http.StatusTooManyRequests, "there are too many logins to the status page; this one was not looked at", "There were too many tries. Wait a few seconds.")
		return
	}
	cookie, ok := p.door.open(r, r.PostFormValue("token"))
	if !ok {
		refuse(http.StatusForbidden, "a login to the status page was refused: the token is wrong", "That is not the token.")
		return
	}
	p.Log.Info("somebody logged in to the status page", "remote", r.RemoteAddr)
	http.SetCookie(w, cookie)
	redirect(w, r, back)
}

func (p *Page) logout(w http.ResponseWriter, r *http.Request) {
	if p.allowed(w, r) {
		p.door.close(r)
		redirect(w, r, inside(r.PostFormValue("back")))
	}
}

// rotate asks for a new key. The engine begins on its own time: the page says that it was told.
func (p *Page) rotate(w http.ResponseWriter, r *http.Request) {
	if !p.allowed(w, r) {
		return
	}
	t, err := secrets.ParseTarget(r.PostFormValue("target"))
	if err != nil {
		http.Error(w, ErrNotServed.Error(), http.StatusNotFound)
		return
	}
	switch err := p.Ask(t); {
	case errors.Is(err, ErrNotServed):
		http.Error(w, ErrNotServed.Error(), http.StatusNotFound)
	case err != nil:
		p.Log.Error("a new key was asked for on the status page, and cannot be had", "target", t.String(), "remote", r.RemoteAddr, "error", err.Error())
		http.Error(w, "no new key was asked for: "+err.Error(), http.StatusServiceUnavailable)
	default:
		p.Log.Info("a new key was asked for on the status page", "target", t.String(), "remote", r.RemoteAddr)
		p.door.tell(r, "A new key was asked for. The daemon begins as soon as it can.")
		redirect(w, r, "/target/"+t.String())
	}
}

// allowed turns away who has no session, and a form that was not made for it.
func (p *Page) allowed(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	in, ours := p.door.admits(r, r.PostFormValue("csrf"))
	switch {
	case p.Token() == "":
		http.Error(w, noToken, http.StatusNotFound)
	case !in:
		http.Error(w, "log in first, on the status page", http.StatusForbidden)
	case !ours:
		p.refused.Warn("a form without the secret of its session was sent to the status page and refused", "path", r.URL.Path, "remote", r.RemoteAddr)
		http.Error(w, "this form is not of your session: load the page again", http.StatusForbidden)
	default:
		return true
	}
	return false
}

// inside is the path of a page of ours, the first page if back is none: nobody is led elsewhere.
func inside(back string) string {
	u, err := url.Parse(back)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || u.Path != "/" && !strings.HasPrefix(u.Path, "/target/") {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).RequestURI()
}
