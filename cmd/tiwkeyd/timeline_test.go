//go:build torture

package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/tencent/tiwtest"
)

// timeline is what happened to the keys of one application, and to every callback, for a picture.
type timeline struct {
	mu      sync.Mutex
	began   time.Time
	version int64
	lines   map[string]*keyLine // by the key's value
	signed  []string            // the values that were in force, in the order of their first time
	bands   []*band
}

// keyLine is the life of one key.
type keyLine struct {
	id      string
	spells  []spell      // what receivers were told of it
	bins    map[int]*bin // callbacks that were signed with it, by the second
	refused []time.Time  // those that were refused or lost
}

// spell is for how long a key was in a state; to is zero while it lasts.
type spell struct {
	state    rotator.State
	from, to time.Time
}

// bin counts the callbacks of a second.
type bin struct{ verified, refused int }

// band is a mishap; to is zero while it lasts.
type band struct {
	name, victim string
	from, to     time.Time
}

func newTimeline() *timeline { return &timeline{began: time.Now(), lines: map[string]*keyLine{}} }

// line is the one of a key. The caller holds l.mu.
func (l *timeline) line(value string) *keyLine {
	if l.lines[value] == nil {
		l.lines[value] = &keyLine{bins: map[int]*bin{}}
	}
	return l.lines[value]
}

// applied is told that Tencent signs with another key.
func (l *timeline) applied(a tiwtest.Applied) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.signed, a.Key) {
		l.signed = append(l.signed, a.Key)
	}
}

// inForce gives the keys that Tencent signed with, in the order of their first time.
func (l *timeline) inForce() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.signed)
}

// answered is told what became of a callback.
func (l *timeline) answered(a tiwtest.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.line(l.signed[a.Nth-1])
	second := int(a.At.Sub(l.began) / time.Second)
	if line.bins[second] == nil {
		line.bins[second] = &bin{}
	}
	if a.Verified {
		line.bins[second].verified++
	} else {
		line.bins[second].refused++
		line.refused = append(line.refused, a.At)
	}
}

// read is told what the store holds.
func (l *timeline) read(s rotator.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Keyring == nil || s.Version <= l.version { // of two reads at a time the older may be the last
		return
	}
	l.version = s.Version
	for _, line := range l.lines {
		if n := len(line.spells); n > 0 && line.spells[n-1].to.IsZero() {
			line.spells[n-1].to = s.Written
		}
	}
	for _, e := range s.Keyring.Keys {
		line := l.line(e.Key.Reveal())
		line.id = e.Key.ID()
		if n := len(line.spells); n > 0 && line.spells[n-1].state == e.State && line.spells[n-1].to.Equal(s.Written) {
			line.spells[n-1].to = time.Time{} // it goes on
			continue
		}
		line.spells = append(line.spells, spell{state: e.State, from: s.Written})
	}
}

