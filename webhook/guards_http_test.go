package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"tiwkeyd/secrets"
)

// TestRoomAsked: room is asked for what is long, in chunks or not, once, and for as much as it takes.
func TestRoomAsked(t *testing.T) {
	t.Parallel()
	const limit = 200_000
	for _, c := range []struct {
		n, announced int64
		want         []int64
	}{
		{SmallBody - 1, -1, nil}, {SmallBody - 1, SmallBody - 1, nil}, {SmallBody, -1, nil}, {SmallBody + 1, -1, []int64{limit + 1}}, {5000, limit, nil}, {SmallBody + 1, SmallBody + 1, []int64{SmallBody + 2}}, {100_000, 100_000, []int64{100_001}},
		{100_000, -1, []int64{limit + 1}}, {limit, limit, []int64{limit + 1}}, {100_000, 40_000, []int64{40_001, limit + 1}}, {100_000, 1, []int64{limit + 1}},
	} {
		var asked []int64
		body, err := readAll(bytes.NewReader(make([]byte, c.n)), c.announced, limit, func(n int64) error { asked = append(asked, n); return nil })
		if err != nil || int64(len(body)) != c.n || !slices.Equal(asked, c.want) {
			t.Errorf("%+v: %d bytes, asked for %v, %v", c, len(body), asked, err)
		}
	}
}

// conn is a connection's ResponseWriter, which notes the deadlines that it is given.
type conn struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.read = append(c.read, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.write = append(c.write, t); return nil }

func (f *front) over(body io.Reader, length int64) *conn {
	c := &conn{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.ContentLength = length
	f.ServeHTTP(c, r)
	return c
}

// TestDeadlines: a body has its own, and the handler can set others.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront(Options{BodyTimeout: 3 * time.Second})
		end := time.Now().Add(time.Hour)
		f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			if err := http.NewResponseController(w).SetWriteDeadline(end); err != nil {
				t.Error(err)
			}
		}
		c := f.over(strings.NewReader(callback(canaryA)), -1)
		if c.Code != 200 || len(c.read) == 0 || !c.read[0].Equal(time.Now().Add(3*time.Second)) || !slices.Equal(c.write, []time.Time{end}) {
			t.Errorf("%d, read until %v, write until %v", c.Code, c.read, c.write)
		}
	})
}

// TestBodyErrors: what the sender and the log are told of a body that does not come, and
// whether the connection is of use any more.
func TestBodyErrors(t *testing.T) {
	t.Parallel()
	f := newFront(Options{Replays: NewReplayGuard(0)})
	for _, c := range []struct {
		err    error
		log    string
		closes bool
	}{{fmt.Errorf("read: %w", os.ErrDeadlineExceeded), "did not come within 10s", true}, {io.ErrUnexpectedEOF, "broke off", true}} {
		f.log.Reset()
		w := f.over(io.MultiReader(strings.NewReader("{"), iotest.ErrReader(c.err)), 100)
		if closes := w.Header().Get("Connection") == "close"; w.Code != 408 || closes != c.closes || !strings.Contains(f.log.String(), c.log) || len(f.events) != 0 {
			t.Errorf("%v: %d %v\n%s", c.err, w.Code, w.Header(), &f.log)
		}
	}
	f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/", strings.NewReader(callback(canaryA))))
	if r := f.last(); r.Reason != Malformed || len(f.events) != 0 {
		t.Errorf("another method: %+v", r)
	}
}

// TestRoomGivenBack: also that of a body which is longer than it was announced. Who gets none
// has the connection closed: nobody reads the rest.
func TestRoomGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront(Options{MaxBody: 100_000, MaxMemory: 150_000})
		f.handle = func(http.ResponseWriter, *http.Request, []byte) {
			if w := f.over(strings.NewReader(strings.Repeat(" ", 90_000)), -1); w.Code != 503 || w.Header().Get("Connection") != "close" {
				t.Errorf("without room: %d %v", w.Code, w.Header())
			}
			if w := f.over(strings.NewReader(strings.Repeat(" ", 20_000)), -1); w.Code != 400 {
				t.Errorf("a short body meanwhile: %d", w.Code)
			}
		}
		long := with(t, "teacher", strings.Repeat("x", 90_000))
		for range 20 {
			if w := f.over(strings.NewReader(long), 40_000); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	})
}

