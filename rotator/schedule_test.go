package rotator

import (
	"strings"
	"testing"
	"time"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDue(t *testing.T) {
	t.Parallel()
	target := Target{1, WhiteboardPush}
	for _, c := range []struct{ spec, rotated, want string }{
		{"CRON_TZ=UTC 0 3 * * *", "2026-05-01T03:00:01Z", "2026-05-02T03:00:00Z"},
		{"CRON_TZ=UTC 0 3 * * *", "2026-05-01T02:59:59Z", "2026-05-01T03:00:00Z"},
		{"CRON_TZ=UTC 0 3 * * *", "2020-05-01T02:59:59Z", "2020-05-01T03:00:00Z"}, // missed for years: due, once
		{"CRON_TZ=Asia/Shanghai 0 3 * * *", "2026-05-01T03:00:00Z", "2026-05-01T19:00:00Z"},
		{"TZ=UTC @daily", "2026-05-01T12:00:00Z", "2026-05-02T00:00:00Z"},
		{"@every 12h", "2026-05-01T12:34:56Z", "2026-05-02T00:34:56Z"},
		{"CRON_TZ=UTC 0 0 29 2 *", "2026-05-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		// Clocks go forward over 02:30 in New York: the day's run is skipped, not doubled.
		{"CRON_TZ=America/New_York 30 2 * * *", "2026-03-07T08:00:00Z", "2026-03-09T06:30:00Z"},
	} {
		s, err := ParseSchedule(c.spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Due(target, at(c.rotated)); !got.Equal(at(c.want)) {
			t.Errorf("%s after %s: %s, want %s", c.spec, c.rotated, got.UTC().Format(time.RFC3339), c.want)
		}
	}
	s, err := ParseSchedule("@yearly", 0)
	if err != nil || s.Due(target, time.Time{}).After(at("2000-01-01T00:00:00Z")) {
		t.Errorf("what was never rotated is not due at once: %v", err)
	}
}

func TestScheduleKeys(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, c := range []struct {
		spec               string
		grace, propagation time.Duration
		want               int
	}{
		{"@every 1s", day, 0, MaxKeys + 1},
		{"@every 24h", day, 0, 3},
		{"@every 12h", day, 0, 4},
		{"@every 10m", day, 6 * time.Minute, 90 + 2}, // every 16 minutes
		{"@every 10m", day, 0, 144 + 2},
		{"@every 30s", day, 10 * time.Minute, 138 + 2},
		{"CRON_TZ=UTC 0 3 * * *", day, 6 * time.Minute, 3},
		{"CRON_TZ=UTC 0 * * * *", day, 6 * time.Minute, 24 + 2},
		{"CRON_TZ=UTC 0 3 * * *", 10 * 365 * day, 0, MaxKeys + 1},
		{"CRON_TZ=UTC 0 3 * * *", 498 * day, 0, MaxKeys},
		{"CRON_TZ=UTC 0 3 * * *", 499 * day, 0, MaxKeys + 1},
		{"CRON_TZ=UTC * 3 1 * *", day, 0, 60 + 2}, // once a month, all at once
		{"CRON_TZ=Asia/Shanghai */10 3 * * *", day, 6 * time.Minute, 6 + 2},
		{"CRON_TZ=UTC * * 1 1 *", 10 * time.Minute, 0, 10 + 2},
		// Clocks go forward in New York: five weeks' Sundays are an hour nearer.
		{"CRON_TZ=America/New_York 0 3 * * 0", 35*day - time.Minute, 0, 6 + 2},
		{"@yearly", day, 6 * time.Minute, 3},
		{"@yearly", 10 * 365 * day, 0, 10 + 2},
		{"CRON_TZ=UTC 0 0 29 2 *", day, 0, 3},
	} {
		for _, splay := range []time.Duration{0, 3 * time.Hour} {
			s, err := ParseSchedule(c.spec, splay)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Keys(&Policy{Grace: c.grace, Propagation: c.propagation}, nil); got != c.want {
				t.Errorf("%s with %s, %s (splay %s): %d keys, want %d", c.spec, c.grace, c.propagation, splay, got, c.want)
			}
		}
	}
}

func TestScheduleNonsense(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"", "often", "* * * *", "* * * * * *", "61 * * * *", "@every", "@fortnightly", "CRON_TZ=UTC", "TZ=UTC", "TZ=", "CRON_TZ=Nowhere/Land 0 3 * * *", "0 0 30 2 *"} {
		if _, err := ParseSchedule(spec, 0); err == nil || !strings.Contains(err.Error(), "schedule") {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func TestSplay(t *testing.T) {
	t.Parallel()
	const splay = time.Hour
	s, err := ParseSchedule("CRON_TZ=UTC 0 3 * * *", splay)
	if err != nil {
		t.Fatal(err)
	}
	same, _ := ParseSchedule("CRON_TZ=UTC 0 3 * * *", splay)
	base := at("2026-05-02T03:00:00Z")
	quarters := [4]int{}
	for id := range int64(400) {
		target := Target{id + 1, WhiteboardPush}
		due := s.Due(target, at("2026-05-01T12:00:00Z"))
		late := due.Sub(base)
		if late < 0 || late >= splay {
			t.Fatalf("%s is due %s after the schedule's time", target, late)
		}
		if again := same.Due(target, at("2026-05-01T12:00:00Z")); !again.Equal(due) {
			t.Fatalf("%s is due at %s and at %s", target, due, again)
		}
		if next := s.Due(target, due.Add(time.Second)); !next.Equal(due.Add(24 * time.Hour)) {
			t.Fatalf("%s is due next at %s, a day after %s", target, next, due)
		}
		quarters[late/(splay/4)]++
	}
	for i, n := range quarters {
		if n < 60 {
			t.Errorf("quarter %d of the splay has %d of 400 targets", i, n)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, spec := range []string{"0 3 * * *", "CRON_TZ=UTC 0 3 * * 1-5", "@every 1h", "@daily", "TZ=", "*/7 1,2 * JAN-MAR ?"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := ParseSchedule(spec, time.Hour)
		if err != nil {
			return
		}
		rotated := at("2026-05-01T12:00:00Z")
		if due := s.Due(Target{1, WhiteboardPush}, rotated); !due.After(rotated) {
			t.Fatalf("%q is due at %s, which is not after %s", spec, due, rotated)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"1400000001", "1/online-record", "-1", "9223372036854775808", " 7 ", "7/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			return
		}
		if again, err := ParseTarget(target.String()); err != nil || again != target {
			t.Fatalf("%q reads as %s, which reads as %s, %v", s, target, again, err)
		}
	})
}

func TestLocalTimeAndLongSplay(t *testing.T) {
	old := time.Local
	time.Local = time.FixedZone("East", 8*3600)
	defer func() { time.Local = old }()
	s, err := ParseSchedule("0 3 * * *", 0)
	if err != nil {
		t.Fatal(err)
	}
	if due := s.Due(codecTarget, at("2026-05-01T12:00:00Z")); !due.Equal(at("2026-05-01T19:00:00Z")) {
		t.Errorf("three o'clock here is %s", due.UTC())
	}
	s, _ = ParseSchedule("0 * * * *", 3*time.Hour)
	for id := range int64(20) {
		target := Target{id + 1, WhiteboardPush}
		due := s.Due(target, at("2026-05-01T12:00:00Z"))
		if next := s.Due(target, due.Add(time.Second)); !next.Equal(due.Add(time.Hour)) {
			t.Errorf("%s is due at %s and then at %s", target, due, next)
		}
	}
	if now := NewSystemClock().Now(); now != now.Round(0) {
		t.Error("the wall clock's time has a monotonic part")
	}
	if (Snapshot{}).sameCurrent(settled().s) || settled().s.sameCurrent(Snapshot{}) || !(Snapshot{}).sameCurrent(Snapshot{}) {
		t.Error("a keyring that is lost, or new, is taken for the same")
	}
}

func TestRotatedAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ rotated, written, want time.Time }{
		"as it stands":                       {minute(-60), minute(-60), minute(-60)},
		"the store tells no time":            {minute(-60), time.Time{}, minute(-60)},
		"within the skew":                    {minute(2), minute(0), minute(2)},
		"a clock far ahead wrote it":         {minute(9999), minute(-600), minute(-600)},
		"and the store does not tell either": {minute(9999), time.Time{}, time.Time{}},
		"the store's clock is ahead as well": {minute(9999), minute(9999), time.Time{}},
	} {
		s := Snapshot{Keyring: &Keyring{RotatedAt: c.rotated}, Written: c.written}
		if got := s.rotatedAt(t0, &tablePolicy); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
