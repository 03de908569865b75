package secrets

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Service names one of the TIW services whose callbacks have a key of their own.
type Service string

// The TIW services (API 2019-09-19).
const (
	WhiteboardPush  Service = "whiteboard-push"
	OnlineRecord    Service = "online-record"
	Transcode       Service = "transcode"
	VideoGeneration Service = "video-generation"
	PPTCheck        Service = "ppt-check" // at the mainland site only
)

// Services lists every Service, in the order of the documentation.
func Services() []Service {
	return []Service{WhiteboardPush, OnlineRecord, Transcode, VideoGeneration, PPTCheck}
}

// Target is what has a key: one service of one application.
type Target struct {
	SdkAppID int64 // positive
	Service  Service
}

// String is the form ParseTarget reads: "1400000001/whiteboard-push".
func (t Target) String() string {
	return strconv.FormatInt(t.SdkAppID, 10) + "/" + string(t.Service)
}

// Compare orders targets by application, then by service.
func (t Target) Compare(o Target) int {
	return cmp.Or(cmp.Compare(t.SdkAppID, o.SdkAppID), cmp.Compare(t.Service, o.Service))
}

// Validate reports what makes t no target.
func (t Target) Validate() error {
	if t.SdkAppID <= 0 {
		return fmt.Errorf("SdkAppId %d is not a positive number", t.SdkAppID)
	}
	if !slices.Contains(Services(), t.Service) {
		return fmt.Errorf("service %q is unknown; the services are %s", t.Service, strings.ReplaceAll(strings.Trim(fmt.Sprint(Services()), "[]"), " ", ", "))
	}
	return nil
}

// ParseTarget reads "SDKAPPID" or "SDKAPPID/SERVICE"; the service is WhiteboardPush when
// absent.
func ParseTarget(s string) (Target, error) {
	if strings.TrimSpace(s) == "" {
		return Target{}, errors.New("the target is empty: it is an SDKAPPID or SDKAPPID/SERVICE")
	}
	app, service, found := strings.Cut(strings.TrimSpace(s), "/")
	if !found {
		service = string(WhiteboardPush)
	}
	id, err := strconv.ParseInt(app, 10, 64)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: SdkAppId %q is not a whole number from 1 to 9223372036854775807", s, app)
	}
	t := Target{SdkAppID: id, Service: Service(service)}
	if err := t.Validate(); err != nil {
		return Target{}, fmt.Errorf("target %q: %w", s, err)
	}
	return t, nil
}