// TestLogInterval: of a flood five lines a second are logged.
func TestLogInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront(Options{})
		for _, step := range []struct {
			after time.Duration
			lines int
		}{{0, 20}, {199 * time.Millisecond, 0}, {time.Millisecond, 1}} {
			time.Sleep(step.after)
			f.log.Reset()
			for range 100 {
				f.post(callback("x"))
			}
			if n := strings.Count(f.log.String(), "\n"); n != step.lines {
				t.Errorf("after %s %d lines", step.after, n)
			}
		}
	})
}

// TestReplayOfPanic: a handler that answers and then panics has not dealt with the callback.
func TestReplayOfPanic(t *testing.T) {
	t.Parallel()
	f := newFront(Options{Replays: NewReplayGuard(0)})
	f.handle = func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(http.StatusOK)
		panic(http.ErrAbortHandler)
	}
	for range 2 {
		func() {
			defer func() { _ = recover() }()
			f.post(callback(canaryA))
		}()
	}
	if f.post(callback("x")); len(f.events) != 2 || f.last().Reason != BadSignature {
		t.Errorf("it was handled %d times; %+v", len(f.events), f.last())
	}
}

// TestReplayForgets what it is told to, and nothing in its place.
func TestReplayForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	g := NewReplayGuard(10)
	g.end(admitted(g, digestOf([]byte("first")), 10, now), true)
	g.end(admitted(g, digestOf([]byte("second")), 20, now), false)
	if admitted(g, digestOf([]byte("first")), 10, now) != nil || admitted(g, digestOf([]byte("second")), 20, now) == nil {
		t.Error("the second failed, and the first was forgotten")
	}
	// One that was forgotten while it was handled came again: that one is still handled when
	// the first fails.
	g = NewReplayGuard(1)
	first := admitted(g, digestOf([]byte("same")), 10, now)
	admitted(g, digestOf([]byte("other")), 20, now)
	again := admitted(g, digestOf([]byte("same")), 10, now)
	if g.end(first, false); again == nil || g.seen[again.digest] != again || g.limit != 1 {
		t.Errorf("%d are remembered", len(g.seen))
	}
}

// TestExactWords: what is wrong with a body is told in words of our own.
func TestExactWords(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"": "it is not JSON", "x": "it is not JSON", `{"a":1`: "it is not JSON", `{"a":tru}`: "it is not JSON", `{"a" 1}`: "it is not JSON", "[]": "it is not a JSON object",
		with(t, `"RoomId"`, `"TaskId":"x","RoomId"`): "a name in the JSON is repeated", with(t, `"Sign"`, `"\u0000Sign":"x","Sign"`): "a name in the JSON looks like a documented one, and is not",
	} {
		if _, err := Parse([]byte(body)); err == nil || err.Error() != "malformed: "+want {
			t.Errorf("%.20s: %v", body, err)
		}
	}
	for text, want := range map[string]bool{`"` + strings.Repeat("[", 100) + `"`: false, strings.Repeat("[]{}", 100): false, strings.Repeat("[", MaxDepth): false, strings.Repeat("[", MaxDepth+1): true} {
		if tooDeep([]byte(text)) != want {
			t.Errorf("%.40s is too deep: %v", text, !want)
		}
	}
	c := Callback{EventType: "e", SdkAppID: testApp, Signed: true}
	if _, err := c.Verify(testKeys, time.Unix(math.MaxInt64/2, 0)); ReasonOf(err) != Expired || strings.Contains(err.Error(), "-") {
		t.Error(err)
	}
	if text := c.LogValue().String(); !strings.Contains(text, "1400000001") {
		t.Error(text)
	}
}

// TestOtherKeyrings: one that does not name what it is of will do, and any for who does not
// ask for a service.
func TestOtherKeyrings(t *testing.T) {
	anyService := Target{SdkAppID: testApp}
	for _, c := range []struct {
		content string
		target  Target
		want    bool
	}{{`{"accept":["x"]}`, testTarget, true}, {`{"accept":["x"],"service":"transcode"}`, anyService, true}, {`{"accept":["x"],"service":"transcode"}`, testTarget, false},
		{`{"accept":["x"],"sdk_app_id":7}`, anyService, false}, {`{"accept":["x"],"service":"` + string(secrets.WhiteboardPush) + `"}`, testTarget, true}} {
		t.Setenv("KEYS", " \n"+c.content)
		keys, err := Environment("KEYS", c.target)
		if (err == nil) != c.want || len(keys) != map[bool]int{true: 1}[c.want] {
			t.Errorf("%s for %s: %v", c.content, c.target, err)
		}
	}
	t.Setenv("KEYS", " \n")
	if _, err := Environment("KEYS", testTarget); err == nil || !strings.Contains(err.Error(), "is not set") || errors.Is(err, ErrNoKeyring) {
		t.Error(err)
	}
}
