package page

import (
	"html/template"
	"time"

	"tiwkeyd/internal/observe"
)

// line is a target in the list.
type line struct {
	Target   string // it is its address, too
	Marks    []mark
	Key      string
	Pending  string
	Age      string // of the key in force
	Period   string // from one key to the next; "" if that is not known
	Share    int    // of the age in the period, in percent
	Next     string
	NextAt   string // RFC 3339; "" if there is none
	Timeline template.HTML
	Code     string // Tencent's, of the last error
	Trouble  string // the beginning of what it says
	Ago      string
	Bad      bool // somebody should look at it
	Late     bool
}

// mark is a word for a state, with a class that gives it a colour and a sign, so that colour is
// not all there is.
type mark struct{ Word, Class string }

// names are the words of states that are not words themselves.
var names = map[string]string{wrong: "to look at", "rolled_back": "rolled back", "unadopted": "not adopted yet", "unread": "not read yet", "waiting": "waiting for receivers", "pushing": "setting the key"}

func stateName(state string) string {
	if name := names[state]; name != "" {
		return name
	}
	return state
}

func marksOf(r *observe.Row) []mark {
	class := "quiet"
	switch r.Phase {
	case "settled":
		class = "good"
	case "waiting", "pushing":
		class = "busy"
	case "rolled_back":
		class = "failed"
	}
	marks := []mark{{stateName(string(r.Phase)), class}}
	if r.Drift {
		marks = append(marks, mark{"drift", "drift"})
	}
	if r.Contested {
		marks = append(marks, mark{"contested", "drift"})
	}
	if r.Late {
		marks = append(marks, mark{"late", "late"})
	}
	if r.Overdue {
		marks = append(marks, mark{"overdue", "late"})
	}
	return marks
}

// shownError is how much of an error the list has; the target's own page has all of it.
const shownError = 90

func lineOf(r *observe.Row, now time.Time) line {
	l := line{Target: r.Target.String(), Marks: marksOf(r), Key: r.KeyID, Pending: r.PendingID, Timeline: timeline(r.History, now, 160, 18, false), Bad: is(r, wrong), Late: r.Overdue}
	if from := since(r); !from.IsZero() {
		l.Age = span(now.Sub(from))
		if period := r.Due.Sub(r.RotatedAt); !r.RotatedAt.IsZero() && period > 0 {
			l.Period, l.Share = span(period), int(min(100, max(0, 100*now.Sub(from)/period)))
		}
	}
	l.Next, l.NextAt = nextOf(r, now)
	if t := r.Trouble; !t.At.IsZero() {
		l.Code, l.Trouble, l.Ago = beginning(plain(t.Code), shownError), beginning(plain(t.Text), shownError), relative(t.At, now)
	}
	return l
}

func nextOf(r *observe.Row, now time.Time) (words, at string) {
	switch {
	case r.PendingID != "" && now.Before(r.ReadyAt):
		return "in force " + relative(r.ReadyAt, now), rfc3339(r.ReadyAt)
	case r.PendingID != "":
		return "under way", ""
	case r.Paused:
		return "paused", ""
	case r.Next.IsZero():
		return "on demand", ""
	case r.Next.After(now):
		return relative(r.Next, now), rfc3339(r.Next)
	}
	return "due " + relative(r.Next, now), rfc3339(r.Next)
}

// beginning is at most n characters of s.
func beginning(s string, n int) string {
	seen := 0
	for i := range s {
		if seen == n {
			return s[:i] + "…"
		}
		seen++
	}
	return s
}
