package rotator

import "time"

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
