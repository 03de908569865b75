package rotator

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tiwkeyd/secrets"
)

// Overrides are what holds for one target in place of what is configured for all. They are kept in
// its keyring, so that every replica goes by them. The zero value of a field overrides nothing.
type Overrides struct {
	Schedule    string         `json:"schedule,omitzero"`    // when to rotate, as Options.Due reads it
	Grace       time.Duration  `json:"grace,omitzero"`       // at least MinGrace, in whole seconds
	Propagation *time.Duration `json:"propagation,omitzero"` // how late receivers may be, at most MaxPropagation, in whole seconds; nil: not known
	Paused      bool           `json:"paused,omitzero"`      // neither the schedule nor BySignal begins a rotation

	Unknown jsontext.Value `json:",embed"`
}

// MinGrace and MaxGrace bound Policy.Grace: a request that Tencent honours late takes that long to
// be over, and nobody plans for longer than ten years.
const (
	MinGrace = 10 * time.Minute
	MaxGrace = 10 * 365 * 24 * time.Hour
)

// isZero reports whether nothing is overridden.
func (o *Overrides) isZero() bool {
	return o == nil || (o.Schedule == "" && o.Grace == 0 && o.Propagation == nil && !o.Paused && len(o.Unknown) == 0)
}

// With is k with other overrides, for a Store to write.
func (k *Keyring) With(o Overrides) *Keyring {
	n := k.Clone()
	if k.Edited {
		n = k.Again()
	}
	n.Revision = "" // the Store gives it one
	if k.Overrides != nil {
		o.Unknown = k.Overrides.Unknown
	}
	n.Overrides = &o
	if o.isZero() {
		n.Overrides = nil
	}
	return n
}

// Again is k to be written over a version that receivers may have read and that had other keys: they get their time for
// the pending key from when this can be read, on every replica, also on one that never saw that version.
func (k *Keyring) Again() *Keyring {
	n := k.Clone()
	if e := n.Pending(); e != nil && n.Rotation.Reason != ByRevoke {
		e.Renewed++
	}
	return n
}

// paused reports whether no rotation is to begin by itself.
func (k *Keyring) paused() bool { return k != nil && k.Overrides != nil && k.Overrides.Paused }

// Of is the policy for the target whose keyring is k, or nil. A grace that is too short is taken for the
// least. The propagation that is written holds, unless this process was told of a longer one.
func (p *Policy) Of(k *Keyring) *Policy {
	if k == nil || k.Overrides == nil || (k.Overrides.Grace == 0 && k.Overrides.Propagation == nil) {
		return p
	}
	c := *p
	if g := k.Overrides.Grace; g != 0 {
		c.Grace = max(g, min(MinGrace, p.Grace))
	}
	if d := k.Overrides.Propagation; d != nil {
		c.Propagation = min(*d, MaxPropagation)
		if p.PropagationSet {
			c.Propagation = max(c.Propagation, p.Propagation)
		}
	}
	return &c
}

// raises reports whether this process was told of a longer propagation than k says.
func (p *Policy) raises(k *Keyring) bool {
	return p.PropagationSet && (k.Overrides == nil || k.Overrides.Propagation == nil || *k.Overrides.Propagation < p.Propagation)
}

// raised is k with the propagation that this process was told of, which holds for a pending key, too,
// whoever lowers it later. Its receivers could read that key since it was written.
func (k *Keyring) raised(p *Policy) *Keyring {
	var o Overrides
	if k.Overrides != nil {
		o = *k.Overrides
	}
	o.Propagation = new(wholeSeconds(p.Propagation))
	n := k.With(o)
	if e := n.Pending(); e != nil && n.Rotation.Reason != ByRevoke {
		e.PushAfter = later(e.PushAfter, e.CreatedAt.Add(*o.Propagation))
	}
	return n
}

// wholeSeconds is d, rounded up as a keyring can say it.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// outdone tells, once, that a keyring says more than this process was told.
func (e *Engine) outdone(t secrets.Target, holds time.Duration) {
	if own := e.policy.Propagation; e.policy.PropagationSet && holds > wholeSeconds(own) {
		e.longer.Do(func() {
			e.log.Info("the keyring says that receivers need longer than TIWKEYD_PROPAGATION, and they get it; if they do not need it, run the command, which holds for keys staged afterwards (with --all in place of the target: for all targets)",
				"target", t.String(), "propagation", holds.String(), "configured", own.String(), "command", fmt.Sprintf("tiwkeyd set %s propagation=%s", t, own))
		})
	}
}

// dueAt is when the key of a target, in force since at, is to be replaced; zero: never.
func (e *Engine) dueAt(t secrets.Target, k *Keyring, at time.Time) time.Time {
	if k.paused() {
		return time.Time{}
	}
	return e.due(t, k, at)
}
