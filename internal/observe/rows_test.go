package observe

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// row is what is told of a target.
func (r *rig) row(t secrets.Target) Row {
	r.t.Helper()
	for _, row := range r.Report().Rows {
		if row.Target == t {
			return row
		}
	}
	r.t.Fatalf("%s is not told of", t)
	return Row{}
}

// TestRows are in the order of the configuration, and agree with the metrics.
func TestRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), two, one)
		if rows := r.Report().Rows; len(rows) != 2 || rows[0].Target != two || rows[1].Target != one || rows[0].Phase != rotator.Unread || rows[0].Trouble != (Trouble{}) {
			t.Errorf("before the first read: %+v", rows)
		}
		stop := r.run()
		defer stop()
		time.Sleep(time.Hour)
		row := r.row(one)
		if row.Phase != rotator.Settled || row.KeyID != r.w.keyring(one).CallbackKey().ID() || !row.Next.Equal(row.RotatedAt.Add(24*time.Hour)) || row.Overdue || len(row.History) != 1 {
			t.Errorf("settled: %+v", row)
		}
		r.w.change(func() { r.w.storeErr = errAway })
		time.Sleep(48 * time.Hour)
		if !r.row(one).Overdue {
			t.Error("a key that is not replaced for two days is not overdue")
		}
	})
}

// TestTrouble is told as long as it lasts.
func TestTrouble(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what       string
		breaks     func(*world)
		ask        bool
		code, says string
		mends      func(*world)
	}{
		{"the store", func(w *world) { w.storeErr = errAway }, false, "", "the store is away: no route", func(w *world) { w.storeErr = nil }},
		{"a look", func(w *world) { w.lookErr = answered(rotator.Doubtful, "InternalError") }, false, "InternalError", "in words", func(w *world) { w.lookErr = nil }},
		{"writes", func(w *world) { w.writeErr = errAway }, true, "", "the store is away: no route", func(w *world) { w.writeErr = nil }},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, newWorld(), one, two)
			stop := r.run()
			defer stop()
			time.Sleep(time.Hour)
			r.w.change(func() { c.breaks(r.w) })
			if c.ask {
				r.engine.Ask(rotator.BySignal, one)
			}
			time.Sleep(time.Hour)
			got := r.row(one).Trouble
			if got.Code != c.code || !strings.HasSuffix(got.Text, c.says) || time.Since(got.At) > time.Hour {
				t.Errorf("%s: %+v", c.what, got)
			}
			r.w.change(func() { c.mends(r.w) })
			time.Sleep(time.Hour)
			if got := r.row(one).Trouble; got != (Trouble{}) {
				t.Errorf("%s is mended, and it is still said: %+v", c.what, got)
			}
		})
	}
}

// TestTroubleOfARotation: a push that was refused is told until a key is in force, also by a
// process that comes to know of it from the keyring alone, and a step in between that went
// well does not hide it.
func TestTroubleOfARotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := newRig(t, w, one)
		w.setErrs = []error{&rotator.APIError{Class: rotator.Refused, Action: setAPI, Target: one, Code: "ResourceUnavailable.ServiceExpired", Meaning: "arrears", Message: "in words", RequestID: "id-of-a-request", Advice: "pay"}}
		stop := r.run()
		time.Sleep(propagation + time.Minute)
		got := r.row(one).Trouble
		if got.Code != "ResourceUnavailable.ServiceExpired" || got.Text != "arrears: in words" || got.RequestID != "id-of-a-request" || got.Advice != "pay" {
			t.Errorf("%+v", got)
		}
		stop()
		again := newRig(t, w, one)
		stop = again.run()
		time.Sleep(time.Second)
		if got := again.row(one).Trouble; got.Code != "ResourceUnavailable.ServiceExpired" || !strings.Contains(got.Text, "in words") || got.RequestID != "id-of-a-request" {
			t.Errorf("after a restart: %+v", got)
		}
		time.Sleep(24 * time.Hour)
		if got := again.row(one); got.Trouble != (Trouble{}) || got.Phase != rotator.Settled {
			t.Errorf("a new key is in force, and it is still said: %+v", got)
		}
		stop()
		// The first process hears nothing of what the other one did but from the keyring.
		stop = r.run()
		defer stop()
		time.Sleep(time.Second)
		if got := r.row(one); got.Trouble != (Trouble{}) {
			t.Errorf("another replica brought a key into force, and it is still said: %+v", got)
		}
	})
}

// TestTroubleOfTheStore ends with the next answer, before Tencent is asked again.
func TestTroubleOfTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newWorld(), one)
		stop := r.run()
		defer stop()
		time.Sleep(time.Minute)
		r.w.change(func() { r.w.storeErr = errAway })
		time.Sleep(time.Minute)
		if row := r.row(one); row.Phase != rotator.Waiting || row.Trouble == (Trouble{}) {
			t.Errorf("away: %+v", row)
		}
		r.w.change(func() { r.w.storeErr = nil })
		time.Sleep(time.Minute)
		if row := r.row(one); row.Phase != rotator.Waiting || row.Trouble != (Trouble{}) {
			t.Errorf("back: %+v", row)
		}
	})
}
