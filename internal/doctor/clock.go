package doctor

import (
	"context"
	"fmt"
	"time"
)

// How far clocks may be apart. Tencent refuses requests from beyond five minutes, and replicas
// are taken to agree with the store within three.
const (
	clockWarn = time.Minute
	clockFail = 4 * time.Minute
)

// reading is a time that somebody else gave, and when it was asked for here.
type reading struct {
	theirs        time.Time
	before, after time.Time
}

// ask reads a clock with a call that gives it.
func (e *examination) ask(ctx context.Context, call func(context.Context) (time.Time, error)) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	r := reading{before: e.Now()}
	var err error
	r.theirs, err = call(ctx)
	r.after = e.Now()
	return r, err
}

// ahead is how far this machine's clock is before the other one, as near as can be told: the
// other time is cut to the second, and is from some moment between before and after.
func (r reading) ahead() time.Duration {
	middle := r.before.Add(r.after.Sub(r.before) / 2)
	return middle.Sub(r.theirs.Add(time.Second / 2)).Round(time.Second)
}

// clock judges a reading.
func (e *examination) clock(c Check, whose, mend string, r reading) {
	if r.theirs.IsZero() {
		e.report(Finding{Check: c, Status: Warn, What: whose + "'s answer has no Date, so this machine's clock cannot be compared", Mend: "see that this machine's clock is kept right (NTP)"})
		return
	}
	ahead := r.ahead()
	f := Finding{Check: c, Status: OK, What: fmt.Sprintf("this machine's clock agrees with %s's to within %s", whose, max(ahead.Abs(), time.Second))}
	if ahead.Abs() > clockWarn {
		side := "ahead of"
		if ahead < 0 {
			side = "behind"
		}
		f.Status, f.Mend = Warn, mend
		f.What = fmt.Sprintf("this machine's clock is %s %s %s's", ahead.Abs(), side, whose)
	}
	if ahead.Abs() > clockFail {
		f.Status = Fail
	}
	e.report(f)
}
