package tiwtest

import (
	"fmt"
	"time"
)

// Kind is a way for a call to go wrong.
type Kind string

// The kinds of faults.
const (
	KindRefuse     Kind = "refuse"      // a business error, nothing applied
	KindDelay      Kind = "delay"       // applied and answered, late
	KindDrop       Kind = "drop"        // the connection breaks, nothing applied
	KindApplyDrop  Kind = "apply-drop"  // applied, and the connection breaks
	KindDropApply  Kind = "drop-apply"  // the connection breaks, and it is applied later
	KindGarbage    Kind = "garbage"     // applied, and the answer is not JSON
	KindHTTPError  Kind = "http-error"  // nothing applied, HTTP 5xx
	KindSlowLoris  Kind = "slow-loris"  // applied, and the answer comes byte by byte, never whole
	KindApplyError Kind = "apply-error" // applied, and answered with a code that says InternalError
	KindWrongShape Kind = "wrong-shape" // applied, and the JSON is not an answer
)

// Kinds lists all of them.
func Kinds() []Kind {
	return []Kind{KindRefuse, KindDelay, KindDrop, KindApplyDrop, KindDropApply, KindGarbage, KindHTTPError, KindSlowLoris, KindApplyError, KindWrongShape}
}

// Fault is one plan for one call.
type Fault struct {
	Kind  Kind
	Code  string        // of KindRefuse
	Delay time.Duration // of KindDelay and KindDropApply
}

// Refuse answers with an error code and applies nothing.
func Refuse(code string) Fault { return Fault{Kind: KindRefuse, Code: code} }

// Delay applies and answers after d.
func Delay(d time.Duration) Fault { return Fault{Kind: KindDelay, Delay: d} }

// Drop breaks the connection and applies nothing.
func Drop() Fault { return Fault{Kind: KindDrop} }

// ApplyThenDrop applies the call and breaks the connection.
func ApplyThenDrop() Fault { return Fault{Kind: KindApplyDrop} }

// DropThenApply breaks the connection and applies the call after d, unless its signature
// has expired by then.
func DropThenApply(d time.Duration) Fault { return Fault{Kind: KindDropApply, Delay: d} }

// Garbage applies the call and answers with bytes that are not JSON, among them the key.
func Garbage() Fault { return Fault{Kind: KindGarbage} }

// HTTPError answers 502 with a page, and applies nothing.
func HTTPError() Fault { return Fault{Kind: KindHTTPError} }

// SlowLoris applies the call and sends the answer so slowly that it never ends.
func SlowLoris() Fault { return Fault{Kind: KindSlowLoris} }

// ApplyThenError applies the call and answers InternalError.
func ApplyThenError() Fault { return Fault{Kind: KindApplyError} }

// WrongShape applies the call and answers with JSON that is no answer of the API.
func WrongShape() Fault { return Fault{Kind: KindWrongShape} }

// String says what the fault does, in words.
func (f Fault) String() string {
	switch f.Kind {
	case KindRefuse:
		return "Tencent refuses with " + f.Code
	case KindDelay:
		return fmt.Sprintf("Tencent takes %s to answer", f.Delay)
	case KindDrop:
		return "the connection breaks before the request is carried out"
	case KindApplyDrop:
		return "the key is set, and the answer is lost"
	case KindDropApply:
		return fmt.Sprintf("the answer is lost, and the key is set %s later", f.Delay)
	case KindGarbage:
		return "the key is set, and the answer is garbage"
	case KindHTTPError:
		return "HTTP 502, nothing is set"
	case KindSlowLoris:
		return "the key is set, and the answer never ends"
	case KindApplyError:
		return "the key is set, and the answer is InternalError"
	case KindWrongShape:
		return "the key is set, and the answer is of the wrong shape"
	}
	return string(f.Kind)
}

// Plan queues faults for the next calls of an API ("SetWhiteboardPushCallbackKey"; "Set" and
// "Describe" stand for the calls of every service) about an application (0: any). Each
// serves one call.
func (s *Server) Plan(api string, app int64, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.plans = append(s.plans, plan{api, app, f})
	}
}

// ForgetPlans drops the faults that have not been met.
func (s *Server) ForgetPlans() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans = nil
}

type plan struct {
	api   string
	app   int64
	fault Fault
}

// takeFault removes and gives the first plan that fits a call. The caller holds s.mu.
func (s *Server) takeFault(c call, app int64) (Fault, bool) {
	for i, p := range s.plans {
		if (p.app == 0 || p.app == app) && (p.api == c.api || p.api == c.verb) {
			s.plans = append(s.plans[:i:i], s.plans[i+1:]...)
			s.hits[p.fault.Kind]++
			return p.fault, true
		}
	}
	return Fault{}, false
}

// Planned tells how many faults have not been met yet.
func (s *Server) Planned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.plans)
}

// Hits counts the faults that were met.
func (s *Server) Hits() map[Kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[Kind]int{}
	for k, n := range s.hits {
		out[k] = n
	}
	return out
}
