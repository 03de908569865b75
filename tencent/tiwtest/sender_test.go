package tiwtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	senderApp = 1400000001
	silence   = 0 // no answer
)

// receiving is a receiver, and what it got when.
type receiving struct {
	status func(nth int) int

	mu     sync.Mutex
	bodies []string
	at     []time.Time
}

func (r *receiving) RoundTrip(req *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.bodies, r.at = append(r.bodies, string(body)), append(r.at, time.Now())
	status := r.status(len(r.bodies) - 1)
	r.mu.Unlock()
	if status == silence {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Location": {"/elsewhere"}}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

func senderTo(t *testing.T, key string, status func(nth int) int) (*Server, *Sender, *receiving) {
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddApp(senderApp)
	s.SetKey(senderApp, "whiteboard-push", key)
	r := &receiving{status: status}
	sender := NewSender(s, "http://receiver.example", Source{senderApp, "whiteboard-push"})
	sender.client.Transport = r
	return s, sender, r
}

func (s *Sender) whole(ctx context.Context, n int) {
	if c := s.signing(n); !s.attempt(c, 0) && s.retries > 0 {
		s.again(ctx, c)
	}
}

// TestRetries: Tencent sends again what has no answer within ten seconds or not status 200, every five seconds, five times.
func TestRetries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		statuses []int // the last one from then on
		once     bool
		at       []int // seconds
		want     Counts
	}{
		{"accepted", []int{200}, false, []int{0}, Counts{Sent: 1, Verified: 1}},
		{"204 is a failure", []int{204, 202, 200}, false, []int{0, 5, 10}, Counts{Sent: 3, Verified: 1, Refused: 2, Again: 2}},
		{"so is a redirect", []int{302, 200}, false, []int{0, 5}, Counts{Sent: 2, Verified: 1, Refused: 1, Again: 1}},
		{"no answer", []int{silence, 200}, false, []int{0, 15}, Counts{Sent: 2, Verified: 1, Failed: 1, Again: 1}},
		{"refused for ever", []int{401}, false, []int{0, 5, 10, 15, 20, 25}, Counts{Sent: 6, Refused: 6, Again: 5, GivenUp: 1}},
		{"silent for ever", []int{silence}, false, []int{0, 15, 30, 45, 60, 75}, Counts{Sent: 6, Failed: 6, Again: 5, GivenUp: 1}},
		{"without retries", []int{500}, true, []int{0}, Counts{Sent: 1, Refused: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, sender, r := senderTo(t, "key", func(nth int) int { return c.statuses[min(nth, len(c.statuses)-1)] })
			if !c.once {
				sender.Retry()
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				sender.whole(t.Context(), 0)
				var at []int
				for _, a := range r.at {
					at = append(at, int(a.Sub(began).Seconds()))
				}
				got := sender.Counts()
				got.Refusals, got.RefusedByEvent = nil, nil
				if !reflect.DeepEqual(at, c.at) || !reflect.DeepEqual(got, c.want) {
					t.Errorf("sent after %v s, want %v; %+v, want %+v", at, c.at, got, c.want)
				}
			})
		})
	}
}

// TestRetriesHoldNothingUp: what is sent again takes no turn from what is sent first.
func TestRetriesHoldNothingUp(t *testing.T) {
	t.Parallel()
	_, sender, _ := senderTo(t, "key", func(int) int { return silence })
	sender.Retry()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		sender.Run(ctx, 3)
		if c := sender.Counts(); c.Sent-c.Again < 180 || c.Again < 200 {
			t.Errorf("%d sent, %d of them again", c.Sent, c.Again)
		}
	})
}

// TestRetrySignature: half of the callbacks are sent again as they are, the others signed anew.
func TestRetrySignature(t *testing.T) {
	t.Parallel()
	for n, anew := range []bool{false, true} {
		s, sender, r := senderTo(t, "key", nil)
		r.status = func(nth int) int {
			s.SetKey(senderApp, "whiteboard-push", "another")
			return map[bool]int{false: 500, true: 200}[nth == 1]
		}
		sender.Retry()
		synctest.Test(t, func(t *testing.T) {
			sender.whole(t.Context(), n)
			if len(r.bodies) != 2 || (r.bodies[0] != r.bodies[1]) != anew {
				t.Errorf("callback %d: %q", n, r.bodies)
			}
		})
	}
}

// TestUnsignedCallbacks have neither Sign nor ExpireTime, unless that is asked for.
func TestUnsignedCallbacks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key           string
		expiring      bool
		sign, expires bool
	}{{"", false, false, false}, {"", true, false, true}, {"key", false, true, true}} {
		_, sender, r := senderTo(t, c.key, func(int) int { return 200 })
		if c.expiring {
			sender.ExpireUnsigned()
		}
		sender.whole(t.Context(), 0)
		var body map[string]any
		if err := json.Unmarshal([]byte(r.bodies[0]), &body); err != nil {
			t.Fatal(err)
		}
		if _, sign := body["Sign"]; sign != c.sign {
			t.Errorf("%+v: %v", c, body)
		}
		if _, expires := body["ExpireTime"]; expires != c.expires {
			t.Errorf("%+v: %v", c, body)
		}
	}
}

// TestLag: for a while after a change Describe tells the key before.
func TestLag(t *testing.T) {
	t.Parallel()
	var now time.Time
	s, err := Start(Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.AddApp(senderApp)
	s.Lag(senderApp, 3*time.Second)
	for _, step := range []struct {
		after time.Duration
		set   string
		tells string
	}{{time.Hour, "", ""}, {0, "a", ""}, {2 * time.Second, "", ""}, {time.Second, "", "a"}, {time.Minute, "b", "a"}, {3 * time.Second, "", "b"}} {
		now = now.Add(step.after)
		if step.set != "" {
			s.SetKey(senderApp, "transcode", step.set)
		}
		if got := s.told(senderApp, "transcode"); got != step.tells {
			t.Errorf("at %s it tells %q, want %q", now.Format(time.TimeOnly), got, step.tells)
		}
	}
}
