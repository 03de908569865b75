package connlimit

import "github.com/prometheus/client_golang/prometheus"

// desc has the server as a constant label: one registry may have several limits.
func (l *Limit) desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("tiwkeyd_"+name, help, nil, prometheus.Labels{"server": l.server})
}

func (l *Limit) descs() (held, most, closed *prometheus.Desc) {
	return l.desc("connections", "Connections that are held, by server."),
		l.desc("connections_limit", "Connections that may be held, by server: a share of the files that may be open."),
		l.desc("connections_closed_total", "Connections that were closed because new ones found no room, by server; only such as waited for a request, or for their answer to be taken.")
}

// Describe names the metrics.
func (l *Limit) Describe(ch chan<- *prometheus.Desc) {
	held, most, closed := l.descs()
	ch <- held
	ch <- most
	ch <- closed
}

// Collect gives their values.
func (l *Limit) Collect(ch chan<- prometheus.Metric) {
	held, most, closed := l.descs()
	l.mu.Lock()
	defer l.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(held, prometheus.GaugeValue, float64(l.held))
	ch <- prometheus.MustNewConstMetric(most, prometheus.GaugeValue, float64(l.most))
	ch <- prometheus.MustNewConstMetric(closed, prometheus.CounterValue, float64(l.closed))
}
