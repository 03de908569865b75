package schedule

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// wall is a cron schedule that goes by the clocks on the walls of a place. Where these are put forward, a time that
// they leave out is made up right after; where they are put back, a time that they show twice counts once, the first
// time. cron alone leaves out the one and counts the other twice.
type wall struct {
	cron  cron.Schedule // in UTC, where every time is there once
	place *time.Location
}

// onWall gives s as a wall. "@every" goes by no clock on a wall, and stays as it is.
func onWall(s cron.Schedule) cron.Schedule {
	spec, ok := s.(*cron.SpecSchedule)
	if !ok {
		return s
	}
	place := spec.Location
	spec.Location = time.UTC
	return wall{spec, place}
}

// Next is the first time after t; zero if there is none.
func (w wall) Next(t time.Time) time.Time {
	shown := reading(t.In(w.place))
	for {
		if shown = w.cron.Next(shown); shown.IsZero() {
			return shown
		}
		// Clocks that were put back show what they showed before t once more.
		if next := firstAt(shown, w.place); next.After(t) {
			return next
		}
	}
}

// reading is what a clock on the wall shows at t, as if it were UTC.
func reading(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// firstAt is when clocks in place first show a time, or, if they leave it out, when they were put forward over it.
func firstAt(shown time.Time, place *time.Location) time.Time {
	t := time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), shown.Second(), shown.Nanosecond(), place)
	begin, end := t.ZoneBounds()
	switch there := reading(t); {
	case there.After(shown):
		return begin
	case there.Before(shown):
		return end
	}
	_, before := begin.Add(-1).Zone()
	if earlier := shown.Add(-time.Duration(before) * time.Second).In(place); earlier.Before(begin) {
		return earlier
	}
	return t
}

// CheckZone reports a TZ variable that names no time zone: times without a zone of their own are UTC then, and
// nothing says so.
func CheckZone(tz string) error {
	name := strings.TrimPrefix(tz, ":")
	if name == "" {
		return nil
	}
	_, err := time.LoadLocation(name)
	if strings.HasPrefix(name, "/") {
		var data []byte
		if data, err = os.ReadFile(name); err == nil {
			_, err = time.LoadLocationFromTZData(name, data)
		}
	}
	if err != nil {
		return fmt.Errorf("%q is no time zone, so that times are UTC; a zone is named as in Asia/Shanghai", tz)
	}
	return nil
}
