package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// week is how long a world goes on before all mishaps end.
const week = 7 * 24 * time.Hour

// Play runs a world from its beginning to its end.
func Play(o Options) *World { return play(o, false) }

func play(o Options, quiet bool) *World {
	w := newWorld(o, quiet)
	w.play()
	return w
}

func (w *World) play() {
	w.Run(week)
	if w.violation == "" {
		w.Settle()
	}
}

// Count is Play without a timeline and logs, which takes less time.
func Count(o Options) Result { return play(o, true).Result() }

// Shrink looks for fewer mishaps that violate the same world's invariants still, and gives the
// world that has them. It gives up what it can of them in ever smaller portions.
func Shrink(o Options) *World {
	best := play(o, true)
	for again := best.violation != ""; again; {
		again = false
		for portion := len(best.mishaps); portion > 0; portion /= 2 {
			for from := 0; from < len(best.mishaps); {
				o.Allow = map[int]bool{}
				for i, m := range best.mishaps {
					o.Allow[m] = i < from || i >= from+portion
				}
				if try := play(o, true); try.violation != "" && len(try.mishaps) < len(best.mishaps) {
					best, again = try, true
				} else {
					from += portion
				}
			}
		}
	}
	return Play(best.Options)
}

// Describe tells of a violation, for who has to find out why.
func (w *World) Describe() string {
	allow := "all"
	if w.Allow != nil {
		allow = fmt.Sprint(slices.Sorted(maps.Keys(keep(w.Allow))))
	}
	return fmt.Sprintf("seed %d, %d replicas, %d mishaps (%s), %d events: violation of %s\n%s",
		w.Seed, w.Replicas, len(w.mishaps), allow, w.events, w.violation, w.Timeline(60))
}

func keep(allow map[int]bool) map[int]bool {
	kept := map[int]bool{}
	for m, ok := range allow {
		if ok {
			kept[m] = true
		}
	}
	return kept
}
