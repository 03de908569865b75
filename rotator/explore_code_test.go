package rotator

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"time"

	"tiwkeyd/secrets"
)

// fingerprint stands for all worlds that go on in the same way.
type fingerprint [16]byte

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// coder makes fingerprints. What nothing can depend on any more is left out, and what is
// only compared is brought to a canonical form:
//
//   - Keys are numbered in the order in which they are met, replicas stand in an order that
//     does not depend on their names where their clocks agree, and of a version only counts whether it is the newest.
//   - All times are relative to now. One that is only ever compared with now (a lease, a pause)
//     is nothing once it is over; one of which only its age up to some bound counts is
//     too old beyond that.
//   - The other times of the past (a look, a read, the end of a grace) are compared with each
//     other and with now, give or take at most horizon. Where between two of them, in order,
//     more than horizon lies, it is taken to be horizon: no comparison tells the difference, and as
//     the past does not change and now only moves away, none will.
type coder struct {
	*scenario
	now  time.Time
	past time.Time // what no replica's clock holds to be in the future
	old  time.Duration
	// before is the version before the newest, if it may be read yet: a replica that reads it again
	// may write over what it read before.
	before int64
	was    uint64  // keys that Tencent may tell of yet, though they are in force no more
	parts  [3]part // the world, and the replicas
	buf    []byte
	times  []int32
}

// horizon is more than any two spans differ by that Decide or a transition adds to times
// before it compares them.
func (s *scenario) horizon() time.Duration {
	p := &s.policy
	return max(s.longest(func(p *Policy) time.Duration { return max(p.Grace, p.AttemptLimit) })+s.late(), p.Timing.RollbackKeep, 2*p.Reconcile, p.Timing.PushDeadline, jittered(p.Timing.RefusedMin)) +
		p.Timing.Skew + s.ahead[0].Abs() + s.ahead[1].Abs() + time.Minute
}

// part is a list of numbers, of which some stand for keys, times or replicas.
type part struct {
	n    []int32
	kind []kind
}

type kind uint8

const (
	plain kind = iota
	aKey
	aTime
	aReplica
)

func (p *part) put(k kind, n int32) { p.n, p.kind = append(p.n, n), append(p.kind, k) }
func (p *part) int(n int)           { p.put(plain, int32(n)) }
func (p *part) key(k secrets.Key)   { p.put(aKey, int32(number(k))) }

func (p *part) flag(fs ...bool) {
	n := 0
	for _, f := range fs {
		n <<= 1
		if f {
			n++
		}
	}
	p.int(n)
}

// tick is what a world's times are whole ones of: a keyring is read eight times in what receivers get, which a
// change by hand makes longer by any of these.
const tick = time.Second / 64

func ticks(d time.Duration) int32 {
	if d%tick != 0 {
		panic("a world's times are whole ticks")
	}
	return int32(d / tick)
}

// time is one that is compared with others of the past.
func (c *coder) time(p *part, t time.Time) {
	if t.IsZero() {
		p.put(plain, -1<<31)
		return
	}
	p.put(aTime, ticks(t.Sub(c.now)))
}

// until is a time that is only asked whether it is over.
func (c *coder) until(p *part, t time.Time) {
	switch {
	case t.IsZero():
		p.put(plain, -1<<31)
	case !t.After(c.past):
		p.put(plain, -1<<30)
	default:
		p.put(plain, ticks(t.Sub(c.now)))
	}
}

// age is that of a time by the steady clock, if it is at most limit.
func (c *coder) age(p *part, since, limit time.Duration) {
	now := c.now.Sub(dawn)
	p.put(plain, ticks(now-max(since, now-limit)))
}

func newCoder(s *scenario) *coder { return &coder{scenario: s} }

func (c *coder) code(w *world) fingerprint {
	c.now, c.past = w.now, w.now.Add(min(0, c.ahead[0], c.ahead[1]))
	c.before = 0
	if w.older() != nil {
		c.before = w.views[len(w.views)-2].version
	}
	// Receivers' time, by whichever replica, and what an adopted key needs beside.
	c.old = 2*(c.late()+c.policy.Timing.Skew) + time.Minute
	if c.was = 0; w.left.lie > 0 {
		c.was = w.was
	}
	for i := range c.parts {
		c.parts[i].n, c.parts[i].kind = c.parts[i].n[:0], c.parts[i].kind[:0]
	}
	c.world(&c.parts[0], w)
	for i, r := range w.replicas {
		c.replica(&c.parts[1+i], w, i, r)
	}
	swap := false
	if c.ahead[0] == c.ahead[1] {
		order, same := c.order()
		swap = order > 0
		tie := order == 0
		for i, k := range c.parts[0].kind {
			switch n := c.parts[0].n[i]; {
			case k != aReplica:
			case same:
				c.parts[0].n[i] = 0
			case tie && n < 2: // only keys that nobody else knows tell them apart, and who carries the rotation out
				swap, tie = n == 1, false
			}
		}
	}
	return c.sum(w, swap)
}

// sum brings the parts to their canonical form and hashes them.
func (c *coder) sum(w *world, swap bool) fingerprint {
	order := [3]*part{&c.parts[0], &c.parts[1], &c.parts[2]}
	if swap {
		order[1], order[2] = order[2], order[1]
	}
	c.times = append(c.times[:0], 0)
	for _, p := range order {
		for i, k := range p.kind {
			if k == aTime && p.n[i] < 0 {
				c.times = append(c.times, p.n[i])
			}
		}
	}
	slices.Sort(c.times)
	c.times = slices.Compact(c.times)
	var names [64]int8
	named := int8(0)
	c.buf = c.buf[:0]
	for _, p := range order {
		for i, k := range p.kind {
			n := p.n[i]
			switch k {
			case aKey:
				if n != 0 && names[n] == 0 {
					named++
					names[n] = named
					c.buf = append(c.buf, byte(w.was>>n&1)) // whether it was in force
				}
				if n != 0 {
					n = int32(names[n])
				}
			case aTime:
				n = c.compressed(n)
			case aReplica:
				if swap && n < 2 {
					n = 1 - n
				}
			}
			c.buf = binary.AppendVarint(c.buf, int64(n))
		}
		c.buf = append(c.buf, 0xff, 0xff)
	}
	var f fingerprint
	binary.LittleEndian.PutUint64(f[:], maphash.Bytes(seeds[0], c.buf))
	binary.LittleEndian.PutUint64(f[8:], maphash.Bytes(seeds[1], c.buf))
	return f
}

