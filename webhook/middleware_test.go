package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"tiwkeyd/tencent/tiwtest"
)

// front is a Middleware with its handler, and all that it told.
type front struct {
	http.Handler
	log     bytes.Buffer
	mu      sync.Mutex
	results []Result
	events  []*Event
	handle  func(w http.ResponseWriter, r *http.Request, body []byte)
}

func newFront(o Options) *front {
	f := &front{}
	if o.Keys == nil {
		o.Keys = Static{testKeys}
	}
	if o.Now == nil {
		o.Now = func() time.Time { return testNow }
	}
	o.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: &f.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Observe = func(r Result) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.results = append(f.results, r)
	}
	f.Handler = Middleware(o)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != r.ContentLength || r.Body.Close() != nil {
			panic("the body is not there whole")
		}
		e, ok := FromContext(r.Context())
		if !ok {
			panic("the event is not there")
		}
		f.mu.Lock()
		f.events = append(f.events, e)
		f.mu.Unlock()
		if f.handle != nil {
			f.handle(w, r, body)
		}
	}))
	return f
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (f *front) post(body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/any/path", strings.NewReader(body)))
	return w
}

func (f *front) last() Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.results[len(f.results)-1]
}

func TestMiddlewareAnswers(t *testing.T) {
	t.Parallel()
	f := newFront(Options{MaxBody: 2000})
	for _, c := range []struct {
		name, body string
		status     int
		reason     Reason
	}{
		{"genuine", callback(canaryA), 200, ""},
		{"with the other key", callback(canaryB), 200, ""},
		{"not JSON", "{", 400, Malformed},
		{"without Sign", callback(""), 401, Unsigned},
		{"expired", with(t, "1893456000", "1893455000"), 401, Expired},
		{"another application", with(t, "1400000001", "7"), 401, WrongApplication},
		{"signed with another key", callback("x"), 401, BadSignature},
		{"just short enough", callback(canaryA) + strings.Repeat(" ", 2000-len(callback(canaryA))), 200, ""},
		{"too long by one", callback(canaryA) + strings.Repeat(" ", 2001-len(callback(canaryA))), 413, TooLarge},
		{"empty", "", 400, Malformed},
	} {
		handled := len(f.events)
		w := f.post(c.body)
		r := f.last()
		if w.Code != c.status || r.Reason != c.reason || r.Status != c.status {
			t.Errorf("%s: status %d, %+v", c.name, w.Code, r)
		}
		if called := len(f.events) > handled; called != (c.status == 200) {
			t.Errorf("%s: the handler was called: %v", c.name, called)
		}
		if c.status == 200 {
			if w.Body.String() != `{"error_code":0}` || w.Header().Get("Content-Type") != "application/json" || r.EventType != "WhiteboardPushStarted" || (r.KeyID != "a" && r.KeyID != "b") {
				t.Errorf("%s: %q %v %+v", c.name, w.Body, w.Header(), r)
			}
		} else if !strings.Contains(f.log.String(), string(c.reason)) {
			t.Errorf("%s: the log does not tell of it", c.name)
		}
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", strings.NewReader(callback(canaryA))))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" || f.last().Status != 405 {
		t.Errorf("GET: %d %v", w.Code, w.Header())
	}
	sign := tiwtest.Sign(canaryA, expiry2030)
	if log := f.log.String(); strings.Contains(log, "CANARY") || strings.Contains(log, sign) || !strings.Contains(log, "sdk_app_id=1400000001") {
		t.Errorf("log:\n%s", log)
	}
}

// TestAppZero is nobody's application.
func TestAppZero(t *testing.T) {
	t.Parallel()
	f := newFront(Options{})
	f.post(with(t, "1400000001", "0"))
	if r := f.last(); r.Reason != WrongApplication || r.Reread {
		t.Errorf("%+v", r)
	}
}

// TestMiddlewareLogs no more than some lines of a flood.
func TestMiddlewareLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront(Options{})
		for range 1000 {
			f.post(callback("x"))
		}
		if n := strings.Count(f.log.String(), "\n"); n < 20 || n > 21 || len(f.results) != 1000 {
			t.Errorf("%d lines of a thousand refusals, %d results", n, len(f.results))
		}
		time.Sleep(time.Second)
		f.post(callback("x"))
		if n := strings.Count(f.log.String(), "\n"); n < 21 {
			t.Error("a second later nothing was logged")
		}
	})
}

