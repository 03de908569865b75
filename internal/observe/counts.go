package observe

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Build is what the program was built from.
type Build struct{ Version, Revision, Go string }

// counts are the metrics that events make grow.
type counts struct {
	rotations *prometheus.CounterVec
	drifts    *prometheus.CounterVec
	steps     *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	lists     *prometheus.CounterVec
	reloadOK  prometheus.Gauge
	reloadAt  prometheus.Gauge
	each      bool // every target has series of its own
}

const (
	committed  = "committed"
	rolledBack = "rolled_back"
	done       = "done"
	failed     = "failed"
	other      = "other" // a reason that this program does not know
)

func reasons() []rotator.Reason {
	return []rotator.Reason{rotator.BySchedule, rotator.BySignal, rotator.ByCommand, rotator.ByAdopt, rotator.ByRevoke}
}

// reasonLabel is the reason, if it is one of those there are: it is read from the store.
func reasonLabel(r rotator.Reason) string {
	if slices.Contains(reasons(), r) {
		return string(r)
	}
	return other
}

func newCounts() *counts {
	c := &counts{each: true,
		rotations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_rotations_total",
			Help: "Rotations that this replica brought to an end, by target, reason and result (committed, rolled_back)."}, []string{"target", "reason", "result"}),
		drifts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_drifts_total",
			Help: "Times that Tencent was newly seen to sign with a key that is neither current nor pending, by target: also where the next scrape finds it replaced."}, []string{"target"}),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_steps_total",
			Help: "Steps that this replica took, by step and result (done, failed)."}, []string{"step", "result"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_config_reloads_total",
			Help: "Reloads of the configuration, by result (done, failed)."}, []string{"result"}),
		lists: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_discoveries_total",
			Help: "Lists of the keyrings in the store that were asked for, by result (done, failed); with TIWKEYD_DISCOVER."}, []string{"result"}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tiwkeyd_config_last_reload_successful",
			Help: "1 if the last reload succeeded, or there was none; 0 if the old configuration goes on because the new one was wrong."}),
		reloadAt: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tiwkeyd_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was read."}),
	}
	for _, s := range []rotator.Step{rotator.StepObserve, rotator.StepAdopt, rotator.StepStage, rotator.StepHasten, rotator.StepClaim, rotator.StepPush,
		rotator.StepReassert, rotator.StepCommit, rotator.StepRollback, rotator.StepRetire, rotator.StepRestore, rotator.StepRaise} {
		c.steps.WithLabelValues(string(s), done)
		c.steps.WithLabelValues(string(s), failed)
	}
	c.lists.WithLabelValues(done)
	c.lists.WithLabelValues(failed)
	c.reloads.WithLabelValues(done)
	c.reloads.WithLabelValues(failed)
	c.reloadOK.Set(1)
	c.reloadAt.SetToCurrentTime()
	return c
}

func (c *counts) register(r *prometheus.Registry, b Build) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tiwkeyd_build_info", Help: "1; the labels tell what the program was built from.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go}})
	build.Set(1)
	r.MustRegister(c.rotations, c.drifts, c.steps, c.reloads, c.lists, c.reloadOK, c.reloadAt, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// serve says how many targets there are now. Where they are more than maxSeries their rotations are
// counted together, with target "", which Prometheus takes for no label at all. It reports whether
// all begin anew, as after a restart.
func (c *counts) serve(targets int) (anew bool) {
	each := targets <= maxSeries
	if each == c.each {
		return false
	}
	c.each = each
	c.rotations.Reset()
	c.drifts.Reset()
	return true
}

// welcome makes the series of a target that an alert needs to see from zero on. With hundreds
// of targets those of all reasons would be too many.
func (c *counts) welcome(t secrets.Target) {
	c.rotations.WithLabelValues(c.label(t), string(rotator.BySchedule), committed)
	c.rotations.WithLabelValues(c.label(t), string(rotator.BySchedule), rolledBack)
	c.drifts.WithLabelValues(c.label(t))
}

func (c *counts) label(t secrets.Target) string {
	if c.each {
		return t.String()
	}
	return ""
}

func (c *counts) forget(t secrets.Target) {
	c.rotations.DeletePartialMatch(prometheus.Labels{"target": t.String()})
	c.drifts.DeleteLabelValues(t.String())
}

func (c *counts) step(ev rotator.Event) {
	switch ev.Kind {
	case rotator.Done:
		c.steps.WithLabelValues(string(ev.Step), done).Inc()
	case rotator.Error:
		c.steps.WithLabelValues(string(ev.Step), failed).Inc()
	}
}

func (c *counts) rotation(ev rotator.Event, reason string) {
	result := committed
	if ev.Step == rotator.StepRollback {
		result = rolledBack
	}
	c.rotations.WithLabelValues(c.label(ev.Target), reason, result).Inc()
}

func (c *counts) listed(err error) {
	if err != nil {
		c.lists.WithLabelValues(failed).Inc()
		return
	}
	c.lists.WithLabelValues(done).Inc()
}

func (c *counts) reloaded(err error, at time.Time) {
	if err != nil {
		c.reloads.WithLabelValues(failed).Inc()
		c.reloadOK.Set(0)
		return
	}
	c.reloads.WithLabelValues(done).Inc()
	c.reloadOK.Set(1)
	c.reloadAt.Set(float64(at.UnixMilli()) / 1000)
}
