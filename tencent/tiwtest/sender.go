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

// Sender sends callbacks as Tencent does: signed with the key that is in force at the moment
// of sending, from the moment it is set; without Sign while there is none.
type Sender struct {
	server  *Server
	url     string // of the receiver; the service's name is appended
	sources []Source
	client  *http.Client

	mu     sync.Mutex
	counts Counts
	watch  func(Answer)
}

// Answer is what became of one callback.
type Answer struct {
	At       time.Time // when it was sent
	Source   Source
	Nth      int // which key of the application it was signed with, counted from 1
	Verified bool
}

// Counts is what became of the callbacks.
type Counts struct {
	Sent, Verified, Refused, Failed int64
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
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}}} // receivers keep theirs for longer
}

// OnAnswer has f called with what became of each callback, before it is counted. It is set
// before Run.
func (s *Sender) OnAnswer(f func(Answer)) { s.watch = f }

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
				s.send(n)
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

func (s *Sender) send(n int) {
	src := s.sources[n%len(s.sources)]
	events := eventTypes[src.Service]
	event := events[(n/len(s.sources))%len(events)]
	key, at := s.server.inForceNow(src.App, src.Service)
	res, err := s.post(src, at, Callback(src.App, event, n, key, at.Add(callbackLife)))
	var detail []byte
	if err == nil {
		detail, _ = io.ReadAll(io.LimitReader(res.Body, 512))
		_ = res.Body.Close()
	}
	if s.watch != nil {
		s.watch(Answer{at, src, s.server.ordinal(src, key), err == nil && res.StatusCode == http.StatusOK})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Sent++
	switch {
	case err != nil:
		s.counts.Failed++
	case res.StatusCode == http.StatusOK:
		s.counts.Verified++
	default:
		s.counts.Refused++
		s.counts.RefusedByEvent[event]++
		if len(s.counts.Refusals) < 100 {
			s.counts.Refusals = append(s.counts.Refusals, Refusal{At: time.Now(), Source: src, Event: event,
				Status: res.StatusCode, Nth: s.server.ordinal(src, key), Detail: string(detail)})
		}
	}
}

func (s *Sender) post(src Source, signed time.Time, body []byte) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodPost, s.url+"/"+src.Service, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(signedAt, signed.UTC().Format(time.RFC3339Nano))
	return s.client.Do(req)
}

// Callback is a callback's body; key "" leaves it unsigned.
func Callback(app int64, event string, n int, key string, expire time.Time) []byte {
	data := map[string]any{"TaskId": fmt.Sprintf("task-%d", n), "RoomId": n, "PushUserId": "teacher", "PushStartTime": expire.Add(-callbackLife).Unix()}
	if event == "WhiteboardPushStopped" {
		data["GroupId"], data["FinishReason"] = "group", "USER_CALL"
	}
	body := map[string]any{"Timestamp": time.Now().Unix(), "SdkAppId": app, "ExpireTime": expire.Unix(), "EventType": event, "EventData": data}
	if key != "" {
		body["Sign"] = Sign(key, expire.Unix())
	}
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
