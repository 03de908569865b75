package rotator

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// search is breadth-first, so that what it finds has the shortest history there is.
type search struct {
	*scenario
	limit   int
	workers int
	shards  [64]shard
	states  atomic.Int64
	edges   atomic.Int64
	depth   int
	bad     atomic.Pointer[finding]
}

// shard holds the states whose fingerprints begin alike. A state's name is its place in its
// shard, and the shard.
type shard struct {
	sync.Mutex
	of     map[fingerprint]uint32
	parent []uint32
	by     []uint8     // the number of the parent's event that led here
	calm   [][2]uint32 // what follows when the world is left alone, whoever goes first
	span   []uint16    // for how long nothing happens then, in seconds
	rest   []bool      // it is as I2 wants it
}

// finding is a violation: an event of a state.
type finding struct {
	state  uint32
	number int
	what   string
}

type reached struct {
	w    *world
	name uint32
}

const nobody = ^uint32(0)

// add has a state known, and reports whether it is new.
func (s *search) add(f fingerprint, parent uint32, by int, settled bool) (name uint32, isNew bool) {
	i := uint32(f[0]) % uint32(len(s.shards))
	sh := &s.shards[i]
	sh.Lock()
	defer sh.Unlock()
	if at, ok := sh.of[f]; ok {
		return at<<6 | i, false
	}
	at := uint32(len(sh.parent))
	sh.of[f] = at
	sh.parent, sh.by = append(sh.parent, parent), append(sh.by, uint8(by))
	sh.calm, sh.span, sh.rest = append(sh.calm, [2]uint32{nobody, nobody}), append(sh.span, 0), append(sh.rest, settled)
	return at<<6 | i, true
}

// run visits every state that can be reached, or all until a violation or the limit.
func (s *search) run() {
	for i := range s.shards {
		s.shards[i].of = map[fingerprint]uint32{}
	}
	w := s.start()
	name, _ := s.add(newCoder(s.scenario).code(w), nobody, 0, w.settled())
	s.states.Add(1)
	explorers := make([]*explorer, s.workers)
	for i := range explorers {
		explorers[i] = newExplorer(s.scenario)
	}
	for level := []reached{{w, name}}; len(level) > 0 && s.bad.Load() == nil && int(s.states.Load()) < s.limit; s.depth++ {
		next := make([][]reached, s.workers)
		var taken atomic.Int64
		var group sync.WaitGroup
		for i := range s.workers {
			group.Go(func() {
				c := newCoder(s.scenario)
				for {
					at := int(taken.Add(64)) - 64
					if at >= len(level) {
						return
					}
					for j := at; j < min(at+64, len(level)); j++ {
						next[i] = s.expand(explorers[i], c, level[j], next[i])
						level[j].w = nil
					}
				}
			})
		}
		group.Wait()
		level = level[:0]
		for _, n := range next {
			level = append(level, n...)
		}
	}
}

func (s *search) expand(x *explorer, c *coder, r reached, next []reached) []reached {
	calm, calms, span, number := [2]uint32{nobody, nobody}, 0, time.Duration(0), 0
	x.events(r.w, func(n *world, e event) {
		name, isNew := s.add(c.code(n), r.name, number, n.settled())
		if isNew {
			s.states.Add(1)
			next = append(next, reached{n, name})
		}
		if e.bad != "" {
			s.bad.CompareAndSwap(nil, &finding{r.name, number, e.bad})
		}
		if e.calm {
			calm[calms] = name
			calms++
			span += e.span
		}
		number++
	})
	if number > math.MaxUint8 || span > math.MaxUint16*time.Second {
		panic("a state has more events, or a longer rest, than there is room for")
	}
	s.edges.Add(int64(number))
	sh, at := &s.shards[r.name&63], r.name>>6
	sh.Lock()
	sh.calm[at], sh.span[at] = calm, uint16(span/time.Second)
	sh.Unlock()
	if calms == 0 {
		s.bad.CompareAndSwap(nil, &finding{r.name, -1, "I2: nothing follows"})
	}
	return next
}

// history tells how a state is reached, and of one more event of it.
func (s *search) history(name uint32, last int) string {
	var numbers []int
	if last >= 0 {
		numbers = append(numbers, last)
	}
	for {
		sh := &s.shards[name&63]
		if sh.parent[name>>6] == nobody {
			break
		}
		numbers = append(numbers, int(sh.by[name>>6]))
		name = sh.parent[name>>6]
	}
	x, w := newExplorer(s.scenario), s.start()
	var b strings.Builder
	for i := len(numbers) - 1; i >= 0; i-- {
		at, from := 0, w
		x.events(from, func(n *world, e event) {
			if at == numbers[i] {
				b.WriteString(tell(from, n, e))
				w = n
			}
			at++
		})
	}
	return b.String()
}

