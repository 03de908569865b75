package page

import (
	"cmp"
	"net/http"
	"time"

	"tiwkeyd/internal/observe"
)

// perPage is how many targets a page has: with all their history it stays below 100 kB.
const perPage = 50

// listing is the list as the template shows it.
type listing struct {
	Text, State, Sort   string
	Down                bool
	Filters             []filter
	Columns             []column
	Lines               []line
	First, Last, Total  int
	Page, Pages         int
	Previous, Following string // links; "": there is none
	All                 string // the link to everything, if this is not
}

type filter struct {
	Name, Link string
	Count      int
	Here       bool
}

type column struct{ Name, Class, Link, Sorted string }

// columns are in the order of the page: the name of the order, the class, the title.
var columns = [][3]string{{"target", "t", "Target"}, {"state", "s", "State"}, {"key", "k", "Key"}, {"age", "a", "Age"}, {"next", "n", "Next key"}, {"", "h", "Last 30 days"}, {"error", "e", "Last error"}}

func (p *Page) list(w http.ResponseWriter, r *http.Request) {
	q, report := parseQuery(r.URL.Query()), p.Look()
	some, counts := choose(report.Rows, q)
	l := q.listing(some, counts, p.Now())
	title := "Targets"
	if n := counts[wrong]; n > 0 {
		title = plural(n, "target") + " to look at"
	}
	p.show(w, http.StatusOK, "list.html", p.frame(r, report, title, l))
}

func (q query) listing(some []*observe.Row, counts map[string]int, now time.Time) listing {
	pages := max(1, (len(some)+perPage-1)/perPage)
	q.page = min(q.page, pages)
	l := listing{Text: q.text, State: q.state, Sort: q.sort, Down: q.down, Total: len(some), Page: q.page, Pages: pages}
	with := func(change func(*query)) string {
		to := q
		to.page = 1
		change(&to)
		return to.link()
	}
	for _, state := range states() {
		if counts[state] > 0 || state == "" || state == wrong || state == q.state {
			l.Filters = append(l.Filters, filter{cmp.Or(stateName(state), "all"), with(func(to *query) { to.state = state }), counts[state], state == q.state})
		}
	}
	for _, c := range columns {
		col := column{Name: c[2], Class: c[1]}
		if c[0] != "" {
			here := q.sort == c[0]
			col.Link = with(func(to *query) { to.sort, to.down = c[0], here && !q.down })
			switch {
			case here && q.down:
				col.Sorted = "descending"
			case here:
				col.Sorted = "ascending"
			}
		}
		l.Columns = append(l.Columns, col)
	}
	from := (q.page - 1) * perPage
	to := min(len(some), from+perPage)
	for _, r := range some[from:to] {
		l.Lines = append(l.Lines, lineOf(r, now))
	}
	if l.Last = to; to > 0 {
		l.First = from + 1
	}
	page := q.page
	if page > 1 {
		l.Previous = with(func(to *query) { to.page = page - 1 })
	}
	if page < pages {
		l.Following = with(func(to *query) { to.page = page + 1 })
	}
	if q.text != "" || q.state != "" {
		l.All = with(func(to *query) { to.text, to.state = "", "" })
	}
	return l
}
