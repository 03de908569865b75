package page

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/secrets"
)

// detail is one target as the template shows it.
type detail struct {
	line
	Advice  []string // what the states mean, and what to do
	Trouble *trouble
	Facts   []fact
	Picture template.HTML
	Weeks   []string // under the picture
	History []ended
}

type trouble struct {
	observe.Trouble
	When stamp
}

type fact struct {
	Name, Value string
	ID          bool // the value is an id
	Time        stamp
}

type ended struct {
	Clock, Machine string
	Took, Overlap  string
	Result, Class  string
}

func (p *Page) target(w http.ResponseWriter, r *http.Request) {
	t, err := secrets.ParseTarget(r.PathValue("id") + "/" + r.PathValue("service"))
	if err != nil || p.Has != nil && !p.Has(t) {
		p.missing(w, r)
		return
	}
	report := p.Look()
	for _, row := range report.Rows {
		if row.Target == t {
			p.show(w, http.StatusOK, "target.html", p.frame(r, report, t.String(), detailOf(&row, p.Now())))
			return
		}
	}
	p.missing(w, r)
}

// advices are what the states of a target mean, and what to do. docs/operations.md has them, too.
var advices = []struct{ state, advice string }{
	{"unread", "The store was not read since the daemon started. If that lasts, the error says why; tiwkeyd check tells what mends it."},
	{"unadopted", "There is no keyring yet: the key in force at Tencent is taken over as soon as Tencent tells it."},
	{"unsigned", "No key was ever set: callbacks carry no signature until the first key is in force."},
	{"waiting", "Receivers come to accept the new key; it is set at Tencent when all of them do. Nothing is to be done."},
	{"pushing", "The new key is being set at Tencent, and looked for there. Receivers accept the old one and the new one."},
	{"rolled_back", "The new key did not come into force. The old one is in force as before, and no callback is refused. Mend what the error says, and rotate; otherwise it is tried again by itself."},
	{drift, "Somebody else set a key at Tencent: callbacks signed with it are refused. Unless TIWKEYD_ON_DRIFT says otherwise, ours is put back; find out who has the credential to do that."},
	{fought, "Whenever our key is put back, somebody sets another one, so it is put back less and less often: callbacks of one side are refused. Find the other daemon, script or person, and stop it, or have both daemons use one store."},
	{late, "The new key should be in force by now. The old one is, and no callback is refused. The error says what keeps the new one; if there is none, the log says why it waits."},
	{overdue, "The key should have been replaced by now. The error says what keeps it from that; if there is none, look at /healthz and at the log."},
}

func detailOf(r *observe.Row, now time.Time) detail {
	d := detail{line: lineOf(r, now), Picture: timeline(r.History, now, 720, 42, true)}
	for _, a := range advices {
		if a.state == string(r.Phase) || (a.state == drift || a.state == fought || a.state == late || a.state == overdue) && is(r, a.state) {
			d.Advice = append(d.Advice, a.advice)
		}
	}
	if !r.Trouble.At.IsZero() {
		t := r.Trouble
		t.Code, t.Text, t.RequestID, t.Advice = plain(t.Code), plain(t.Text), plain(t.RequestID), plain(t.Advice)
		d.Trouble = &trouble{t, stampOf(t.At, now)}
	}
	d.Facts = facts(r, now)
	for n := 4; n >= 0; n-- {
		d.Weeks = append(d.Weeks, now.Add(-shownSpan*time.Duration(n)/4).UTC().Format("2 Jan"))
	}
	for _, p := range slices.Backward(r.History) {
		at := p.StartedAt.Add(p.Took)
		e := ended{Clock: at.UTC().Format("2006-01-02 15:04 UTC"), Machine: rfc3339(at), Took: span(p.Took), Overlap: span(p.Overlap), Result: "new key in force", Class: "good"}
		if p.Code != "" {
			e.Result, e.Class = "rolled back: "+plain(p.Code), "failed"
		}
		d.History = append(d.History, e)
	}
	return d
}

// facts are what else is known of a target, each under a name.
func facts(r *observe.Row, now time.Time) []fact {
	var all []fact
	add := func(name, value string, id bool, t time.Time) {
		f := fact{Name: name, Value: value, ID: id}
		if !t.IsZero() {
			f.Time = stampOf(t, now)
		}
		all = append(all, f)
	}
	if r.KeyID != "" {
		add("Current key", r.KeyID, true, time.Time{})
		add("Made or adopted", "", false, r.KeyCreated)
	}
	never := ""
	if r.RotatedAt.IsZero() {
		never = "never replaced yet"
	}
	add("In force since", never, false, r.RotatedAt)
	if r.PendingID != "" {
		add("Pending key", r.PendingID, true, time.Time{})
		add("To be set at", "", false, r.PushAfter)
		add("Accepted by all receivers", "", false, r.ReadyAt)
	} else {
		onDemand := ""
		if r.Next.IsZero() {
			onDemand = "on demand only"
		}
		if r.Paused {
			onDemand = "paused: on demand only"
		}
		add("Next key", onDemand, false, r.Next)
	}
	add("Older keys still accepted", fmt.Sprint(r.Previous), false, time.Time{})
	if r.Reason != "" {
		add("Rotation", r.Rotation, true, time.Time{})
		add("Asked for by", string(r.Reason), false, time.Time{})
	}
	if r.PendingID != "" {
		who := "another replica"
		if r.Ours {
			who = "this replica"
		}
		add("Carried out by", who, false, time.Time{})
		add("Others may take over", "", false, r.LeaseUntil)
	}
	notYet := ""
	if r.At.IsZero() {
		notYet = "not yet"
	}
	add("Last looked after", notYet, false, r.At)
	return all
}
