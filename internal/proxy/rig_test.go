package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testApp = 1400000001
	canaryA = "CANARY-a-of-the-proxy"
	canaryB = "CANARY-b-of-the-proxy"
	event   = "WhiteboardPushStarted"
	hang    = time.Minute // ends a wait that would never end; nothing is measured with it
)

var (
	target   = secrets.Target{SdkAppID: testApp, Service: secrets.WhiteboardPush}
	testKeys = webhook.Keys{SdkAppID: testApp, Accept: []webhook.Key{secrets.NewKey("key-a", canaryA), secrets.NewKey("key-b", canaryB)}}
	expiry   = time.Now().Add(time.Hour).Truncate(time.Second)
)

// callback is a genuine body, the nth one, the same whenever it is asked for.
func callback(n int) string {
	return fmt.Sprintf(`{"EventData":{"RoomId":%d,"PushUserId":"teacher"},"EventType":%q,"ExpireTime":%d,"SdkAppId":%d,"Sign":%q,"Timestamp":1}`,
		n, event, expiry.Unix(), testApp, tiwtest.Sign(canaryA, expiry.Unix()))
}

func sum(body string) string {
	s := sha256.Sum256([]byte(body))
	return hex.EncodeToString(s[:])
}

// seen is a request as it came to the receiver.
type seen struct {
	*http.Request
	body string
}

// receiver is what stands behind the proxy. It answers 200 unless told otherwise.
type receiver struct {
	handle http.HandlerFunc

	mu  sync.Mutex
	got []seen
}

func (u *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	u.mu.Lock()
	u.got = append(u.got, seen{r, string(body)})
	handle := u.handle
	u.mu.Unlock()
	if handle != nil {
		handle(w, r)
	}
}

// do has it answer otherwise from now on.
func (u *receiver) do(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle = h
}

func (u *receiver) requests() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seen(nil), u.got...)
}

// rig is a proxy with a receiver behind it.
type rig struct {
	*httptest.Server
	t        *testing.T
	receiver *receiver
	upstream *httptest.Server // the receiver's; nil if change gave another
	metrics  *Metrics
	log      *locked
}

// locked is a log.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig has a receiver that serves from the start, unless change gives another upstream than
// a path.
func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, receiver: &receiver{}, log: &locked{}, metrics: NewMetrics(nil)}
	o := Options{Webhook: webhook.Options{Keys: webhook.Static{testKeys}}, UpstreamTimeout: hang, UpstreamWait: hang, Metrics: r.metrics,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&o)
	}
	r.metrics = o.Metrics
	if o.Upstream == nil || o.Upstream.Host == "" {
		r.upstream = httptest.NewServer(r.receiver)
		t.Cleanup(r.upstream.Close)
		u := parse(t, r.upstream.URL)
		if o.Upstream != nil {
			u.Path = o.Upstream.Path
		}
		o.Upstream = u
	}
	handler, closeIdle := New(o)
	r.Server = httptest.NewServer(handler)
	t.Cleanup(func() {
		r.Close()
		closeIdle()
		http.DefaultClient.CloseIdleConnections()
		text := r.log.String() + scrape(t, r.metrics)
		for _, secret := range []string{"CANARY", tiwtest.Sign(canaryA, expiry.Unix()), tiwtest.Sign(canaryB, expiry.Unix())} {
			if strings.Contains(text, secret) {
				t.Error("a key or a signature shows in the log or the metrics")
			}
		}
	})
	return r
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// post sends a body and gives the answer.
func (r *rig) post(body string) (int, string) {
	r.t.Helper()
	res, err := http.Post(r.URL+"/hook", "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Error(err)
	}
	return res.StatusCode, string(text)
}

// raw sends a request as it is written, and gives the status of the answer.
func (r *rig) raw(text string) int {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, text); err != nil {
		r.t.Fatal(err)
	}
	b := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(b, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		if res.StatusCode != http.StatusContinue {
			return res.StatusCode
		}
	}
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	limit := time.NewTimer(hang)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// scrape gives the metrics as Prometheus reads them.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("metrics: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// value is that of one series, "" if there is none.
func value(t *testing.T, m *Metrics, series string) string {
	t.Helper()
	for line := range strings.Lines(scrape(t, m)) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
