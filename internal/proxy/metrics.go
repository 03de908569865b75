package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tiwkeyd/internal/logs"
	"tiwkeyd/webhook"
)

// Metrics are the proxy's. No label has a value that comes from outside.
type Metrics struct {
	Registry *prometheus.Registry

	requests *prometheus.CounterVec
	rereads  prometheus.Counter
	seconds  prometheus.Histogram
}

const (
	handled = "handled"
	failed  = "failed"
	loop    = "loop"
)

// NewMetrics gives metrics of their own registry. cache may be nil.
func NewMetrics(cache *webhook.Cache) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_proxy_requests_total",
			Help: "Requests by result: handled by the receiver, failed (it did not answer, or with 5xx), loop (it came from this proxy itself), or why they were not handed on."}, []string{"result"}),
		rereads: prometheus.NewCounter(prometheus.CounterOpts{Name: "tiwkeyd_proxy_rereads_total",
			Help: "Callbacks that no held key explained, so that the keys were read once more."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tiwkeyd_proxy_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
	}
	m.requests.WithLabelValues(handled)
	m.requests.WithLabelValues(failed)
	m.requests.WithLabelValues(loop)
	for _, r := range webhook.Reasons() {
		m.requests.WithLabelValues(string(r))
	}
	m.Registry.MustRegister(m.requests, m.rereads, m.seconds, logs.Lost, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cache != nil {
		m.Registry.MustRegister(keyAges{cache})
	}
	return m
}

func (m *Metrics) observe(r webhook.Result) {
	result := handled
	switch {
	case r.Reason != "":
		result = string(r.Reason)
	case r.Status == 0 || r.Status >= http.StatusInternalServerError:
		result = failed
	}
	m.requests.WithLabelValues(result).Inc()
	if r.Reread {
		m.rereads.Inc()
	}
}

func (m *Metrics) time(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		defer func() { m.seconds.Observe(time.Since(began).Seconds()) }()
		next.ServeHTTP(w, r)
	})
}

// keyAges tells of the keys held when it is asked.
type keyAges struct{ cache *webhook.Cache }

var (
	ageDesc = prometheus.NewDesc("tiwkeyd_proxy_keys_age_seconds",
		"Time since the keys of a target were last read; there is none while they never were.", []string{"target"}, nil)
	failingDesc = prometheus.NewDesc("tiwkeyd_proxy_keys_read_failing", "1 if the last reading of a target's keys failed, else 0.", []string{"target"}, nil)
	keysDesc    = prometheus.NewDesc("tiwkeyd_proxy_keys", "Keys of a target that are accepted.", []string{"target"}, nil)
)

// Describe names the metrics.
func (keyAges) Describe(ch chan<- *prometheus.Desc) {
	ch <- ageDesc
	ch <- keysDesc
	ch <- failingDesc
}

// Collect gives their values.
func (k keyAges) Collect(ch chan<- prometheus.Metric) {
	for _, s := range k.cache.Status() {
		ch <- prometheus.MustNewConstMetric(keysDesc, prometheus.GaugeValue, float64(len(s.KeyIDs)), s.Target.String())
		failing := 0.0
		if s.Err != nil {
			failing = 1
		}
		ch <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing, s.Target.String())
		if !s.ReadAt.IsZero() {
			ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, time.Since(s.ReadAt).Seconds(), s.Target.String())
		}
	}
}
