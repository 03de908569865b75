package webhook

import (
	"context"
	"encoding/json"
)

// Event is a callback that was verified, as the handler behind Middleware gets it.
type Event struct {
	Callback
	KeyID string // of the key that signed it; "" if it came unsigned and that was allowed
	Body  []byte // as it came; not to be changed
}

// WhiteboardPushStarted tells that a whiteboard is being pushed.
type WhiteboardPushStarted struct {
	TaskID        string `json:"TaskId"`
	RoomID        int64  `json:"RoomId"`
	PushUserID    string `json:"PushUserId"`
	PushStartTime int64  // in seconds since 1970
}

// FinishReason is why a push has stopped.
type FinishReason string

const (
	FinishedAuto      FinishReason = "AUTO"      // nothing happened in the room for long
	FinishedByCall    FinishReason = "USER_CALL" // somebody stopped it
	FinishedException FinishReason = "EXCEPTION" // it failed; see Error
)

// WhiteboardPushStopped tells that a whiteboard is pushed no more.
type WhiteboardPushStopped struct {
	TaskID        string `json:"TaskId"`
	RoomID        int64  `json:"RoomId"`
	GroupID       string `json:"GroupId"`
	PushUserID    string `json:"PushUserId"`
	FinishReason  FinishReason
	PushStartTime int64 // in seconds since 1970
	PushStopTime  int64 // in seconds since 1970
	IMSyncTime    int64 // of the first frame, on the clock of the room's messages
	ExceptionCnt  int64 // how often the push was disturbed
	Error         *struct{ Code, Message string }
}

// Data is EventData as *WhiteboardPushStarted or *WhiteboardPushStopped where the event is one
// of these and its data has the documented types, and else json.RawMessage: that it is not as
// documented is no reason to refuse a genuine callback.
func (c *Callback) Data() any {
	var typed any
	switch c.EventType {
	case "WhiteboardPushStarted":
		typed = &WhiteboardPushStarted{}
	case "WhiteboardPushStopped":
		typed = &WhiteboardPushStopped{}
	default:
		return c.EventData
	}
	if json.Unmarshal(c.EventData, typed) != nil {
		return c.EventData
	}
	return typed
}

type eventKey struct{}

// FromContext gives the event that a Middleware has verified; false outside of one.
func FromContext(ctx context.Context) (*Event, bool) {
	e, ok := ctx.Value(eventKey{}).(*Event)
	return e, ok
}
