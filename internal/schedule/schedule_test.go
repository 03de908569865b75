package schedule

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
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
	target := secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}
	for _, c := range []struct{ spec, rotated, want string }{
		{"CRON_TZ=UTC 0 3 * * *", "2026-05-01T03:00:01Z", "2026-05-02T03:00:00Z"},
		{"CRON_TZ=UTC 0 3 * * *", "2026-05-01T02:59:59Z", "2026-05-01T03:00:00Z"},
		{"CRON_TZ=UTC 0 3 * * *", "2020-05-01T02:59:59Z", "2020-05-01T03:00:00Z"}, // missed for years: due, once
		{"CRON_TZ=Asia/Shanghai 0 3 * * *", "2026-05-01T03:00:00Z", "2026-05-01T19:00:00Z"},
		{"TZ=UTC @daily", "2026-05-01T12:00:00Z", "2026-05-02T00:00:00Z"},
		{"@every 12h", "2026-05-01T12:34:56Z", "2026-05-02T00:34:56Z"},
		{"CRON_TZ=UTC 0 0 29 2 *", "2026-05-01T00:00:00Z", "2028-02-29T00:00:00Z"},
	} {
		s, err := Parse(c.spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Due(target, at(c.rotated)); !got.Equal(at(c.want)) {
			t.Errorf("%s after %s: %s, want %s", c.spec, c.rotated, got.UTC().Format(time.RFC3339), c.want)
		}
	}
	s, err := Parse("@yearly", 0)
	if err != nil || s.Due(target, time.Time{}).After(at("2000-01-01T00:00:00Z")) {
		t.Errorf("what was never rotated is not due at once: %v", err)
	}
}

// TestByKeyring: a keyring's own schedule counts, unless it cannot be used, which is logged once.
func TestByKeyring(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s, err := Parse("CRON_TZ=UTC 0 3 * * *", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	target, rotated := secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}, at("2026-05-01T12:00:00Z")
	for range 2 {
		due := s.ByKeyring(slog.New(slog.NewTextHandler(&log, nil)))
		for range 3 {
			for spec, after := range map[string]time.Duration{"": 15 * time.Hour, "CRON_TZ=UTC 0 4 * * *": 16 * time.Hour, "whenever": 15 * time.Hour} {
				k := &rotator.Keyring{Overrides: &rotator.Overrides{Schedule: spec}}
				want := rotated.Add(after + s.offset(target)) // the splay is everybody's
				if got := due(target, k, rotated); !got.Equal(want) || !s.Of(k).Due(target, rotated).Equal(want) {
					t.Errorf("%q: %s, want %s", spec, got, want)
				}
			}
			if got := due(target, nil, rotated); !got.Equal(s.Due(target, rotated)) || !due(target, &rotator.Keyring{}, rotated).Equal(got) {
				t.Errorf("without overrides: %s", got)
			}
		}
	}
	if said := log.String(); strings.Count(said, "\n") != 2 || strings.Count(said, `level=WARN msg="the schedule that overrides TIWKEYD_SCHEDULE cannot be used; TIWKEYD_SCHEDULE applies" target=1/whiteboard-push error="schedule \"whenever\"`) != 2 {
		t.Errorf("%s", said)
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
			s, err := Parse(c.spec, splay)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Keys(&rotator.Policy{Grace: c.grace, Propagation: c.propagation}, nil); got != c.want {
				t.Errorf("%s with %s, %s (splay %s): %d keys, want %d", c.spec, c.grace, c.propagation, splay, got, c.want)
			}
		}
	}
}

