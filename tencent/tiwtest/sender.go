package tiwtest

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the callback's signature is MD5 by Tencent's definition
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// callbackLife is how long a callback may be used after it was sent.
const callbackLife = 10 * time.Minute

// eventTypes names the events of each service, as the event notification page does.
var eventTypes = map[string][]string{
	"whiteboard-push":  {"WhiteboardPushStarted", "WhiteboardPushStopped"},
	"online-record":    {"OnlineRecordStarted", "OnlineRecordStopped", "OnlineRecordFinished", "OnlineRecordLongPauseWarning", "OnlineRecordLongPauseForceStopped"},
	"transcode":        {"TranscodeProgressChanged", "TranscodeFinished"},
	"video-generation": {"VideoGenerationTaskFinished"}, // no source names one of these two
	"ppt-check":        {"PPTCheckFinished"},
}

// Source is whose callbacks a Sender sends.
type Source struct {
	App     int64
	Service string
}

// signedAt is the header with the moment at which a Sender signed a callback, for a
// [Receiver]. Tencent sends no such header.
const signedAt = "X-Tiwtest-Signed-At"

// Tencent sends a callback again if it has no answer by then, or one with another status than 200.
const (
	answerLimit = 10 * time.Second
	retryPause  = 5 * time.Second
	maxRetries  = 5
)

// Sender sends callbacks as Tencent does: signed with the key that is in force at the moment
// of sending, from the moment it is set; without Sign and ExpireTime while there is none.
type Sender struct {
	server  *Server
	url     string // of the receiver; the service's name is appended
	sources []Source
	client  *http.Client

	watch    func(Answer)
	retries  int
	expiring bool // callbacks without Sign have an ExpireTime all the same

	mu     sync.Mutex
	counts Counts
}

// Answer is what became of one callback.
type Answer struct {
	At       time.Time // when it was sent
	Source   Source
	Nth      int // which key of the application it was signed with, counted from 1
	Verified bool
}

// Counts is what became of the callbacks. One that was sent again counts each time.
type Counts struct {
	Sent, Verified, Refused, Failed int64
	Again, GivenUp                  int64 // of those sent: retries, and the last ones of what was never accepted
	RefusedByEvent                  map[string]int64
	Refusals                        []Refusal // the first hundred
}

// Refusal is a genuine callback that was not accepted.
type Refusal struct {
	At     time.Time
	Source Source
	Event  string
	Status int
	Nth    int // which key of the application it was signed with, counted from 1
	Detail string
}

// NewSender gives a Sender to a receiver's URL.
func NewSender(s *Server, url string, sources ...Source) *Sender {
	return &Sender{server: s, url: url, sources: sources, counts: Counts{RefusedByEvent: map[string]int64{}},
		client: &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}}} // receivers keep theirs for longer
}

// OnAnswer has f called with what became of each callback, before it is counted. It is set
// before Run.
func (s *Sender) OnAnswer(f func(Answer)) { s.watch = f }

// Retry has callbacks sent again as Tencent does. Nobody knows whether a retry has the same bytes or is signed anew: every
// other callback's has. It is set before Run; without it, each verdict counts once.
func (s *Sender) Retry() { s.retries, s.client.Timeout = maxRetries, answerLimit }

// ExpireUnsigned has callbacks without Sign carry an ExpireTime all the same. It is set before Run.
func (s *Sender) ExpireUnsigned() { s.expiring = true }

