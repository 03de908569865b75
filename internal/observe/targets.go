package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/rotator"
)

// due is when the schedule wants a target's next key; at once, for one whose key was never
// replaced, is when this process began to look after it. Zero is never.
func due(s rotator.Standing, of memory) time.Time {
	if s.Paused {
		return time.Time{}
	}
	if !s.Adopted || (!s.Due.IsZero() && s.RotatedAt.IsZero()) {
		return of.since
	}
	return s.Due
}

// next is when the next rotation is to begin, or should have: after one that failed, it is the
// next attempt.
func next(s rotator.Standing, of memory) time.Time {
	if s.PendingID == "" && !s.Paused && s.Reason != "" && !s.RetryAt.IsZero() {
		return s.RetryAt
	}
	return due(s, of)
}

// overdueAfter is how long a rotation may take from when it is due: receivers come to accept
// the key, it is tried for as long as it may be, and a visit may be one interval away.
func overdueAfter(s rotator.Standing, p rotator.Policy) time.Duration {
	return max(p.Propagation, s.Propagation) + p.AttemptLimit + p.Reconcile
}

// overdue reports whether the key should have been replaced long ago. What came due while no
// process ran counts from this one's start.
func overdue(s rotator.Standing, of memory, p rotator.Policy, now time.Time) bool {
	d := due(s, of)
	if d.IsZero() {
		return false
	}
	if d.Before(of.since) {
		d = of.since
	}
	return now.Sub(d) > overdueAfter(s, p)
}

// LateAfter is how long after its PushAfter a pending key is in force at the latest, if all is well.
// The exception is more than some six thousand rotations that were asked for at once, at the default rate:
// their last keys wait for Tencent's limit.
const LateAfter = 5 * time.Minute

// Late reports whether a pending key should be in force by now. It goes by the keyring's own time:
// ReadyAt moves on when receivers begin anew, and just then somebody has to be told.
func Late(pushAfter, now time.Time) bool { return now.Sub(pushAfter) > LateAfter }

func late(s rotator.Standing, now time.Time) bool {
	return s.PendingID != "" && Late(s.PushAfter, now)
}

func perTarget(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"target"}, more...), nil)
}

// maxSeries is up to how many targets each has series of its own. Where there are more, only those have
// that somebody may be woken for, at most as many again: seven series of each of ten thousand
// targets would cost more memory than all else here, and Prometheus as much.
const maxSeries = 500

var (
	sinceDesc   = perTarget("tiwkeyd_target_since_rotation_seconds", "Time since the current key was found in force; there is none if the key was never replaced.")
	untilDesc   = perTarget("tiwkeyd_target_until_rotation_seconds", "Time until the next rotation, or the next attempt after one that was rolled back; below zero: since it is due.")
	ageDesc     = perTarget("tiwkeyd_target_key_age_seconds", "Time since the current key was made or adopted.")
	phaseDesc   = perTarget("tiwkeyd_target_phase", "1 for the phase that the target is in.", "phase")
	driftDesc   = perTarget("tiwkeyd_target_drift", "1 if Tencent was last seen to sign with a key that is neither current nor pending, else 0.")
	fightDesc   = perTarget("tiwkeyd_target_contested", "1 if another key is set whenever this replica puts the current one back: two daemons undo each other; else 0.")
	lateDesc    = perTarget("tiwkeyd_target_rotation_late_seconds", "While a rotation is in hand: time since its key was to be set, as the keyring tells; below zero: until then. More than 300 is late.")
	ownedDesc   = perTarget("tiwkeyd_target_rotation_owned", "While a rotation is in hand: 1 if this replica carries it out, 0 if another does.")
	leaseDesc   = perTarget("tiwkeyd_target_rotation_lease_seconds", "While a rotation is in hand: time until another replica may take it over; below zero: since it may.")
	errorDesc   = perTarget("tiwkeyd_target_last_error_timestamp_seconds", "When a step or the store last failed; there is none if none has since this process started.")
	visitDesc   = perTarget("tiwkeyd_target_visit_age_seconds", "Time since the engine last dealt with the target, or failed to.")
	targetsDesc = prometheus.NewDesc("tiwkeyd_targets", "Targets that are looked after, by phase.", []string{"phase"}, nil)
	overdueDesc = prometheus.NewDesc("tiwkeyd_targets_overdue", "Targets whose key should have been replaced longer ago than a rotation takes: TIWKEYD_PROPAGATION, TIWKEYD_ATTEMPT_LIMIT and TIWKEYD_RECONCILE together.", nil, nil)
	driftsDesc  = prometheus.NewDesc("tiwkeyd_targets_drifting", "Targets for which Tencent was last seen to sign with a key that is neither current nor pending.", nil, nil)
	fightsDesc  = prometheus.NewDesc("tiwkeyd_targets_contested", "Targets for which another key is set whenever this replica puts the current one back: two daemons undo each other.", nil, nil)
	latesDesc   = prometheus.NewDesc("tiwkeyd_targets_late", "Targets with a pending key that was to be set more than five minutes ago, as the keyring tells, and is not in force.", nil, nil)
	oldestDesc  = prometheus.NewDesc("tiwkeyd_oldest_key_age_seconds", "Time since the oldest of all current keys was made or adopted.", nil, nil)
	longestDesc = prometheus.NewDesc("tiwkeyd_longest_visit_age_seconds", "Time since the engine last dealt with the target, or failed to, that it has left alone for longest.", nil, nil)
	lookDesc    = prometheus.NewDesc("tiwkeyd_look_interval_seconds", "How often a settled target is looked at: TIWKEYD_RECONCILE, or less often where there are so many targets that looks would take more than a quarter of TIWKEYD_RATE.", nil, nil)
	tokenDesc   = prometheus.NewDesc("tiwkeyd_vault_token_ttl_seconds", "Time until the Vault token ends unless it is renewed; there is none while that is not known, or if it never ends.", nil, nil)
)