// tell is an event in one line.
func tell(from, to *world, e event) string {
	line := from.now.Sub(dawn).String() + "  "
	if e.who >= 0 {
		r, n := from.replicas[e.who], to.replicas[e.who]
		line += owners[e.who] + " "
		if r.action.Step != "" {
			line += string(r.action.Step) + ": "
		}
		line += e.what
		switch {
		case n.stage == calling && n.action.Step != "":
			line += fmt.Sprintf("; goes on to %s (%s)", n.action.Step, n.action.Why)
		case n.stage == idle:
			line += fmt.Sprintf("; rests until %s", n.next.Sub(dawn))
		}
	} else {
		line += e.what
	}
	if e.span > 0 {
		line += " for " + e.span.String()
	}
	if to.newest().version != from.newest().version {
		line += fmt.Sprintf(" [version %d: %s]", to.newest().version, accepts(to.newest().ring))
	}
	if e.bad != "" {
		line += "\n  VIOLATION of " + e.bad
	}
	return line + "\n"
}

// liveness is how a world comes to rest once nothing goes wrong any more: I2.
type liveness struct {
	steps int           // the most that are taken until it is settled for good
	takes time.Duration // and the longest
	worst uint32        // from here
}

// node is what is known of a state.
type node struct {
	steps, seconds int32 // until it is settled for good
	open           bool  // its future is being looked at
	known          bool
}

// liveness follows every state while nothing goes wrong, whichever replica goes first, until
// it is settled and stays so. A way back to where it came from is a violation unless all on
// it is settled.
func (s *search) liveness() (l liveness) {
	nodes := make([][]node, len(s.shards))
	for i := range s.shards {
		nodes[i] = make([]node, len(s.shards[i].parent))
	}
	at := func(name uint32) *node { return &nodes[name&63][name>>6] }
	var stack []uint32
	for i := range nodes {
		for j := range nodes[i] {
			stack = append(stack[:0], uint32(j)<<6|uint32(i))
			for len(stack) > 0 && s.bad.Load() == nil {
				name := stack[len(stack)-1]
				n, deeper := at(name), false
				n.open = true
				for _, c := range s.shards[name&63].calm[name>>6] {
					switch {
					case c == nobody || at(c).known:
					case !at(c).open:
						stack, deeper = append(stack, c), true
					default:
						s.cycle(stack, c)
					}
					if deeper {
						break
					}
				}
				if deeper {
					continue
				}
				stack = stack[:len(stack)-1]
				if !n.known {
					s.conclude(name, n, at)
				}
				if int(n.steps) > l.steps {
					l.steps, l.worst = int(n.steps), name
				}
				l.takes = max(l.takes, time.Duration(n.seconds)*time.Second)
			}
		}
	}
	for i := range nodes {
		for j, n := range nodes[i] {
			for _, c := range s.shards[i].calm[j] {
				if c != nobody && n.steps == 0 && at(c).steps > 0 {
					s.bad.CompareAndSwap(nil, &finding{c, -1, "I2: it was settled, and is no more"})
				}
			}
		}
	}
	return l
}

// conclude tells of a state from all that follow it.
func (s *search) conclude(name uint32, n *node, at func(uint32) *node) {
	sh := &s.shards[name&63]
	n.open, n.known = false, true
	for _, c := range sh.calm[name>>6] {
		if c != nobody {
			n.steps, n.seconds = max(n.steps, at(c).steps), max(n.seconds, at(c).seconds)
		}
	}
	if n.steps > 0 || !sh.rest[name>>6] {
		n.steps, n.seconds = n.steps+1, n.seconds+int32(sh.span[name>>6])
	}
}

// cycle looks at a way back to a state that led here.
func (s *search) cycle(stack []uint32, back uint32) {
	for i := len(stack) - 1; i >= 0; i-- {
		if !s.shards[stack[i]&63].rest[stack[i]>>6] {
			s.bad.CompareAndSwap(nil, &finding{stack[i], -1, "I2: it never settles"})
		}
		if stack[i] == back {
			return
		}
	}
}
