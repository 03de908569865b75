package observe

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent"
)

// calls are the metrics of what is asked of others.
type calls struct {
	api          *prometheus.CounterVec
	apiSeconds   *prometheus.HistogramVec
	store        *prometheus.CounterVec
	storeSeconds *prometheus.HistogramVec
}

const (
	ok       = "ok"
	conflict = "conflict"

	opRead  = "read"
	opWrite = "write"
	opPurge = "purge"
)

// classLabels are the classes as label values.
var classLabels = map[rotator.Class]string{rotator.Doubtful: "doubtful", rotator.RefusedForNow: "refused_for_now", rotator.Refused: "refused"}

func newCalls() *calls {
	c := &calls{
		api: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_tencent_requests_total",
			Help: "Calls to Tencent, by API and what their answers mean (ok, doubtful, refused_for_now, refused)."}, []string{"api", "class"}),
		apiSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tiwkeyd_tencent_request_duration_seconds",
			Help:    "Time that calls to Tencent took, with the wait for a place within TIWKEYD_RATE.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"api"}),
		store: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tiwkeyd_store_requests_total",
			Help: "Calls to the store of the keyrings (Vault), by operation and result (ok, conflict, failed)."}, []string{"operation", "result"}),
		storeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tiwkeyd_store_request_duration_seconds",
			Help:    "Time that calls to the store took, with a login where one was needed.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"operation"}),
	}
	for _, op := range []string{opRead, opWrite, opPurge} {
		c.storeSeconds.WithLabelValues(op)
		for _, result := range []string{ok, conflict, failed} {
			c.store.WithLabelValues(op, result)
		}
	}
	return c
}

// welcome makes the series of a service's APIs.
func (c *calls) welcome(s secrets.Service) {
	set, describe := tencent.APIs(s)
	for _, api := range []string{set, describe} {
		c.apiSeconds.WithLabelValues(api)
		c.api.WithLabelValues(api, ok)
		for _, class := range classLabels {
			c.api.WithLabelValues(api, class)
		}
	}
}

func (c *calls) register(r *prometheus.Registry) {
	r.MustRegister(c.api, c.apiSeconds, c.store, c.storeSeconds)
}

// API gives api with its calls counted and timed.
func (m *Monitor) API(api rotator.CallbackAPI) rotator.CallbackAPI { return watchedAPI{m.calls, api} }

type watchedAPI struct {
	calls *calls
	api   rotator.CallbackAPI
}

func (w watchedAPI) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	began := time.Now()
	id, err := w.api.SetKey(ctx, t, k)
	set, _ := tencent.APIs(t.Service)
	w.count(set, began, err)
	return id, err
}

func (w watchedAPI) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	began := time.Now()
	k, err := w.api.KeyInForce(ctx, t)
	_, describe := tencent.APIs(t.Service)
	w.count(describe, began, err)
	return k, err
}

func (w watchedAPI) count(api string, began time.Time, err error) {
	class := ok
	if err != nil {
		var answer *rotator.APIError
		if class = classLabels[rotator.Doubtful]; errors.As(err, &answer) {
			class = classLabels[answer.Class]
		}
	}
	w.calls.api.WithLabelValues(api, class).Inc()
	w.calls.apiSeconds.WithLabelValues(api).Observe(time.Since(began).Seconds())
}

// Store gives s with its calls counted and timed.
func (m *Monitor) Store(s rotator.Store) rotator.Store { return watchedStore{s, m.calls, &m.reads} }

type watchedStore struct {
	rotator.Store
	calls *calls
	reads *reads
}

func (w watchedStore) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	began := time.Now()
	s, err := w.Store.Read(ctx, t)
	w.count(opRead, began, err)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) { // a call that was broken off tells nothing about the store
		w.reads.ended(err, time.Now())
	}
	return s, err
}

func (w watchedStore) Write(ctx context.Context, t secrets.Target, k *rotator.Keyring, version int64) (int64, error) {
	began := time.Now()
	v, err := w.Store.Write(ctx, t, k, version)
	w.count(opWrite, began, err)
	return v, err
}

func (w watchedStore) Purge(ctx context.Context, t secrets.Target, version int64) error {
	began := time.Now()
	err := w.Store.Purge(ctx, t, version)
	w.count(opPurge, began, err)
	return err
}

func (w watchedStore) count(op string, began time.Time, err error) {
	result := ok
	switch {
	case errors.Is(err, rotator.ErrConflict):
		result = conflict
	case err != nil:
		result = failed
	}
	w.calls.store.WithLabelValues(op, result).Inc()
	w.calls.storeSeconds.WithLabelValues(op).Observe(time.Since(began).Seconds())
}