// standings tells, when it is asked, how the targets stand.
type standings struct{ m *Monitor }

// Describe names the metrics.
func (standings) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sinceDesc, untilDesc, ageDesc, phaseDesc, driftDesc, fightDesc, lateDesc, ownedDesc, leaseDesc, errorDesc, visitDesc, targetsDesc, overdueDesc, driftsDesc, fightsDesc, latesDesc, oldestDesc, longestDesc, lookDesc} {
		ch <- d
	}
}

// Collect gives their values.
func (c standings) Collect(ch chan<- prometheus.Metric) {
	v, now := c.m.look(), time.Now()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	var overdues, lates, drifts, fights, shown int
	var oldest, longest time.Duration
	counts, all := map[rotator.Phase]int{}, len(v.standings) <= maxSeries
	for i := range v.standings {
		s := &v.standings[i]
		of, phase := v.memory[s.Target], s.PhaseAt(now)
		isOverdue, isLate := overdue(*s, of, v.Policy, now), late(*s, now)
		counts[phase]++
		if isOverdue {
			overdues++
		}
		if isLate {
			lates++
		}
		if s.Contested {
			fights++
		}
		if s.Drift {
			drifts++
		}
		if !s.KeyCreated.IsZero() {
			oldest = max(oldest, now.Sub(s.KeyCreated))
		}
		if !s.At.IsZero() {
			longest = max(longest, now.Sub(s.At))
		}
		if all || (shown < maxSeries && (isOverdue || isLate || s.Drift || s.Contested || phase == rotator.RolledBack || of.trouble.Text != "")) {
			shown++
			ofTarget(gauge, s, of, phase, now)
		}
	}
	for _, phase := range rotator.Phases() {
		gauge(targetsDesc, float64(counts[phase]), string(phase))
	}
	gauge(overdueDesc, float64(overdues))
	gauge(driftsDesc, float64(drifts))
	gauge(fightsDesc, float64(fights))
	gauge(latesDesc, float64(lates))
	if oldest > 0 {
		gauge(oldestDesc, oldest.Seconds())
	}
	if longest > 0 {
		gauge(longestDesc, longest.Seconds())
	}
	if v.Engine != nil {
		gauge(lookDesc, v.Engine.Interval().Seconds())
	}
}

// ofTarget gives the series of one target.
func ofTarget(gauge func(*prometheus.Desc, float64, ...string), s *rotator.Standing, of memory, phase rotator.Phase, now time.Time) {
	target := s.Target.String()
	gauge(phaseDesc, 1, target, string(phase))
	if !of.lastError.IsZero() {
		gauge(errorDesc, float64(of.lastError.UnixMilli())/1000, target)
	}
	if !s.At.IsZero() {
		gauge(visitDesc, now.Sub(s.At).Seconds(), target)
	}
	if at := next(*s, of); !at.IsZero() {
		gauge(untilDesc, at.Sub(now).Seconds(), target)
	}
	if !s.RotatedAt.IsZero() {
		gauge(sinceDesc, now.Sub(s.RotatedAt).Seconds(), target)
	}
	if !s.KeyCreated.IsZero() {
		gauge(ageDesc, now.Sub(s.KeyCreated).Seconds(), target)
	}
	if s.Adopted {
		gauge(driftDesc, flag(s.Drift), target)
		gauge(fightDesc, flag(s.Contested), target)
	}
	if s.PendingID != "" {
		gauge(ownedDesc, flag(s.Ours), target)
	}
	if s.PendingID != "" && !s.PushAfter.IsZero() {
		gauge(lateDesc, now.Sub(s.PushAfter).Seconds(), target)
	}
	if s.PendingID != "" && !s.LeaseUntil.IsZero() {
		gauge(leaseDesc, s.LeaseUntil.Sub(now).Seconds(), target)
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// token tells of the store's login.
type token struct{ m *Monitor }

// Describe names the metric.
func (token) Describe(ch chan<- *prometheus.Desc) { ch <- tokenDesc }

// Collect gives its value.
func (c token) Collect(ch chan<- prometheus.Metric) {
	c.m.mu.Lock()
	expiry := c.m.served.TokenExpiry
	c.m.mu.Unlock()
	if expiry == nil {
		return
	}
	if at, known := expiry(); known {
		ch <- prometheus.MustNewConstMetric(tokenDesc, prometheus.GaugeValue, time.Until(at).Seconds())
	}
}
