package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"tiwkeyd/tencent/tiwtest"
)

// TestTraces: a daemon sends a trace for each rotation, and what is left of it at its end. No
// key is in it.
func TestTraces(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	said := &output{} // searched for secrets at the end
	r.outputs = append(r.outputs, said)
	var mu sync.Mutex
	names, roots, traces := map[string]int{}, map[string]int{}, map[string]bool{}
	c := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		_, _ = said.Write(body)
		var got collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &got) != nil {
			t.Errorf("not an export: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range got.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					names[s.Name]++
					traces[string(s.TraceId)] = true
					for _, a := range s.Attributes {
						if a.Key == "tiwkeyd.result" {
							roots[a.Value.GetStringValue()]++
						}
					}
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	d := r.daemon("OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL)
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	r.server.Plan("Set", 0, tiwtest.Refuse("AuthFailure"))
	d.signal(syscall.SIGUSR1)
	r.awaitOutput(d, `"msg":"rollback done"`)
	r.keyring()
	d.signal(syscall.SIGTERM)
	<-d.done
	mu.Lock()
	defer mu.Unlock()
	if roots["committed"] != 1 || roots["rolled_back"] != 1 || len(traces) != 2 || names["stage"] != 2 || names["rotation"] != 2 || names["wait"] < 2 || names["push"] < 2 || names["commit"] != 1 || names["rollback"] != 1 {
		t.Errorf("%v, %v, %d traces", names, roots, len(traces))
	}
}
