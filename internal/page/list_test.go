package page

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tiwkeyd/internal/observe"
	"tiwkeyd/internal/page/pagetest"
)

// TestQueries: bad values are as if they were not there, and links keep what is good.
func TestQueries(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"": "/", "q=+14+&state=wrong&sort=age&dir=desc&page=2": "/?dir=desc&page=2&q=14&sort=age&state=wrong",
		"state=x&sort=y&dir=up&page=-3": "/", "page=x": "/", "page=0": "/", "dir=desc": "/", "sort=&dir=desc": "/", "q=KQ7": "/?q=kq7",
		"q=%3Cscript%3E": "/?q=%3Cscript%3E", "q=%ff%fe": "/", "q=" + strings.Repeat("%C3%A4", 60): "/?q=" + strings.Repeat("%C3%A4", 50), "page=99999999999999999999": "/",
		"state=rolled_back&state=settled": "/?state=rolled_back",
	} {
		v, _ := url.ParseQuery(query)
		if got := parseQuery(v).link(); got != want && query != "page=99999999999999999999" {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// FuzzList: whatever is asked for, there is a page, and its links lead to one.
func FuzzList(f *testing.F) {
	for _, q := range []string{"", "q=1&sort=age&dir=desc&page=2", "state=wrong", "%", "q=%ff", "page=9223372036854775808"} {
		f.Add(q)
	}
	rows := append(pagetest.States(), pagetest.Many(120)...)
	f.Fuzz(func(t *testing.T, raw string) {
		v, _ := url.ParseQuery(raw)
		q := parseQuery(v)
		some, counts := choose(rows, q)
		l := q.listing(some, counts, pagetest.Now)
		if len(l.Lines) > perPage || counts[q.state] != len(some) || (len(l.Lines) == 0) != (len(some) == 0) {
			t.Errorf("%q: %d lines of %d, counted %d", raw, len(l.Lines), len(some), counts[q.state])
		}
		links := []string{l.Previous, l.Following, q.link()}
		for _, f := range l.Filters {
			links = append(links, f.Link)
		}
		for _, c := range l.Columns {
			links = append(links, c.Link)
		}
		for _, link := range links {
			u, err := url.Parse(link)
			if err != nil || link != "" && u.Path != "/" {
				t.Fatalf("%q: %q, %v", raw, link, err)
			}
			if to := parseQuery(u.Query()); link != "" && to.link() != link {
				t.Errorf("%q: %s is %s", raw, link, to.link())
			}
			if to := parseQuery(u.Query()); link != "" && to.text != q.text {
				t.Errorf("%q: %s looks for something else", raw, link)
			}
		}
	})
}

// TestPaging: the pages of a list have each of its targets once, in order, whatever it is
// sorted by and filtered to.
func TestPaging(t *testing.T) {
	t.Parallel()
	all := append(pagetest.States(), pagetest.Many(300)[20:]...)
	sorts := []string{"", "target", "state", "key", "age", "next", "error"}
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.Permutation(all).Draw(t, "rows")[:rapid.IntRange(0, len(all)).Draw(t, "n")]
		q := query{text: rapid.SampledFrom([]string{"", "14", "/online", "none"}).Draw(t, "text"), state: rapid.SampledFrom(states()).Draw(t, "state"),
			sort: rapid.SampledFrom(sorts).Draw(t, "sort"), down: rapid.Bool().Draw(t, "down"), page: 1}
		want := map[string]bool{}
		for i := range rows {
			if is(&rows[i], q.state) && strings.Contains(rows[i].Target.String(), q.text) {
				want[rows[i].Target.String()] = true
			}
		}
		var last *observe.Row
		byName := map[string]*observe.Row{}
		for i := range rows {
			byName[rows[i].Target.String()] = &rows[i]
		}
		seen := 0
		for next := q.link(); next != ""; {
			u, err := url.Parse(next)
			if err != nil {
				t.Fatal(err)
			}
			to := parseQuery(u.Query())
			some, counts := choose(rows, to)
			l := to.listing(some, counts, pagetest.Now)
			for _, line := range l.Lines {
				if !want[line.Target] {
					t.Fatalf("%s is there twice, or should not be", line.Target)
				}
				delete(want, line.Target)
				row := byName[line.Target]
				if c := 0; last != nil {
					if c = orders[to.sort](last, row); to.down {
						c = -c
					}
					if c > 0 || c == 0 && last.Target.Compare(row.Target) > 0 {
						t.Fatalf("%s comes after %s", row.Target, last.Target)
					}
				}
				last = row
				seen++
			}
			if l.Last != seen || l.Total < seen {
				t.Fatalf("%d–%d of %d, after %d", l.First, l.Last, l.Total, seen)
			}
			next = l.Following
		}
		if len(want) != 0 {
			t.Fatalf("%d are on no page", len(want))
		}
	})
	q := parseQuery(url.Values{"page": {"1000"}})
	some, counts := choose(all, q)
	if l := q.listing(some, counts, pagetest.Now); l.Page != l.Pages || len(l.Lines) == 0 || l.Following != "" {
		t.Errorf("beyond the last page: %d of %d", l.Page, l.Pages)
	}
}

// TestOrder: what is wrong comes first by itself, what is not known comes last, and a head tells
// how its column is sorted.
func TestOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	order := func(path string) (apps []string) {
		for _, m := range regexp.MustCompile(`<tr[^>]*><th scope="row" class="t"><a href="\./target/14000000(\d\d)/`).FindAllStringSubmatch(r.get(path), -1) {
			apps = append(apps, m[1])
		}
		return apps
	}
	for path, want := range map[string]string{
		"/": "08 03 04 09 06 10 01 02 05 07 11 12", "/?sort=target": "01 02 03 04 05 06 07 08 09 10 11 12", "/?sort=target&dir=desc": "12 11 10 09 08 07 06 05 04 03 02 01",
		"/?sort=next": "09 06 02 03 11 07 04 01 08 10 05 12", "/?sort=error": "09 03 06 04 10 01 02 05 07 08 11 12", "/?state=overdue": "04 09", "/?state=drift": "08", "/?state=contested": "08", "/?state=late": "03",
		"/?state=failing": "03 04 09 06 10", "/?state=wrong&sort=target": "03 04 06 08 09 10", "/?q=transcode": "03 07 11", "/?q=kq70000007": "", "/?q=kq70000008": "08", "/?q=wm2": "03 02",
	} {
		if got := strings.Join(order(path), " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	for path, want := range map[string]string{"/": "", "/?sort=age": `class="a" aria-sort="ascending"`, "/?sort=age&dir=desc": `class="a" aria-sort="descending"`} {
		body := r.get(path)
		if n := strings.Count(body, "aria-sort"); !strings.Contains(body, want) || n != min(1, len(want)) {
			t.Errorf("%s: %d columns say how they are sorted", path, n)
		}
	}
	if body := r.get("/?state=drift&sort=age&q=14"); !strings.Contains(body, `href="./?dir=desc&amp;q=14&amp;sort=age&amp;state=drift"`) || !strings.Contains(body, `href="./?q=14&amp;sort=age&amp;state=overdue"`) ||
		!strings.Contains(body, `name="state" value="drift"`) || !strings.Contains(body, `name="sort" value="age"`) {
		t.Error("a link or the form forgets what was asked for")
	}
}