func TestScheduleNonsense(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"", "often", "* * * *", "* * * * * *", "61 * * * *", "@every", "@fortnightly", "CRON_TZ=UTC", "TZ=UTC", "TZ=", "CRON_TZ=Nowhere/Land 0 3 * * *", "0 0 30 2 *"} {
		if _, err := Parse(spec, 0); err == nil || !strings.Contains(err.Error(), "schedule") {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func TestSplay(t *testing.T) {
	t.Parallel()
	const splay = time.Hour
	s, err := Parse("CRON_TZ=UTC 0 3 * * *", splay)
	if err != nil {
		t.Fatal(err)
	}
	same, _ := Parse("CRON_TZ=UTC 0 3 * * *", splay)
	base := at("2026-05-02T03:00:00Z")
	quarters := [4]int{}
	for id := range int64(400) {
		target := secrets.Target{SdkAppID: id + 1, Service: secrets.WhiteboardPush}
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

func FuzzParse(f *testing.F) {
	for _, spec := range []string{"0 3 * * *", "CRON_TZ=UTC 0 3 * * 1-5", "@every 1h", "@daily", "TZ=", "*/7 1,2 * JAN-MAR ?"} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := Parse(spec, time.Hour)
		if err != nil {
			return
		}
		rotated := at("2026-05-01T12:00:00Z")
		if due := s.Due(secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}, rotated); !due.After(rotated) {
			t.Fatalf("%q is due at %s, which is not after %s", spec, due, rotated)
		}
	})
}

func TestLocalTimeAndLongSplay(t *testing.T) {
	old := time.Local
	time.Local = time.FixedZone("East", 8*3600)
	defer func() { time.Local = old }()
	s, err := Parse("0 3 * * *", 0)
	if err != nil {
		t.Fatal(err)
	}
	if due := s.Due(secrets.Target{SdkAppID: 1, Service: secrets.WhiteboardPush}, at("2026-05-01T12:00:00Z")); !due.Equal(at("2026-05-01T19:00:00Z")) {
		t.Errorf("three o'clock here is %s", due.UTC())
	}
	s, _ = Parse("0 * * * *", 3*time.Hour)
	for id := range int64(20) {
		target := secrets.Target{SdkAppID: id + 1, Service: secrets.WhiteboardPush}
		due := s.Due(target, at("2026-05-01T12:00:00Z"))
		if next := s.Due(target, due.Add(time.Second)); !next.Equal(due.Add(time.Hour)) {
			t.Errorf("%s is due at %s and then at %s", target, due, next)
		}
	}
}

func TestOverridesValidate(t *testing.T) {
	t.Parallel()
	p := &rotator.Policy{Propagation: 6 * time.Minute}
	for _, r := range []struct {
		o    rotator.Overrides
		want string // "" is valid
	}{
		{rotator.Overrides{}, ""},
		{rotator.Overrides{Schedule: "CRON_TZ=Asia/Shanghai 0 4 * * 0", Grace: 48 * time.Hour, Propagation: new(10 * time.Minute), Paused: true}, ""},
		{rotator.Overrides{Grace: rotator.MinGrace, Propagation: new(6 * time.Minute)}, ""},
		{rotator.Overrides{Grace: rotator.MinGrace - time.Second}, "grace"},
		{rotator.Overrides{Grace: rotator.MaxGrace + time.Second}, "grace"},
		{rotator.Overrides{Grace: rotator.MinGrace + time.Millisecond}, "grace"},
		{rotator.Overrides{Propagation: new(time.Duration(0))}, ""},
		{rotator.Overrides{Propagation: new(-time.Second)}, "from 0s to 24h"},
		{rotator.Overrides{Propagation: new(rotator.MaxPropagation + time.Second)}, "propagation"},
		{rotator.Overrides{Propagation: new(6*time.Minute + time.Millisecond)}, "propagation"},
		{rotator.Overrides{Schedule: "now and then"}, "schedule"},
		{rotator.Overrides{Schedule: "@every 6m"}, "takes longer than the propagation"},
		{rotator.Overrides{Schedule: "@every 8m", Propagation: new(10 * time.Minute)}, "takes longer than the propagation"},
		{rotator.Overrides{Schedule: "@every 5m", Propagation: new(time.Minute)}, ""},
	} {
		err := Validate(&r.o, p)
		if (err == nil) != (r.want == "") || (err != nil && !strings.Contains(err.Error(), r.want)) {
			t.Errorf("%+v: %v", r.o, err)
		}
	}
	err := Validate(&rotator.Overrides{Schedule: "x", Grace: 1, Propagation: new(time.Duration(1))}, p)
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not all that is wrong is told: %v", err)
	}
}
