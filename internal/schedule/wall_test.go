package schedule

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"tiwkeyd/secrets"
)

// TestSummerTime: a time that clocks leave out is made up right after, one that they show twice counts once.
func TestSummerTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec string
		runs []string // one after the other
	}{
		{"CRON_TZ=Europe/Helsinki 0 3 * * *", []string{"2027-03-27T01:00:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:00:00Z"}},
		{"CRON_TZ=Europe/Helsinki 0 3 * * *", []string{"2027-10-30T00:00:00Z", "2027-10-31T00:00:00Z", "2027-11-01T01:00:00Z"}},
		{"CRON_TZ=Europe/Helsinki 0 3 * * 0", []string{"2027-03-21T01:00:00Z", "2027-03-28T01:00:00Z", "2027-04-04T00:00:00Z"}},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", []string{"2027-03-27T01:30:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"}},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", []string{"2027-10-30T00:30:00Z", "2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"}},
		{"CRON_TZ=Europe/Berlin 15,45 2 * * *", []string{"2027-03-27T01:45:00Z", "2027-03-28T01:00:00Z", "2027-03-29T00:15:00Z"}}, // both are left out: one run
		{"CRON_TZ=Europe/Berlin 15,45 2 * * *", []string{"2027-10-31T00:15:00Z", "2027-10-31T00:45:00Z", "2027-11-01T01:15:00Z"}},
		{"CRON_TZ=Africa/Cairo 0 0 * * *", []string{"2027-04-28T22:00:00Z", "2027-04-29T22:00:00Z", "2027-04-30T21:00:00Z"}}, // from midnight on to one o'clock
		{"CRON_TZ=Africa/Cairo 30 23 * * *", []string{"2027-10-27T20:30:00Z", "2027-10-28T20:30:00Z", "2027-10-29T21:30:00Z"}},
		{"CRON_TZ=Asia/Beirut @daily", []string{"2027-03-26T22:00:00Z", "2027-03-27T22:00:00Z", "2027-03-28T21:00:00Z"}},
		{"CRON_TZ=America/Sao_Paulo 0 0 * * *", []string{"2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"CRON_TZ=America/Sao_Paulo 0 0 4 11 *", []string{"2018-11-04T03:00:00Z", "2019-11-04T03:00:00Z"}},
		{"CRON_TZ=America/New_York 30 2 * * *", []string{"2026-03-07T07:30:00Z", "2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"}},
		{"CRON_TZ=Australia/Lord_Howe 15 2 * * *", []string{"2027-10-01T15:45:00Z", "2027-10-02T15:30:00Z", "2027-10-03T15:15:00Z"}}, // by half an hour
		{"CRON_TZ=Pacific/Apia 0 3 * * *", []string{"2011-12-29T13:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T13:00:00Z"}},         // without the 30th
		{"CRON_TZ=Asia/Shanghai 0 3 * * *", []string{"2027-03-27T19:00:00Z", "2027-03-28T19:00:00Z"}},
		{"CRON_TZ=UTC 0 3 * * *", []string{"2027-03-28T03:00:00Z", "2027-03-29T03:00:00Z"}},
	} {
		s, err := Parse(c.spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		last := at(c.runs[0]).Add(-time.Second)
		for _, want := range c.runs {
			// In any place, right after the run or some seconds later.
			if late := s.Due(secrets.Target{}, last.Add(5*time.Second)); want != c.runs[0] && !late.Equal(at(want)) {
				t.Errorf("%s, five seconds after %s: %s, want %s", c.spec, last.UTC().Format(time.RFC3339), late.UTC().Format(time.RFC3339), want)
			}
			next := s.Due(secrets.Target{}, last)
			if !next.Equal(at(want)) {
				t.Errorf("%s after %s: %s, want %s", c.spec, last.UTC().Format(time.RFC3339), next.UTC().Format(time.RFC3339), want)
			}
			last = at(want)
		}
	}
}

// TestTwiceOnTheClock: while clocks show a time for the second time, what came at the first is over.
func TestTwiceOnTheClock(t *testing.T) {
	t.Parallel()
	s, err := Parse("CRON_TZ=Europe/Berlin 30 2 * * *", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, rotated := range []string{"2027-10-31T00:30:00Z", "2027-10-31T00:59:59Z", "2027-10-31T01:00:00Z", "2027-10-31T01:10:00Z", "2027-10-31T01:30:00Z"} {
		if next := s.Due(secrets.Target{}, at(rotated)); !next.Equal(at("2027-11-01T01:30:00Z")) {
			t.Errorf("after %s: %s", rotated, next.UTC())
		}
	}
}

// TestEveryDayOnce: whatever clocks do, a daily schedule comes once on each day that they show, for three years in
// each of the zones, and where they do nothing it comes when cron says.
func TestEveryDayOnce(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"Europe/Helsinki", "Europe/Berlin", "Europe/London", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Asia/Tehran", "America/Sao_Paulo",
		"America/New_York", "America/Havana", "Australia/Lord_Howe", "Pacific/Auckland", "Asia/Shanghai", "UTC"} {
		place, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range []string{"0 0", "30 0", "30 1", "0 2", "30 2", "0 3", "30 23"} {
			spec := "CRON_TZ=" + zone + " " + of + " * * *"
			s, err := Parse(spec, 0)
			if err != nil {
				t.Fatal(err)
			}
			bare, err := cron.ParseStandard(spec)
			if err != nil {
				t.Fatal(err)
			}
			last := time.Date(2017, 12, 31, 23, 59, 0, 0, place)
			for day := 1; day <= 3*365; day++ {
				next := s.Due(secrets.Target{}, last)
				if want := time.Date(2017, 12, 31+day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly); next.In(place).Format(time.DateOnly) != want {
					t.Fatalf("%s: after %s comes %s, not on %s", spec, last.In(place), next.In(place), want)
				}
				_, one := next.In(place).Add(-26 * time.Hour).Zone()
				_, other := next.In(place).Add(26 * time.Hour).Zone()
				if b := bare.Next(last); one == other && !b.Equal(next) {
					t.Fatalf("%s: after %s comes %s, cron says %s", spec, last.In(place), next.In(place), b.In(place))
				}
				last = next
			}
		}
	}
}

func TestCheckZone(t *testing.T) {
	t.Parallel()
	for tz, good := range map[string]bool{"": true, ":": true, "UTC": true, "Asia/Shanghai": true, ":Europe/Berlin": true, "Asia/Nowhere": false, "CET-1CEST": false, "/nowhere": false, "/etc/passwd": false, "../x": false} {
		if err := CheckZone(tz); (err == nil) != good {
			t.Errorf("%q: %v", tz, err)
		}
	}
}
