// Package pagetest has targets for tests of the status page: one in each state that there is,
// and as many as one likes with all the history that a keyring keeps.
package pagetest

import (
	"fmt"
	"time"

	"tiwkeyd/internal/observe"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Now is the time at which the rows are as they say.
var Now = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

// Hostile is a text of somebody else's that tries to be a part of the page.
const Hostile = `<script>alert(1)</script> "><img src=x onerror=alert(2)> ' onfocus=alert(3) {{.CSRF}}` + " \u202e"

const day = 24 * time.Hour

// History is of a rotation a day in the last 30 days, of which every seventh was rolled back and
// tried again: 34 rotations.
func History(now time.Time, code string) []rotator.Past {
	var all []rotator.Past
	for n := 29; n >= 0; n-- {
		at := now.Add(-time.Duration(n)*day - 6*time.Hour)
		if n%7 == 3 && code != "" {
			all = append(all, rotator.Past{StartedAt: at.Add(-2 * time.Hour), Took: time.Hour + 4*time.Minute, Overlap: 10 * time.Minute, Code: code})
		}
		all = append(all, rotator.Past{StartedAt: at, Took: 6*time.Minute + 2*time.Second, Overlap: day})
	}
	return all
}

// FullHistory is as much as a keyring keeps, 62 rotations, half of them rolled back. No two of
// its marks fall together: it takes as much room in a picture as any does. A key that is taken
// back is accepted for ten minutes only.
func FullHistory(now time.Time) []rotator.Past {
	var all []rotator.Past
	for n := 61; n >= 0; n-- {
		p := rotator.Past{StartedAt: now.Add(-time.Duration(n)*11*time.Hour - 5*time.Hour), Took: 6 * time.Minute, Overlap: 4 * time.Hour}
		if n%2 == 1 {
			p.Code, p.Overlap = "ResourceUnavailable.ServiceExpired", 10*time.Minute
		}
		all = append(all, p)
	}
	return all
}

// Settled is a target with nothing to say about it.
func Settled(app int64, s secrets.Service) observe.Row {
	r := observe.Row{Standing: rotator.Standing{Phase: rotator.Settled}}
	r.Target = secrets.Target{SdkAppID: app, Service: s}
	r.At, r.Read, r.Adopted = Now.Add(-4*time.Minute), true, true
	r.KeyID = fmt.Sprintf("Kq7%07dxZ", app%1e7)
	r.KeyCreated, r.RotatedAt = Now.Add(-6*time.Hour-6*time.Minute), Now.Add(-6*time.Hour)
	r.Due, r.Next, r.Previous = Now.Add(18*time.Hour), Now.Add(18*time.Hour), 1
	r.History = History(Now, "")
	return r
}

// States has a target in each state, and with each thing that can be wrong.
func States() []observe.Row {
	rows := make([]observe.Row, 12)
	for i := range rows {
		rows[i] = Settled(1400000001+int64(i), secrets.Services()[i%4])
	}
	never := func(r *observe.Row) {
		r.KeyID, r.KeyCreated, r.RotatedAt, r.History, r.Previous = "", time.Time{}, time.Time{}, nil, 0
	}
	pending := func(r *observe.Row) {
		r.PendingID, r.Rotation, r.Reason, r.Ours, r.LeaseUntil = "Wm2pendingT4", "Rr8rotation1", rotator.BySchedule, true, Now.Add(8*time.Minute)
		r.RotatedAt, r.Due, r.Next = Now.Add(-day-2*time.Minute), Now.Add(-2*time.Minute), Now.Add(-2*time.Minute)
	}
	// The first is settled.
	rows[1].Phase = "waiting"
	pending(&rows[1])
	rows[1].PushAfter, rows[1].ReadyAt = Now.Add(4*time.Minute), Now.Add(4*time.Minute)

	rows[2].Phase, rows[2].Ours, rows[2].Reason = "pushing", false, rotator.BySignal
	pending(&rows[2])
	rows[2].Ours, rows[2].Late, rows[2].PushAfter = false, true, Now.Add(-7*time.Minute)
	rows[2].Trouble = observe.Trouble{At: Now.Add(-20 * time.Second), Code: "InternalError", Text: "an error inside Tencent's service: please try again", RequestID: "6ef60bec-0242-43af-bb20-270359fb54a7"}

	rows[3].Phase, rows[3].Reason, rows[3].Rotation, rows[3].RetryAt, rows[3].Next = "rolled_back", rotator.BySchedule, "Rr8rotation3", Now.Add(41*time.Minute), Now.Add(41*time.Minute)
	rows[3].RotatedAt, rows[3].Due, rows[3].Overdue = Now.Add(-3*day), Now.Add(-2*day), true
	rows[3].History = History(Now.Add(-3*day), "ResourceUnavailable.ServiceExpired")
	for n := range 12 {
		rows[3].History = append(rows[3].History, rotator.Past{StartedAt: Now.Add(-2*day + time.Duration(n)*3*time.Hour), Took: 7 * time.Minute, Overlap: 10 * time.Minute, Code: "ResourceUnavailable.ServiceExpired"})
	}
	rows[3].Trouble = observe.Trouble{At: Now.Add(-19 * time.Minute), Code: "ResourceUnavailable.ServiceExpired", Text: "the service is in arrears or has expired: the package has expired, please renew it",
		RequestID: "0b1f9e52-8c1b-4f3f-9a5e-52a1d4ff9a01", Advice: "Renew the TIW package in Tencent's console."}

	rows[4].Phase = "unsigned"
	never(&rows[4])
	rows[4].Due, rows[4].Next = time.Time{}, time.Time{}

	rows[5].Phase, rows[5].Adopted = "unadopted", false
	never(&rows[5])
	rows[5].Trouble = observe.Trouble{At: Now.Add(-time.Minute), Code: "UnauthorizedOperation.SdkAppId", Text: "no such SdkAppId, or it belongs to another account", RequestID: "f2f9b7a0-1111-4c55-9d4b-aa0b0a5e7a11"}
	rows[5].Next = Now.Add(-3 * time.Minute)

	rows[6].Phase, rows[6].Read, rows[6].Adopted, rows[6].At = "unread", false, false, time.Time{}
	never(&rows[6])
	rows[6].Next = Now.Add(-10 * time.Second)

	rows[7].Drift, rows[7].Contested = true, true
	rows[7].History = History(Now, "RequestLimitExceeded")

	rows[8].Overdue, rows[8].RotatedAt, rows[8].Due, rows[8].Next = true, Now.Add(-30*time.Hour), Now.Add(-6*time.Hour), Now.Add(-6*time.Hour)
	rows[8].Trouble = observe.Trouble{At: Now.Add(-8 * time.Second), Text: "write the keyring of 1400000009/whiteboard-push to vault secret/tiw: Vault is sealed: unseal it"}

	rows[9].Trouble = observe.Trouble{At: Now.Add(-2 * time.Hour), Code: "InvalidParameter", Text: Hostile, RequestID: `"><b>`, Advice: Hostile}
	rows[9].History = History(Now, Hostile)

	// A key that was adopted and never replaced, and one that is replaced on demand only.
	rows[10].RotatedAt, rows[10].History, rows[10].KeyCreated, rows[10].Previous = time.Time{}, nil, Now.Add(-90*time.Second), 0
	rows[10].Due, rows[10].Next = time.Unix(0, 0), Now.Add(-90*time.Second)
	rows[11].Due, rows[11].Next = time.Time{}, time.Time{}
	return rows
}

// Many has n targets with the longest history, an error each, and a key pending.
func Many(n int) []observe.Row {
	rows := make([]observe.Row, n)
	history := FullHistory(Now)
	for i := range rows {
		r := Settled(1400000000+int64(i), secrets.Services()[i%4])
		r.Phase, r.PendingID, r.ReadyAt, r.Rotation, r.Reason = "waiting", fmt.Sprintf("Pn%010d", i), Now.Add(time.Duration(i)*time.Second), "Rr8rotation1", rotator.BySchedule
		r.History, r.Overdue, r.Drift = history, true, i%3 == 0
		r.Trouble = observe.Trouble{At: Now.Add(-time.Duration(i) * time.Second), Code: "ResourceUnavailable.ServiceExpired",
			Text: "the service is in arrears or has expired: the package has expired, please renew it in the console before the new key can be set there"}
		rows[i] = r
	}
	return rows
}
