//go:build torture

package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// nodePatience is how long one node may take to answer a receiver.
const nodePatience = 700 * time.Millisecond

// balancer hands a receiver's requests to whichever node of Vault answers, as what stands before a cluster
// does: a receiver that is bound to one node would see nothing while that one is away. A node that
// lags tells this receiver what was, too, though never twice running: for longer than propagation no receiver
// may read such nodes only.
func (w *torture) balancer() http.Handler {
	var turn atomic.Uint64
	var old atomic.Bool // was the last answer
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		first := turn.Add(1)
		for i := range w.cluster.Nodes {
			n := (first + uint64(i)) % uint64(len(w.cluster.Nodes))
			if !old.Load() && w.laggards[n].tells(rw, r) {
				old.Store(true)
				return
			}
			node := w.cluster.Nodes[n]
			if relay(transport, rw, r, body, strings.TrimPrefix(node.Addr, "http://")) {
				if ofKeyring(r) {
					old.Store(false)
				}
				return
			}
		}
		http.Error(rw, `{"errors":["no node answers"]}`, http.StatusServiceUnavailable)
	})
}

// relay hands a request to one node, and reports whether that had an answer.
func relay(t http.RoundTripper, rw http.ResponseWriter, r *http.Request, body []byte, node string) bool {
	ctx, cancel := context.WithTimeout(r.Context(), nodePatience)
	defer cancel()
	req := r.Clone(ctx)
	req.URL.Scheme, req.URL.Host, req.RequestURI = "http", node, ""
	req.Body = io.NopCloser(bytes.NewReader(body))
	res, err := t.RoundTrip(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= http.StatusInternalServerError {
		return false
	}
	maps.Copy(rw.Header(), res.Header)
	rw.WriteHeader(res.StatusCode)
	_, _ = rw.Write(answer)
	return true
}