func TestMiddlewareHandler(t *testing.T) {
	t.Parallel()
	f := newFront(Options{})
	f.handle = func(w http.ResponseWriter, r *http.Request, body []byte) {
		if string(body) != callback(canaryA) || r.URL.Path != "/any/path" || r.Trailer != nil {
			t.Errorf("the handler got %s at %s", body, r.URL)
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "tea")
		if http.NewResponseController(w).Flush() != nil {
			t.Error("it cannot flush")
		}
	}
	if w := f.post(callback(canaryA)); w.Body.String() != "tea" || f.last().Status != http.StatusTeapot {
		t.Errorf("%s %+v", w.Body, f.last())
	}
	f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = io.WriteString(w, "ok") }
	if w := f.post(callback(canaryA)); w.Body.String() != "ok" || w.Code != 200 || f.last().Status != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	f := newFront(Options{})
	send := func(event, data string) *Event {
		t.Helper()
		body := strings.Replace(with(t, "WhiteboardPushStarted", event), `"EventData":{`, `"EventData":`+data+`,"x":{`, 1)
		if w := f.post(body); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return f.events[len(f.events)-1]
	}
	started := send("WhiteboardPushStarted", `{"PushStartTime":1610545438,"PushUserId":"tic_push_user_1253_01","RoomId":1253,"TaskId":"bj0mt2l23osdj300hl30"}`)
	if s, ok := started.Data().(*WhiteboardPushStarted); !ok || *s != (WhiteboardPushStarted{"bj0mt2l23osdj300hl30", 1253, "tic_push_user_1253_01", 1610545438}) || started.KeyID != "a" || started.SdkAppID != testApp {
		t.Errorf("%+v", started)
	}
	stopped := send("WhiteboardPushStopped", `{"TaskId":"t","RoomId":880528,"GroupId":"880528","PushUserId":"u","FinishReason":"EXCEPTION","PushStartTime":1,"PushStopTime":2,"IMSyncTime":3,"ExceptionCnt":4,
		"Error":{"Code":"FailedOperation.Record","Message":"words"}}`)
	s, ok := stopped.Data().(*WhiteboardPushStopped)
	if !ok || s.GroupID != "880528" || s.FinishReason != FinishedException || s.PushStopTime != 2 || s.IMSyncTime != 3 || s.ExceptionCnt != 4 || s.Error == nil || s.Error.Code != "FailedOperation.Record" {
		t.Errorf("%+v", stopped)
	}
	for event, data := range map[string]string{"TranscodeFinished": `{"a":1}`, "WhiteboardPushStarted": `{"RoomId":"not a number"}`, "WhiteboardPushStopped": `{"TaskId":7}`} {
		e := send(event, data)
		if raw, ok := e.Data().(interface{ MarshalJSON() ([]byte, error) }); !ok {
			t.Errorf("%s: %T", event, e.Data())
		} else if text, err := raw.MarshalJSON(); err != nil || string(text) != data || e.EventType != event {
			t.Errorf("%s: %s, %v", event, text, err)
		}
	}
	if _, ok := FromContext(t.Context()); ok {
		t.Error("an event outside of a middleware")
	}
}

func TestReplays(t *testing.T) {
	t.Parallel()
	guard := NewReplayGuard(3)
	now := testNow
	f := newFront(Options{Replays: guard, Now: func() time.Time { return now }})
	at := func(n int, expire int64) string {
		return fixed(tiwtest.Callback(testApp, "x", n, canaryA, time.Unix(expire, 0)))
	}
	handled := func(body string) bool {
		before := len(f.events)
		if w := f.post(body); w.Code != 200 || w.Body.String() != `{"error_code":0}` {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return len(f.events) > before
	}
	if !handled(at(1, expiry2030)) || handled(at(1, expiry2030)) || f.last().Reason != Replayed {
		t.Error("the very same twice")
	}
	if !handled(at(2, expiry2030)) {
		t.Error("two callbacks of one second have the same signature")
	}
	// What the handler failed to deal with may come again.
	f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(500) }
	failing := at(3, expiry2030-30)
	if w := f.post(failing); w.Code != 500 {
		t.Error(w.Code)
	}
	f.handle = func(http.ResponseWriter, *http.Request, []byte) { panic(http.ErrAbortHandler) }
	func() {
		defer func() { _ = recover() }()
		f.post(failing)
	}()
	if f.last().Status != 0 {
		t.Errorf("a panic is reported as %d", f.last().Status)
	}
	f.handle = nil
	if !handled(failing) || handled(failing) {
		t.Error("after it failed")
	}
	// Full: the first to expire is forgotten, and nothing new is refused.
	for n := 4; n < 10; n++ {
		if !handled(at(n, expiry2030+int64(n))) {
			t.Error("a new one when full")
		}
	}
	if guard.Forgotten() < 5 || len(guard.seen) > 3 || len(guard.expiry) > 3 || handled(at(9, expiry2030+9)) {
		t.Errorf("forgotten %d, remembered %d", guard.Forgotten(), len(guard.seen))
	}
	// What has expired takes no room.
	now = time.Unix(expiry2030+100, 0)
	if !handled(at(20, expiry2030+200)) || len(guard.seen) != 1 || len(guard.expiry) != 1 {
		t.Errorf("after all expired %d are remembered", len(guard.seen))
	}
}

