package rotator

import (
	"testing"
	"time"
)

// TestHistory ends rotations in each way and looks at what is remembered of them.
func TestHistory(t *testing.T) {
	t.Parallel()
	p := tablePolicy
	k := pending().s.Keyring
	k.Rotation.StartedAt = minute(-7)
	since := func(started time.Time) *Keyring {
		n := k.Clone()
		n.Rotation.StartedAt = started
		return n
	}
	for name, c := range map[string]struct {
		n    *Keyring
		want Past
	}{
		"committed":   {k.committed(true, t0.Add(time.Millisecond), &p), Past{StartedAt: minute(-7), Took: 7 * time.Minute, Overlap: p.Grace}},
		"rolled back": {k.rolledBack(Failure{Code: "InternalError"}, minute(9), t0, &p), Past{StartedAt: minute(-7), Took: 7 * time.Minute, Overlap: p.Timing.RollbackKeep, Code: "InternalError"}},
		"adopted":     {settled().s.Keyring.adopted(codecTarget, keyV, "V", t0, &p), Past{StartedAt: t0, Overlap: p.Grace}},
		"unknown":     {since(time.Time{}).committed(true, t0, &p), Past{StartedAt: t0, Overlap: p.Grace}},
		"ages ago":    {since(t0.AddDate(-200, 0, 0)).rolledBack(Failure{Code: "x"}, minute(9), t0, &p), Past{StartedAt: t0.AddDate(-200, 0, 0), Took: longestSpan, Overlap: p.Timing.RollbackKeep, Code: "x"}},
		"clock back":  {k.committed(true, minute(-9), &p), Past{StartedAt: minute(-7), Overlap: p.Grace}},
	} {
		if len(c.n.History) != 1 || !same(c.n.History[0], c.want) {
			t.Errorf("%s: %+v, want %+v", name, c.n.History, c.want)
		}
		text, err := c.n.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := DecodeKeyring(codecTarget, text); err != nil || len(back.History) != 1 || !same(back.History[0], c.want) {
			t.Errorf("%s: read back: %+v, %v", name, back, err)
		}
	}
	k.Rotation.Reason = ByRevoke
	if got := k.committed(true, t0, &p).History; got[0].Overlap != 0 {
		t.Errorf("a revocation overlaps for %s", got[0].Overlap)
	}
}

func same(a, b Past) bool {
	return a.StartedAt.Equal(b.StartedAt) && a.Took == b.Took && a.Overlap == b.Overlap && a.Code == b.Code
}

// TestHistoryIsBounded remembers a year of rotations, often and seldom.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	for every, want := range map[time.Duration]int{time.Hour: historyLength, 24 * time.Hour: 31, 90 * 24 * time.Hour: 1} {
		var h []Past
		for at := t0; at.Before(t0.AddDate(1, 0, 0)); at = at.Add(every) {
			before := append([]Past(nil), h...)
			next := remembered(h, Past{StartedAt: at})
			for i := range before {
				if !h[i].StartedAt.Equal(before[i].StartedAt) {
					t.Fatal("what was remembered before has changed")
				}
			}
			h = next
		}
		if len(h) != want || !h[len(h)-1].StartedAt.After(h[0].StartedAt.Add(-time.Second)) {
			t.Errorf("every %s: %d are remembered, want %d", every, len(h), want)
		}
	}
}