// Run sends rate callbacks a second, over all sources, until ctx ends, and then waits for
// those in hand.
func (s *Sender) Run(ctx context.Context, rate int) {
	defer s.client.CloseIdleConnections()
	var group sync.WaitGroup
	defer group.Wait()
	work := make(chan int, rate)
	defer close(work)
	for range 32 {
		group.Go(func() {
			for n := range work {
				if c := s.signing(n); !s.attempt(c, 0) && s.retries > 0 {
					group.Go(func() { s.again(ctx, c) })
				}
			}
		})
	}
	tick := time.NewTicker(time.Second / 100)
	defer tick.Stop()
	began := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for due := int(time.Since(began).Seconds() * float64(rate)); n < due; n++ {
				select {
				case work <- n:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// Counts tells what became of the callbacks so far.
func (s *Sender) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Refusals = append([]Refusal(nil), c.Refusals...)
	c.RefusedByEvent = map[string]int64{}
	for k, v := range s.counts.RefusedByEvent {
		c.RefusedByEvent[k] = v
	}
	return c
}

// callback is one that is sent, once or more.
type callback struct {
	n      int
	src    Source
	event  string
	key    string
	signed time.Time
	body   []byte
}

// signing gives the nth callback, signed with the key that is in force now.
func (s *Sender) signing(n int) *callback {
	src := s.sources[n%len(s.sources)]
	events := eventTypes[src.Service]
	c := &callback{n: n, src: src, event: events[(n/len(s.sources))%len(events)]}
	c.key, c.signed = s.server.inForceNow(src.App, src.Service)
	expire := c.signed.Add(callbackLife)
	c.body = Callback(src.App, c.event, n, c.key, expire)
	if c.key == "" && !s.expiring {
		c.body = unsigned(src.App, c.event, n, expire)
	}
	return c
}

// again sends a callback that was not accepted until it is.
func (s *Sender) again(ctx context.Context, c *callback) {
	for nth := 1; nth <= s.retries; nth++ {
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return
		}
		if c.n%2 == 1 {
			c = s.signing(c.n)
		}
		if s.attempt(c, nth) {
			return
		}
	}
}

// attempt sends a callback, the nth time again, counts what became of it, and reports whether it was accepted.
func (s *Sender) attempt(c *callback, nth int) bool {
	res, err := s.post(c)
	var detail []byte
	if err == nil {
		detail, _ = io.ReadAll(io.LimitReader(res.Body, 512))
		_ = res.Body.Close()
	}
	accepted := err == nil && res.StatusCode == http.StatusOK
	if s.watch != nil {
		s.watch(Answer{c.signed, c.src, s.server.ordinal(c.src, c.key), accepted})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Sent++
	if nth > 0 {
		s.counts.Again++
	}
	if !accepted && nth == maxRetries {
		s.counts.GivenUp++
	}
	switch {
	case err != nil:
		s.counts.Failed++
	case accepted:
		s.counts.Verified++
	default:
		s.counts.Refused++
		s.counts.RefusedByEvent[c.event]++
		if len(s.counts.Refusals) < 100 {
			s.counts.Refusals = append(s.counts.Refusals, Refusal{At: time.Now(), Source: c.src, Event: c.event,
				Status: res.StatusCode, Nth: s.server.ordinal(c.src, c.key), Detail: string(detail)})
		}
	}
	return accepted
}

func (s *Sender) post(c *callback) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, s.url+"/"+c.src.Service, bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(signedAt, c.signed.UTC().Format(time.RFC3339Nano))
	return s.client.Do(req)
}

// Callback is a callback's body; key "" leaves it unsigned, and nothing but that.
func Callback(app int64, event string, n int, key string, expire time.Time) []byte {
	body := bodyOf(app, event, n, expire)
	body["ExpireTime"] = expire.Unix()
	if key != "" {
		body["Sign"] = Sign(key, expire.Unix())
	}
	return encode(body)
}

// unsigned is a callback's body as it is while there is no key: it has no ExpireTime either.
func unsigned(app int64, event string, n int, expire time.Time) []byte {
	return encode(bodyOf(app, event, n, expire))
}

func bodyOf(app int64, event string, n int, expire time.Time) map[string]any {
	data := map[string]any{"TaskId": fmt.Sprintf("task-%d", n), "RoomId": n, "PushUserId": "teacher", "PushStartTime": expire.Add(-callbackLife).Unix()}
	if event == "WhiteboardPushStopped" {
		data["GroupId"], data["FinishReason"] = "group", "USER_CALL"
	}
	return map[string]any{"Timestamp": time.Now().Unix(), "SdkAppId": app, "EventType": event, "EventData": data}
}

func encode(body map[string]any) []byte {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return encoded
}

// Sign is a callback's signature: lower-case hex of MD5 over the key and the decimal ExpireTime.
func Sign(key string, expireTime int64) string {
	sum := md5.Sum([]byte(key + strconv.FormatInt(expireTime, 10))) //nolint:gosec // by Tencent's definition
	return hex.EncodeToString(sum[:])
}