// TestRefusesNothing is what a receiver is for: a cold cache, and keys that changed a moment
// ago without any propagation.
func TestRefusesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(canaryA)
		p.slow = 200 * time.Millisecond
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		if w := f.post(callback(canaryA)); w.Code != 200 || !f.last().Reread {
			t.Errorf("cold: %d", w.Code)
		}
		if w := f.post(callback(canaryA)); w.Code != 200 || f.last().Reread {
			t.Errorf("warm: %d %+v", w.Code, f.last())
		}
		for n := range 50 {
			value := "new-" + strconv.Itoa(n)
			p.put(testTarget, value, canaryA)
			if w := f.post(callback(value)); w.Code != 200 || f.last().KeyID != "id-"+value {
				t.Errorf("a new key: %d %s", w.Code, w.Body)
			}
		}
		if w := f.post(callback("never ours")); w.Code != 401 || f.last().Reason != BadSignature {
			t.Errorf("a bad signature: %d", w.Code)
		}
	})
}

// TestUndecided: while the keys cannot be read, a signature that no held key explains may be
// genuine, and nobody is told that it is not.
func TestUndecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(canaryA)
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		time.Sleep(3 * time.Second)
		p.change(func() { p.away = errAway })
		began := time.Now()
		if w := f.post(callback(canaryB)); w.Code != 503 || f.last().Reason != Undecided || w.Header().Get("Retry-After") == "" || time.Since(began) != DefaultRereadTimeout {
			t.Errorf("away: %d after %s", w.Code, time.Since(began))
		}
		if w := f.post(callback(canaryA)); w.Code != 200 || f.last().Reread {
			t.Errorf("a held key meanwhile: %d", w.Code)
		}
		// It comes back while a callback waits.
		p.put(testTarget, canaryA, canaryB)
		time.AfterFunc(2500*time.Millisecond, func() { p.change(func() { p.away = nil }) })
		if w := f.post(callback(canaryB)); w.Code != 200 {
			t.Errorf("back in time: %d", w.Code)
		}
		p.change(func() { p.away = errAway })
		time.Sleep(3 * time.Second)
		r := &Refusal{}
		if _, err := NewVerifier(Options{Keys: c, RereadTimeout: time.Second}).again(t.Context(), &Callback{SdkAppID: testApp, ExpireTime: 1, Signed: true}, nil, time.Unix(1, 0)); !errors.As(err, &r) || !errors.Is(err, errAway) {
			t.Errorf("the cause: %v", err)
		}
	})
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	unsigned := Keys{SdkAppID: testApp, AcceptUnsigned: true}
	for _, c := range []struct {
		allow bool
		keys  Keys
		want  int
	}{{false, unsigned, 401}, {true, unsigned, 200}, {true, testKeys, 401}, {false, testKeys, 401}} {
		f := newFront(Options{Keys: Static{c.keys}, AllowUnsigned: c.allow})
		if w := f.post(callback("")); w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
		if w := f.post(strings.Replace(callback(""), "1893456000", "1893455000", 1)); w.Code != 401 {
			t.Errorf("%+v: expired and unsigned: %d", c, w.Code)
		}
	}
}

// TestUnsignedWithoutExpireTime: while there is no key Tencent sends neither Sign nor ExpireTime. Without that, the very
// same is known again for a while.
func TestUnsignedWithoutExpireTime(t *testing.T) {
	t.Parallel()
	body := strings.Replace(callback(""), `"ExpireTime"`, `"x"`, 1)
	now := testNow
	for _, allow := range []bool{false, true} {
		f := newFront(Options{Keys: Static{{SdkAppID: testApp, AcceptUnsigned: true}}, AllowUnsigned: allow, Replays: NewReplayGuard(3), Now: func() time.Time { return now }})
		if w := f.post(body); (w.Code == 200) != allow || f.last().Reason != map[bool]Reason{false: Unsigned}[allow] {
			t.Errorf("allowed %t: %d, %s", allow, w.Code, f.last().Reason)
		}
		for later, want := range map[time.Duration]Reason{85 * time.Second: Replayed, time.Hour: ""} {
			if !allow {
				break
			}
			f := newFront(Options{Keys: Static{{SdkAppID: testApp, AcceptUnsigned: true}}, AllowUnsigned: true, Replays: NewReplayGuard(3), Now: func() time.Time { return now }})
			now = testNow
			f.post(body)
			now = testNow.Add(later)
			if w := f.post(body); w.Code != 200 || f.last().Reason != want {
				t.Errorf("%s later: %d, %s", later, w.Code, f.last().Reason)
			}
			now = testNow
		}
	}
}