// mishap is told of one that begins, and gives what tells of its end.
func (l *timeline) mishap(name, victim string, from time.Time) (done func(time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &band{name: name, victim: victim, from: from}
	l.bands = append(l.bands, b)
	return func(to time.Time) {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.to = to
	}
}

// rotations counts the keys that became current between two times, and those that were taken
// back.
func (l *timeline) rotations(from, to time.Time) (done, rolledBack int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := func(at time.Time) bool { return at.After(from) && at.Before(to) }
	for _, line := range l.lines {
		for i := 1; i < len(line.spells); i++ {
			switch s := line.spells[i]; {
			case line.spells[i-1].state != rotator.Pending || !in(s.from):
			case s.state == rotator.Current:
				done++
			case s.state == rotator.Previous:
				rolledBack++
			}
		}
	}
	return done, rolledBack
}

// Sizes of the picture, in pixels.
const (
	row, margin, labels = 13, 30, 150
	stripHeight         = 60
)

var colours = map[rotator.State]string{rotator.Pending: "#9ec9f0", rotator.Current: "#1f6fb5", rotator.Previous: "#c9c9c9"}

// save draws it as SVG: above, the mishaps, a line for each victim; then all callbacks, second by
// second; below, a line for each key with its states, and in green, or red, the callbacks that
// were signed with it.
func (l *timeline) save(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := time.Now()
	for _, line := range l.lines {
		for second := range line.bins {
			end = later(end, l.began.Add(time.Duration(second+1)*time.Second))
		}
	}
	p := &picture{began: l.began, end: end, scale: min(8, max(2, 1400/end.Sub(l.began).Seconds()))}
	p.mishaps(l.bands)
	lines := slices.SortedFunc(maps.Values(l.lines), func(a, b *keyLine) int { return cmp.Or(a.since().Compare(b.since()), cmp.Compare(a.id, b.id)) })
	p.callbacks(lines)
	for _, line := range lines {
		p.key(line)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(p.text()), 0o644)
}

// since is when a key came up.
func (k *keyLine) since() time.Time {
	if len(k.spells) == 0 {
		return time.Time{}
	}
	return k.spells[0].from
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// picture is SVG in the making.
type picture struct {
	body       strings.Builder
	began, end time.Time
	scale      float64 // pixels a second
	y          float64
}

func (p *picture) x(at time.Time) float64 { return labels + at.Sub(p.began).Seconds()*p.scale }

// bar draws a time in the present row.
func (p *picture) bar(from, to time.Time, top, height float64, colour, title string) {
	if to.IsZero() {
		to = p.end
	}
	from = later(from, p.began)
	fmt.Fprintf(&p.body, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'><title>%s</title></rect>\n",
		p.x(from), p.y+top, max(1, p.x(to)-p.x(from)), height, colour, title)
}

func (p *picture) label(text string) {
	fmt.Fprintf(&p.body, "<text x='%d' y='%.1f' text-anchor='end'>%s</text>\n", labels-6, p.y+row-3, text)
}

func (p *picture) mishaps(bands []*band) {
	byVictim := map[string][]*band{}
	for _, b := range bands {
		byVictim[b.victim] = append(byVictim[b.victim], b)
	}
	for _, victim := range slices.Sorted(maps.Keys(byVictim)) {
		p.label(victim)
		for _, b := range byVictim[victim] {
			if b.to.IsZero() {
				b.to = p.end
			}
			p.bar(b.from, b.to, 2, row-4, "#e8a33d", fmt.Sprintf("%s: %s, %s for %s", victim, b.name, b.from.Format("15:04:05"), b.to.Sub(b.from).Round(time.Millisecond)))
		}
		p.y += row
	}
}

// callbacks draws how many were verified, and how many were not, in each second.
func (p *picture) callbacks(lines []*keyLine) {
	all, most := map[int]*bin{}, 1
	for _, line := range lines {
		for second, b := range line.bins {
			if all[second] == nil {
				all[second] = &bin{}
			}
			all[second].verified += b.verified
			all[second].refused += b.refused
			most = max(most, all[second].verified+all[second].refused)
		}
	}
	p.y += margin / 2
	p.label("callbacks")
	for _, second := range slices.Sorted(maps.Keys(all)) {
		b, at := all[second], p.began.Add(time.Duration(second)*time.Second)
		good, bad := stripHeight*float64(b.verified)/float64(most), stripHeight*float64(b.refused)/float64(most)
		title := fmt.Sprintf("%s: %d verified, %d refused", at.Format("15:04:05"), b.verified, b.refused)
		p.bar(at, at.Add(time.Second), stripHeight-good, good, "#3fa34d", title)
		if b.refused > 0 {
			p.bar(at, at.Add(time.Second), stripHeight-good-bad, max(2, bad), "#d62728", title)
		}
	}
	p.y += stripHeight + margin/2
}

// key draws one key's life.
func (p *picture) key(line *keyLine) {
	p.label(line.id)
	for _, s := range line.spells {
		p.bar(s.from, s.to, 1, row-2, colours[s.state], fmt.Sprintf("%s is %s from %s", line.id, s.state, s.from.Format("15:04:05")))
	}
	seconds := slices.Sorted(maps.Keys(line.bins))
	for i := 0; i < len(seconds); {
		n, sum := 1, line.bins[seconds[i]].verified
		if sum == 0 {
			i++
			continue
		}
		for ; i+n < len(seconds) && seconds[i+n] == seconds[i]+n && line.bins[seconds[i+n]].verified > 0; n++ {
			sum += line.bins[seconds[i+n]].verified
		}
		from := p.began.Add(time.Duration(seconds[i]) * time.Second)
		p.bar(from, from.Add(time.Duration(n)*time.Second), 4, row-8, "#3fa34d", fmt.Sprintf("%d callbacks signed with %s were verified", sum, line.id))
		i += n
	}
	for _, at := range line.refused {
		fmt.Fprintf(&p.body, "<circle cx='%.1f' cy='%.1f' r='4' fill='#d62728'><title>refused at %s</title></circle>\n", p.x(at), p.y+row/2, at.Format("15:04:05.000"))
	}
	p.y += row
}

// text is the whole file.
func (p *picture) text() string {
	width := p.x(p.end) + margin
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' font-family='sans-serif' font-size='10'>\n", width, p.y+3*margin)
	fmt.Fprintf(&b, "<rect width='100%%' height='100%%' fill='white'/>\n<text x='%d' y='18' font-size='13'>orange: what went wrong · green: callbacks verified · red: refused or lost · keys: "+
		"<tspan fill='#5a9bd4'>pending</tspan>, <tspan fill='#1f6fb5'>current</tspan>, <tspan fill='#888'>previous</tspan></text>\n<g transform='translate(0 %d)'>\n", margin, margin)
	for at := time.Duration(0); at < p.end.Sub(p.began); at += 30 * time.Second {
		x := p.x(p.began.Add(at))
		fmt.Fprintf(&b, "<path d='M%.1f 0V%.1f' stroke='#eee'/><text x='%.1f' y='%.1f' fill='#666'>%s</text>\n", x, p.y, x, p.y+row, at)
	}
	b.WriteString(p.body.String())
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}
