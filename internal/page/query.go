package page

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/rotator"
)

// Filters beside the phases.
const (
	wrong   = "wrong" // anything of what follows
	overdue = "overdue"
	late    = "late"
	drift   = "drift"
	fought  = "contested"
	failing = "failing"
)

func states() []string {
	all := []string{"", wrong, overdue, late, drift, fought, failing}
	for _, p := range rotator.Phases() {
		all = append(all, string(p))
	}
	return all
}

// maxText is how much of a text is looked for.
const maxText = 100

// query is what of the list is asked for. What makes no sense is as if it were not there.
type query struct {
	text, state, sort string
	down              bool
	page              int // from 1 on
}

func parseQuery(v url.Values) query {
	q := query{state: v.Get("state"), sort: v.Get("sort"), down: v.Get("dir") == "desc"}
	q.text = strings.ToLower(plain(strings.ToValidUTF8(v.Get("q"), "")))
	q.text = strings.TrimSpace(strings.ToValidUTF8(q.text[:min(maxText, len(q.text))], ""))
	if !slices.Contains(states(), q.state) {
		q.state = ""
	}
	if orders[q.sort] == nil {
		q.sort = ""
	}
	if q.sort == "" {
		q.down = false // what is wrong comes first
	}
	q.page, _ = strconv.Atoi(v.Get("page"))
	q.page = max(1, q.page)
	return q
}

// link is the address of the list for a query.
func (q query) link() string {
	v := url.Values{}
	for name, value := range map[string]string{"q": q.text, "state": q.state, "sort": q.sort} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.down {
		v.Set("dir", "desc")
	}
	if q.page > 1 {
		v.Set("page", strconv.Itoa(q.page))
	}
	if len(v) == 0 {
		return "/"
	}
	return "/?" + v.Encode()
}

func is(r *observe.Row, state string) bool {
	switch state {
	case "":
		return true
	case overdue:
		return r.Overdue
	case late:
		return r.Late
	case drift:
		return r.Drift
	case fought:
		return r.Contested
	case failing:
		return !r.Trouble.At.IsZero()
	case wrong:
		return r.Overdue || r.Late || r.Drift || r.Contested || !r.Trouble.At.IsZero()
	}
	return string(r.Phase) == state
}

// orders compare two rows, by column. The empty one has what is wrong first.
var orders = map[string]func(a, b *observe.Row) int{
	"":       func(a, b *observe.Row) int { return cmp.Compare(severity(b), severity(a)) },
	"target": func(a, b *observe.Row) int { return a.Target.Compare(b.Target) },
	"state": func(a, b *observe.Row) int {
		return cmp.Compare(stateName(string(a.Phase)), stateName(string(b.Phase)))
	},
	"key":  func(a, b *observe.Row) int { return cmp.Compare(a.KeyID, b.KeyID) },
	"age":  func(a, b *observe.Row) int { return since(b).Compare(since(a)) },
	"next": func(a, b *observe.Row) int { return knownFirst(a.Next, b.Next, a.Next.Compare(b.Next)) },
	"error": func(a, b *observe.Row) int {
		return knownFirst(a.Trouble.At, b.Trouble.At, b.Trouble.At.Compare(a.Trouble.At))
	},
}

// knownFirst puts a time that there is before one that there is not.
func knownFirst(a, b time.Time, order int) int {
	switch {
	case a.IsZero() == b.IsZero():
		return order
	case a.IsZero():
		return 1
	}
	return -1
}

// since is when the current key came into force, as far as that is known.
func since(r *observe.Row) time.Time {
	if r.KeyID == "" || !r.RotatedAt.IsZero() {
		return r.RotatedAt
	}
	return r.KeyCreated
}

// severity is how much a target is in need of somebody: callbacks may be refused, a key is too
// old, something failed.
func severity(r *observe.Row) int {
	n := 0
	if r.Drift || r.Contested {
		n += 4
	}
	if r.Overdue || r.Late {
		n += 2
	}
	if !r.Trouble.At.IsZero() {
		n++
	}
	return n
}

// choose gives the rows that are asked for, in order, and how many of those with the text are
// in each state.
func choose(rows []observe.Row, q query) (some []*observe.Row, counts map[string]int) {
	counts = map[string]int{}
	for i := range rows {
		r := &rows[i]
		if q.text != "" && !strings.Contains(r.Target.String(), q.text) && !strings.Contains(strings.ToLower(r.KeyID), q.text) && !strings.Contains(strings.ToLower(r.PendingID), q.text) {
			continue
		}
		for _, s := range states() {
			if is(r, s) {
				counts[s]++
			}
		}
		if is(r, q.state) {
			some = append(some, r)
		}
	}
	order := orders[q.sort]
	slices.SortFunc(some, func(a, b *observe.Row) int {
		c := order(a, b)
		if q.down {
			c = -c
		}
		return cmp.Or(c, a.Target.Compare(b.Target))
	})
	return some, counts
}
