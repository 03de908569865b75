package rotator

import "time"

// Two daemons with a keyring each for one application undo each other: each puts its own key back,
// without end. Neither knows of the other, so each says so and puts its key back more and more rarely.
// Who adopts sets nothing, and is no part of that until an older key of its own comes back.

// contestTimes is how often a key is put back before it is contested: a person who sets a foreign one
// may try again once, a program does not stop.
const contestTimes = 3

// contestSpan is how soon one must follow another to count, and after how long without one it is over:
// in the largest fleets a target is looked at every 42 minutes.
const contestSpan = time.Hour

// contest is how often the current key had to be put back of late.
type contest struct {
	put        bool          // it was set in place of another one, and not seen in force since
	times      int           // that it was, each within contestSpan of the one before
	last, rest time.Duration // the last of them, and until when the key is not put back; by the steady clock
	since      time.Time     // the first of them, to be told
}

func (c *contest) on() bool { return c.times >= contestTimes }

// contend counts a key that was put back once it is seen in force. Until then Tencent may go on telling
// of the same foreign key.
func (e *Engine) contend(tr *track) {
	c, k, now, t := &tr.contest, tr.snap.Keyring, e.moment(), &e.policy.Timing
	if !c.put || k == nil || !tr.obs.Key.Equal(k.CallbackKey()) {
		return
	}
	c.put, c.last, c.times, c.since = false, now.steady, c.times+1, sooner(c.since, now.wall)
	if c.on() {
		c.rest = now.steady + e.delay(c.times, t.RetryMin, t.RetryMax)
	}
	if c.times == contestTimes {
		e.log.Warn("the target is contested: two daemons undo each other, or somebody sets keys again and again; its key is put back less and less often; find who else sets keys for this application, and stop them or have both daemons use one store", "target", tr.target.String(), "times", c.times, "since", c.since)
	}
}

// appease ends what has not gone on for contestSpan.
func (e *Engine) appease(tr *track) {
	if c := &tr.contest; c.times > 0 && e.clock.Steady()-c.last >= contestSpan {
		if c.on() {
			e.log.Info("the target is contested no more: for an hour its key was not replaced by another one", "target", tr.target.String(), "times", c.times, "since", c.since)
		}
		*c = contest{put: c.put}
	}
}
