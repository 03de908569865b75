package observe

import (
	"errors"
	"time"

	"tiwkeyd/rotator"
)

// Row is a target as a page shows it.
type Row struct {
	rotator.Standing
	Next    time.Time // when the next rotation or attempt is to begin, or should have; zero: never
	Overdue bool
	Late    bool    // the pending key should be in force by now
	Trouble Trouble // zero if all has gone well since
}

// Trouble is what failed last, in words. They may be somebody else's: Tencent's, a proxy's.
type Trouble struct {
	At        time.Time
	Code      string // Tencent's; "" if it was not Tencent that failed
	Text      string
	RequestID string
	Advice    string
}

// Report is how everything stands, by one look.
type Report struct {
	Rows    []Row  // of every target, in the order of the configuration
	Wrong   error  // what Ready tells; nil: nothing is
	Summary string // the targets in a line
}

// Report tells how everything stands.
func (m *Monitor) Report() Report {
	r := m.reports.Get(m.count(), func() Report {
		v, now := m.look(), time.Now()
		return Report{v.rows(now), nil, v.summary(now)}
	})
	r.Wrong = m.Ready()
	return r
}

func (v view) rows(now time.Time) []Row {
	rows := make([]Row, len(v.standings))
	for i, s := range v.standings {
		of := v.memory[s.Target]
		s.Phase = s.PhaseAt(now)
		rows[i] = Row{Standing: s, Next: next(s, of), Overdue: overdue(s, of, v.Policy, now), Late: late(s, now), Trouble: trouble(s, of)}
	}
	return rows
}

// trouble is the newer of what this replica met with and what the keyring tells, which another
// replica may have written. A rotation that has succeeded since, whoever did it, ends both.
func trouble(s rotator.Standing, of memory) Trouble {
	t := of.trouble
	if !t.At.After(s.RotatedAt) {
		t = Trouble{}
	}
	if f := s.LastError; f != nil && f.At.After(t.At) {
		t = Trouble{At: f.At, Code: f.Code, Text: f.Message, RequestID: f.RequestID}
	}
	return t
}

// hear takes account of an event: what failed is told until the same step has succeeded, and
// what the store failed until the store has answered.
func (of *memory) hear(ev rotator.Event) {
	switch {
	case ev.Kind == rotator.Error && ev.Err != nil:
		of.trouble, of.failing, of.away = inWords(ev), ev.Step, !ev.Until.IsZero()
	case ev.Kind == rotator.Done && ev.Step == of.failing, ev.Kind == rotator.Idle && of.away:
		of.trouble, of.failing, of.away = Trouble{}, "", false
	}
}

func inWords(ev rotator.Event) Trouble {
	var api *rotator.APIError
	if !errors.As(ev.Err, &api) {
		return Trouble{At: ev.Time, Text: oneLine(ev.Err)}
	}
	t := Trouble{At: ev.Time, Code: api.Code, Text: api.Meaning, RequestID: api.RequestID, Advice: api.Advice}
	switch {
	case t.Text == "":
		t.Text = api.Message
	case api.Message != "":
		t.Text += ": " + api.Message
	}
	return t
}
