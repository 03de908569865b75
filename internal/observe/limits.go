package observe

import "github.com/prometheus/client_golang/prometheus"

var (
	allowedDesc  = prometheus.NewDesc("tiwkeyd_tencent_rate_allowed", "Calls a second that this replica allows itself now, by API: its share of TIWKEYD_RATE, as found out.", []string{"api"}, nil)
	exceededDesc = prometheus.NewDesc("tiwkeyd_tencent_limit_exceeded_total", "Calls that Tencent refused because all replicas together made more than its limit (RequestLimitExceeded), by API.", []string{"api"}, nil)
)

// limits tells how the replica's share of Tencent's limit stands.
type limits struct{ m *Monitor }

// Describe names the metrics.
func (limits) Describe(ch chan<- *prometheus.Desc) {
	ch <- allowedDesc
	ch <- exceededDesc
}

// Collect gives their values.
func (c limits) Collect(ch chan<- prometheus.Metric) {
	c.m.mu.Lock()
	of := c.m.served.Limits
	c.m.mu.Unlock()
	if of == nil {
		return
	}
	for api, l := range of() {
		ch <- prometheus.MustNewConstMetric(allowedDesc, prometheus.GaugeValue, l.Allowed, api)
		ch <- prometheus.MustNewConstMetric(exceededDesc, prometheus.CounterValue, float64(l.Exceeded), api)
	}
}
