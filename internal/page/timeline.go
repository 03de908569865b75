package page

import (
	"fmt"
	"html/template"
	"strconv"
	"time"

	"tiwkeyd/rotator"
)

const shownSpan = 30 * 24 * time.Hour

// timeline draws the last 30 days of a target: a band while an older key was accepted beside
// the current one, a stroke over the whole height for each key that came into force, a dot for
// each that was rolled back. It is made of numbers alone, which is why it needs no escaping,
// and of few, since a list has fifty of it. A stretched one takes the width of its place.
func timeline(history []rotator.Past, now time.Time, width, height int, stretched bool) template.HTML {
	began := now.Add(-shownSpan)
	at := func(t time.Time) int { return min(width, max(0, int(t.Sub(began)*time.Duration(width)/shownSpan))) }
	var band, strokes, failed []byte
	number := func(path []byte, letter byte, n int) []byte {
		return strconv.AppendInt(append(path, letter), int64(n), 10)
	}
	keys, rollbacks, from, to := 0, 0, 0, -1
	middle, low := height/2, height-height/5
	flush := func() {
		if to > from {
			band = number(number(number(band, 'M', from), ' ', middle), 'h', to-from)
		}
	}
	for _, p := range history {
		ended := p.StartedAt.Add(p.Took)
		gone := ended.Add(p.Overlap)
		if gone.Before(began) || ended.After(now) {
			continue
		}
		x := at(ended)
		switch {
		case ended.Before(began): // only its older key reaches into the picture
		case p.Code == "":
			keys++
			strokes = append(number(number(strokes, 'M', x), ' ', 1), "v"+strconv.Itoa(height-2)...)
		default:
			rollbacks++
			failed = append(number(number(failed, 'M', x), ' ', low), "h0"...)
		}
		if until := at(sooner(gone, now)); to < x {
			flush()
			from, to = x, until
		} else {
			to = max(to, until)
		}
	}
	flush()
	box := ""
	if stretched {
		box = fmt.Sprintf(` viewBox="0 0 %d %d" preserveAspectRatio="none"`, width, height)
	}
	said := plural(keys, "new key") + ", " + plural(rollbacks, "rollback")
	return template.HTML(fmt.Sprintf(`<svg role="img"%s><title>%s</title><path class="band" d="%s"/><path class="new" d="%s"/><path class="back" d="%s"/></svg>`, box, said, band, strokes, failed)) //nolint:gosec // numbers alone
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
