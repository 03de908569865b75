package tiwtest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// call is what an API does.
type call struct{ api, verb, service string }

var calls = map[string]call{
	"SetWhiteboardPushCallbackKey":        {"SetWhiteboardPushCallbackKey", "Set", "whiteboard-push"},
	"DescribeWhiteboardPushCallback":      {"DescribeWhiteboardPushCallback", "Describe", "whiteboard-push"},
	"SetOnlineRecordCallbackKey":          {"SetOnlineRecordCallbackKey", "Set", "online-record"},
	"DescribeOnlineRecordCallback":        {"DescribeOnlineRecordCallback", "Describe", "online-record"},
	"SetTranscodeCallbackKey":             {"SetTranscodeCallbackKey", "Set", "transcode"},
	"DescribeTranscodeCallback":           {"DescribeTranscodeCallback", "Describe", "transcode"},
	"SetVideoGenerationTaskCallbackKey":   {"SetVideoGenerationTaskCallbackKey", "Set", "video-generation"},
	"DescribeVideoGenerationTaskCallback": {"DescribeVideoGenerationTaskCallback", "Describe", "video-generation"},
	"SetPPTCheckCallbackKey":              {"SetPPTCheckCallbackKey", "Set", "ppt-check"},
	"DescribePPTCheckCallback":            {"DescribePPTCheckCallback", "Describe", "ppt-check"},
}

const maxKey = 64 // characters, CallbackKey

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return
	}
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	id := requestID()
	code, message := s.admit(r, body)
	if code != "" {
		fail(w, id, code, message)
		return
	}
	c := calls[r.Header.Get("X-TC-Action")]
	app, key, code, message := parameters(c, body)
	if code != "" {
		fail(w, id, code, message)
		return
	}
	s.carryOut(w, r, c, app, key, id)
}

// requestID is a UUID, as Tencent's are.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// admit checks all that does not depend on the parameters.
func (s *Server) admit(r *http.Request, body []byte) (code, message string) {
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return "UnsupportedProtocol", "only POST to / is taken here"
	}
	if r.Header.Get("X-TC-Version") != "2019-09-19" {
		return "NoSuchVersion", "the version is unknown"
	}
	c, ok := calls[r.Header.Get("X-TC-Action")]
	if !ok {
		return "InvalidAction", "the action is unknown"
	}
	region := r.Header.Get("X-TC-Region")
	if region == "" {
		return "MissingParameter", "the region is missing"
	}
	if code, message := s.authenticate(r, body); code != "" {
		return code, message
	}
	if !s.serves(region, c.service) {
		return "UnsupportedRegion", "the region is not one of this account's site"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[c.api]++
	if s.overLimit(c.api) {
		return "RequestLimitExceeded", fmt.Sprintf("more than %d requests in a second", s.rate)
	}
	return "", ""
}

// parameters reads the body; types are checked as the API does.
func parameters(c call, body []byte) (app int64, key string, code, message string) {
	var p map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(body))
	if dec.Decode(&p) != nil || p == nil {
		return 0, "", "InvalidParameter", "the body is not a JSON object"
	}
	for name := range p {
		if name != "SdkAppId" && (name != "CallbackKey" || c.verb != "Set") {
			return 0, "", "UnknownParameter", "the parameter " + strconv.Quote(name) + " is unknown"
		}
	}
	const unmatched = "InvalidParameter.BodyParameterTypeUnmatched"
	if p["SdkAppId"] == nil || (c.verb == "Set" && p["CallbackKey"] == nil) {
		return 0, "", "MissingParameter", "SdkAppId or CallbackKey is missing"
	}
	if json.Unmarshal(p["SdkAppId"], &app) != nil {
		return 0, "", unmatched, "SdkAppId is not an integer"
	}
	if c.verb == "Set" && json.Unmarshal(p["CallbackKey"], &key) != nil {
		return 0, "", unmatched, "CallbackKey is not a string"
	}
	if len(key) > maxKey {
		return 0, "", "InvalidParameter", "CallbackKey has more than 64 characters"
	}
	return app, key, "", ""
}

// carryOut does what a call asks for, or what is planned for it instead.
func (s *Server) carryOut(w http.ResponseWriter, r *http.Request, c call, id int64, key, request string) {
	s.mu.Lock()
	a := s.apps[id]
	if a == nil {
		s.mu.Unlock()
		fail(w, request, "UnauthorizedOperation.SdkAppId", "no such SdkAppId in this account")
		return
	}
	if code := a.refusals[c.verb]; code != "" {
		s.mu.Unlock()
		fail(w, request, code, "as this application is set up")
		return
	}
	f, faulty := s.takeFault(c, id)
	s.mu.Unlock()
	if faulty {
		s.misbehave(w, r, f, c, id, key, request)
		return
	}
	s.do(c, id, key, false)
	s.answer(w, c, id, request)
}

func (s *Server) do(c call, id int64, key string, late bool) {
	if c.verb == "Set" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.apply(id, c.service, key, late)
	}
}

func (s *Server) answer(w http.ResponseWriter, c call, id int64, request string) {
	fields := map[string]any{"RequestId": request}
	if c.verb == "Describe" {
		fields["Callback"], fields["CallbackKey"] = "", s.told(id, c.service)
	}
	respond(w, fields)
}

func fail(w http.ResponseWriter, request, code, message string) {
	respond(w, map[string]any{"RequestId": request, "Error": map[string]string{"Code": code, "Message": message}})
}

func respond(w http.ResponseWriter, fields map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"Response": fields})
}

// misbehave carries out a fault.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, f Fault, c call, id int64, key, request string) {
	switch f.Kind {
	case KindRefuse:
		fail(w, request, f.Code, "as planned")
		return
	case KindDelay:
		if s.pause(r, f.Delay) {
			s.do(c, id, key, false)
			s.answer(w, c, id, request)
		}
		return
	case KindHTTPError:
		http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		return
	case KindDropApply:
		s.applyLater(r, f.Delay, c, id, key)
	case KindDrop:
	default:
		s.do(c, id, key, false)
	}
	switch f.Kind {
	case KindApplyError:
		fail(w, request, "InternalError", "as planned")
	case KindGarbage:
		_, _ = fmt.Fprintf(w, "{\"Response\": <garbage %s", s.KeyInForce(id, c.service))
	case KindWrongShape:
		_, _ = fmt.Fprintf(w, "{\"Answer\": %q}", s.KeyInForce(id, c.service))
	case KindSlowLoris:
		s.trickle(w, r)
	default:
		panic(http.ErrAbortHandler) // the connection breaks
	}
}

// applyLater is a request held up on its way: it is honoured while its signature lives.
func (s *Server) applyLater(r *http.Request, d time.Duration, c call, id int64, key string) {
	signed, _ := parseSeconds(r.Header.Get("X-TC-Timestamp"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timers = append(s.timers, time.AfterFunc(d, func() {
		if s.now().Sub(signed) <= s.signatureLife {
			s.do(c, id, key, true)
		}
	}))
}

// pause waits, and reports whether the client and the server are still there.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

func (s *Server) trickle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"Response": {"RequestId": "`)
	flush := http.NewResponseController(w)
	for s.pause(r, 50*time.Millisecond) {
		if _, err := io.WriteString(w, "x"); err != nil || flush.Flush() != nil {
			return
		}
	}
}