// compressed is a time with no more than horizon to the next one.
func (c *coder) compressed(n int32) int32 {
	if n >= 0 {
		return n
	}
	most := ticks(c.horizon())
	at := int32(0)
	for i := len(c.times) - 1; i > 0; i-- {
		at -= min(most, c.times[i]-c.times[i-1])
		if c.times[i-1] == n {
			return at
		}
	}
	panic("a time that was not collected")
}

func (c *coder) world(p *part, w *world) {
	p.int(int(w.left.all)<<4 | int(w.left.pause))
	p.int(int(w.left.crash)<<12 | int(w.left.store)<<9 | int(w.left.tencent)<<6 | int(w.left.drift)<<3 | int(w.left.jump))
	p.key(w.inForce)
	p.flag(w.foreign, w.flight != nil, w.late != nil)
	if w.flight != nil {
		p.key(w.flight.key)
		p.put(plain, ticks(w.flight.until.Sub(w.now)))
	}
	if w.late != nil {
		c.ring(p, w.late.ring, -1)
	}
	v := w.newest()
	c.ring(p, v.ring, -1)
	c.written(p, v.snapshot())
	c.powers(p, w)
	p.int(len(w.views))
	for i := range max(0, len(w.views)-1) {
		// Until when a receiver may have it.
		p.put(plain, ticks(w.views[i].until.Sub(w.now)))
		p.flag(w.views[i].void, w.views[i].ring == nil)
		p.key(w.views[i].hidden)
		if i == len(w.views)-2 && w.older() != nil {
			c.ring(p, w.views[i].ring, -1) // it may be read yet
			c.written(p, w.views[i].snapshot())
			continue
		}
		if w.views[i].ring == nil {
			continue
		}
		p.flag(w.views[i].ring.AcceptUnsigned)
		for _, e := range w.views[i].ring.Keys {
			p.key(e.Key)
		}
		p.int(-1)
	}
}

// older is the version before the newest, if it may be read yet.
func (w *world) older() *Keyring {
	if len(w.views) < 2 || w.left.all == 0 || w.left.store == 0 || w.now.Sub(w.newest().from) >= staleRead {
		return nil
	}
	return w.views[len(w.views)-2].ring
}

// written is when a version became readable, where that counts: for what is said of previous
// keys, and of a current one that receivers do not know yet.
func (c *coder) written(p *part, s Snapshot) {
	counts := false
	if s.Keyring != nil {
		for i := range s.Keyring.Keys {
			counts = counts || s.Keyring.Keys[i].State == Previous || s.Keyring.Keys[i].PushAfter.After(c.past)
		}
	}
	if counts {
		c.time(p, s.Written)
	}
}

// ring is a keyring as the given replica sees it, -1 for the world: when it was written, by which
// rotation and after what failure nothing depends on.
func (c *coder) ring(p *part, k *Keyring, me int) {
	if k == nil {
		p.int(-2)
		return
	}
	p.int(len(k.Keys))
	p.flag(k.AcceptUnsigned, k.RotatedAt.IsZero(), k.RotatedAt.After(dawn.Add(-time.Minute)), k.Rotation != nil, k.Edited, k.paused())
	if k.Overrides != nil && k.Overrides.Propagation != nil {
		p.put(plain, ticks(*k.Overrides.Propagation))
	}
	for i := range k.Keys {
		e := &k.Keys[i]
		p.key(e.Key)
		adopted := e.PushAfter.After(e.ActivatedAt)
		p.int(int(e.State[1])) // which tells them apart
		p.flag(adopted)
		switch {
		case e.State == Pending:
			p.put(plain, ticks(e.PushAfter.Sub(e.CreatedAt)))
			c.time(p, e.PushAfter)
			p.int(min(e.Doubts, 12))
			p.int(e.Renewed)
		case e.State == Current:
			p.flag(e.Confirmed)
			p.int(min(e.Doubts, 12))
			c.until(p, e.PushAfter)
			if adopted || e.PushAfter.After(c.past) {
				p.put(plain, ticks(e.PushAfter.Sub(e.CreatedAt)))
			}
		case e.State == Previous:
			c.time(p, e.AcceptUntil)
			p.flag(e.ActivatedAt.IsZero(), e.Doubts > 0)
		}
	}
	p.flag(c.drifts(AdoptKey) && k.went(keyForeign))
	for n := range 63 {
		if c.was>>n&1 == 1 && c.drifts(AdoptKey) {
			p.flag(k.went(keyOf(n)))
		}
	}
	if r := k.Rotation; r != nil {
		p.flag(r.Reason == ByRevoke, r.LastError != nil)
		p.int(min(r.Attempts, 12))
		c.until(p, r.RetryAt)
		if k.Pending() != nil {
			c.until(p, r.LeaseUntil)
			owner := slices.Index(owners[:], r.Owner)
			switch {
			case me < 0 && owner >= 0:
				p.put(aReplica, int32(owner))
			case owner >= 0:
				p.flag(owner == me)
			default:
				p.int(2)
			}
		}
	}
}