func TestLeeway(t *testing.T) {
	t.Parallel()
	for late, want := range map[time.Duration]int{0: 200, 30 * time.Second: 200, 31 * time.Second: 401} {
		f := newFront(Options{Leeway: 30 * time.Second, Now: func() time.Time { return time.Unix(expiry2030, 0).Add(late) }})
		if w := f.post(callback(canaryA)); w.Code != want {
			t.Errorf("%s late: %d", late, w.Code)
		}
	}
}

// endless is a body without end, which counts what was taken of it.
type endless struct{ taken int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.taken += int64(len(p))
	return len(p), nil
}

// TestLargeBody: of a body of whatever length no more is taken than the limit.
func TestLargeBody(t *testing.T) {
	f := newFront(Options{})
	for _, announced := range []int64{1 << 30, -1} {
		body := &endless{}
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.ContentLength = announced
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != 413 || body.taken > DefaultMaxBody+1 {
			t.Errorf("status %d after %d bytes", w.Code, body.taken)
		}
	}
	// And what is announced makes no room by itself.
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
	r.ContentLength = DefaultMaxBody
	if n := testing.AllocsPerRun(1, func() { f.ServeHTTP(httptest.NewRecorder(), r) }); n > 100 {
		t.Error(n)
	}
}

// TestBodiesOfAllLengths come through whole, announced or not, or announced wrongly.
func TestBodiesOfAllLengths(t *testing.T) {
	t.Parallel()
	const limit = 200_000
	for _, n := range []int{0, 1, 1023, 1024, 1025, 2048, 65535, 65536, 65537, 131072, 131073, limit - 1, limit} {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(i * 7)
		}
		for _, announced := range []int64{-1, int64(n), int64(n) / 2, int64(n) + 1, limit, limit + 1} {
			for _, r := range []io.Reader{bytes.NewReader(body), iotest.OneByteReader(bytes.NewReader(body)), iotest.DataErrReader(bytes.NewReader(body))} {
				got, err := readAll(r, announced, limit, func(int64) error { return nil })
				if err != nil || !bytes.Equal(got, body) {
					t.Fatalf("of %d bytes, announced as %d, %d came: %v", n, announced, len(got), err)
				}
				if cap(got) > limit+4096 {
					t.Fatalf("%d bytes took room for %d", n, cap(got))
				}
			}
		}
	}
	if _, err := readAll(iotest.ErrReader(errAway), 1, limit, nil); !errors.Is(err, errAway) {
		t.Error(err)
	}
}

// TestSlowBody: a connection whose body does not come is given up, one whose handler takes
// longer than the body may is not.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	f := newFront(Options{BodyTimeout: 100 * time.Millisecond})
	wait := make(chan struct{})
	f.handle = func(_ http.ResponseWriter, r *http.Request, _ []byte) {
		select {
		case <-wait:
		case <-r.Context().Done():
			t.Error("the handler's context ended")
		}
	}
	server := httptest.NewServer(f)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn) // ends because the server closes
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("%q, %v", answer, err)
	}
	done := make(chan int)
	go func() {
		res, err := http.Post(server.URL, "application/json", strings.NewReader(callback(canaryA)))
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		_ = res.Body.Close()
		done <- res.StatusCode
	}()
	// Another request meets its timeout while that one is still being handled.
	again, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	for range 2 {
		if _, err := io.WriteString(again, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err == nil {
			_, _ = io.ReadAll(again)
		}
	}
	close(wait)
	if code := <-done; code != 200 {
		t.Errorf("the slow handler's answer was %d", code)
	}
}

func TestMiddlewareNeedsKeys(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("without keys it does not complain")
		}
	}()
	Middleware(Options{})
}

// TestSenderGoes: who goes away while a callback is judged or handled takes nothing back.
// Tencent may send it but once.
func TestSenderGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(canaryA)
		p.slow = 1500 * time.Millisecond
		c := NewCache(t.Context(), p, CacheOptions{}, testTarget)
		defer c.Close()
		f := newFront(Options{Keys: c})
		f.handle = func(_ http.ResponseWriter, r *http.Request, _ []byte) {
			if r.Context().Err() != nil {
				t.Error("the handler's context has ended")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(callback(canaryA))))
		if len(f.events) != 1 || f.last().Reason != "" {
			t.Errorf("%+v", f.last())
		}
	})
}
