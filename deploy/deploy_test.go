// Package deploy_test tries what this folder offers to those who run tiwkeyd.
package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	metricName = regexp.MustCompile(`\btiwkeyd_[a-z_]+`)
	histogram  = regexp.MustCompile(`_seconds_(bucket|sum|count)$`)
	alertRule  = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	runbookURL = regexp.MustCompile(`(?m)^ +runbook_url: (.*)$`)
	section    = regexp.MustCompile(`(?m)^### (Tiwkeyd\w+)$`)
)

func found(re *regexp.Regexp, in string) []string {
	var all []string
	for _, m := range re.FindAllStringSubmatch(in, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestRunbook: each alert has a section in the operations page and each such section an alert,
// and the metrics that are named are among those of the page's table, which is held against
// the daemon's own.
func TestRunbook(t *testing.T) {
	page, rules, cases := text(t, "../docs/operations.md"), text(t, "prometheus/rules.yaml"), text(t, "prometheus/rules_test.yaml")
	alerts, sections := found(alertRule, rules), found(section, page)
	if len(alerts) == 0 || !slices.Equal(alerts, sections) {
		t.Errorf("the alerts are\n%v\nand the runbook's sections\n%v", alerts, sections)
	}
	var anchors []string
	for _, a := range alerts {
		anchors = append(anchors, "file:///usr/share/doc/tiwkeyd/operations.md#"+strings.ToLower(a))
		if n := strings.Count(cases, "alertname: "+a+"\n"); n < 3 {
			t.Errorf("%s has %d tests: it needs one while all is well, one before its time and one when it fires", a, n)
		}
	}
	if urls := found(runbookURL, rules); !slices.Equal(urls, anchors) {
		t.Errorf("the alerts lead to\n%v\nand should to\n%v", urls, anchors)
	}
	_, rest, _ := strings.Cut(page, "<!-- metrics: begin -->")
	table, _, _ := strings.Cut(rest, "<!-- metrics: end -->")
	for _, file := range []string{"prometheus/rules.yaml", "grafana/dashboard.json"} {
		names := metricName.FindAllString(text(t, file), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if name = histogram.ReplaceAllString(name, "_seconds"); !strings.Contains(table, "| `"+name+"` |") {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

// TestStartedAgain: whatever ended them, and however often.
func TestStartedAgain(t *testing.T) {
	unit := text(t, "systemd/tiwkeyd.service")
	for _, line := range []string{"Restart=always", "RestartSec=5s", "StartLimitIntervalSec=0"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit does not have %s", line)
		}
	}
	if compose := text(t, "compose/compose.yaml"); strings.Count(compose, "restart: unless-stopped") != 2 || strings.Contains(compose, "on-failure") {
		t.Error("compose does not start all again")
	}
}

// TestDashboard: what Grafana would not say a word about, and show badly.
func TestDashboard(t *testing.T) {
	var d struct {
		UID, Title string
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			ID         int
			Title      string
			GridPos    struct{ X, Y, W, H int }
			Datasource struct{ UID string }
			Targets    []struct {
				Expr       string
				Datasource struct{ UID string }
			}
		}
	}
	if err := json.Unmarshal([]byte(text(t, "grafana/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || len(d.Panels) == 0 || len(d.Templating.List) < 2 || d.Templating.List[0].Type != "datasource" {
		t.Fatal("no uid, title, panels or variable for the data source")
	}
	for i, p := range d.Panels {
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s is not within the 24 columns", p.Title)
		}
		for _, q := range d.Panels[:i] {
			o := q.GridPos
			if p.ID == q.ID || g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
				t.Errorf("%s and %s have one id, or lie on each other", p.Title, q.Title)
			}
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%s asks nothing, or not the data source that was chosen", p.Title)
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" || !strings.Contains(q.Expr, `{job=~"$job"`) {
				t.Errorf("%s asks of others than were chosen: %s", p.Title, q.Expr)
			}
		}
	}
}
