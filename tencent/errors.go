package tencent

import (
	"errors"
	"strings"

	tcerr "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"

	"tiwkeyd/internal/printable"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Codes of this side, in the SDK's manner.
const (
	codeNotSent    = "ClientError.NotSent"
	codeUnexpected = "ClientError.UnexpectedAnswer"
)

// row says what a code, and every code that begins with it and a dot, means.
type row struct {
	code      string
	class     rotator.Class
	meaning   string
	advice    string
	forbidden bool // the credential may not make this call
	renew     bool // the credential itself is wrong: look for a newer one
}

const (
	refused = rotator.Refused
	forNow  = rotator.RefusedForNow
	doubt   = rotator.Doubtful
)

// classes is the one place where codes are judged. The longest match wins; what is not
// listed is in doubt, because a mistaken refusal is dangerous and a mistaken doubt slow.
// Sources: the error pages of SetWhiteboardPushCallbackKey and of API 3.0 ("common errors").
var classes = []row{
	{"AuthFailure", refused, "the request was not authenticated", "check the credential (TENCENTCLOUD_SECRET_ID, TENCENTCLOUD_SECRET_KEY) and its CAM policy", false, true},
	{"AuthFailure.UnauthorizedOperation", refused, "the credential may not make this call", "grant it in CAM, for example tiw:*CallbackKey and tiw:Describe*Callback", true, false},
	{"AuthFailure.SignatureExpire", forNow, "the request's time is more than five minutes off Tencent's", "set this machine's clock (NTP)", false, false},
	{"AuthFailure.MFAFailure", refused, "multi-factor authentication is demanded", "use a credential that needs none for this call", false, false},
	{"UnauthorizedOperation", refused, "the credential may not make this call", "grant it in CAM, for example tiw:*CallbackKey and tiw:Describe*Callback", true, false},
	{"UnauthorizedOperation.SdkAppId", refused, "no such SdkAppId, or it belongs to another account", "check the SdkAppId in TIWKEYD_TARGETS, and that the credential is of the account that owns it", false, false},
	{"InvalidParameter", refused, "Tencent did not accept the request's contents", "report it with the RequestId: the request is made by tiwkeyd alone", false, false},
	{"InvalidParameter.BodyParameterTypeUnmatched", refused, "Tencent did not accept the type of a parameter", "report it with the RequestId: the request is made by tiwkeyd alone", false, false},
	{"InvalidParameter.SdkAppIdNotFound", refused, "Tencent does not find the application", "check the SdkAppId in TIWKEYD_TARGETS", false, false},
	{"InvalidParameterValue", refused, "Tencent did not accept a value", "check the SdkAppId in TIWKEYD_TARGETS", false, false},
	{"MissingParameter", refused, "Tencent misses a parameter", "report it with the RequestId: the request is made by tiwkeyd alone", false, false},
	{"UnknownParameter", refused, "Tencent does not know a parameter", "report it with the RequestId: the request is made by tiwkeyd alone", false, false},
	{"ResourceUnavailable.NotRegistered", refused, "TIW is not enabled for this application", "enable Interactive Whiteboard for it in Tencent's console", false, false},
	{"ResourceUnavailable.InterfaceUnAuthorized", refused, "this call is not opened for the account", "have Tencent open it", false, false},
	{"ResourceUnavailable.ServiceExpired", refused, "the TIW service has expired or is in arrears", "renew it, or settle the bill, in Tencent's console", false, false},
	{"ResourceNotFound", refused, "Tencent does not find the application", "check the SdkAppId in TIWKEYD_TARGETS", false, false},
	{"UnsupportedOperation", refused, "Tencent does not support this call here", "check TIWKEYD_TENCENT_REGION and TIWKEYD_TENCENT_ENDPOINT", false, false},
	{"UnsupportedProtocol", refused, "Tencent does not support this protocol", "check TIWKEYD_TENCENT_ENDPOINT", false, false},
	{"UnsupportedRegion", refused, "the region does not serve TIW, or not this account", "set TIWKEYD_TENCENT_SITE to the account's: intl is ap-singapore, mainland is ap-guangzhou, and there are no others", false, false},
	{"InvalidAction", refused, "the endpoint does not know this call", "check TIWKEYD_TENCENT_ENDPOINT", false, false},
	{"NoSuchVersion", refused, "the endpoint does not know this version of the API", "check TIWKEYD_TENCENT_ENDPOINT", false, false},
	{"NoSuchProduct", refused, "the endpoint does not know TIW", "check TIWKEYD_TENCENT_ENDPOINT", false, false},
	{"ActionOffline", refused, "Tencent took this call out of service", "see whether a newer tiwkeyd knows its successor", false, false},
	{"IpInBlacklist", refused, "Tencent refuses this machine's address", "take it off the list in CAM", false, false},
	{"IpNotInWhitelist", refused, "Tencent does not admit this machine's address", "add it to the list in CAM", false, false},
	{"RequestSizeLimitExceeded", refused, "Tencent finds the request too large", "report it with the RequestId: the request is made by tiwkeyd alone", false, false},

	{"RequestLimitExceeded", forNow, "too many requests of this account", "lower TIWKEYD_RATE if other programs use the same API", false, false},
	{"LimitExceeded", forNow, "a quota is used up", "raise it with Tencent", false, false},
	{"ResourceInsufficient", forNow, "Tencent has no capacity", "nothing: it is tried again", false, false},
	{"ResourceInUse", forNow, "Tencent is busy with this application", "nothing: it is tried again", false, false},
	{codeNotSent, forNow, "the request was not sent", "see the message", false, false},

	{"InternalError", doubt, "a fault at Tencent", "nothing: it is looked at and tried again", false, false},
	{"FailedOperation", doubt, "Tencent failed to carry it out", "nothing: it is looked at and tried again", false, false},
	{"ServiceUnavailable", doubt, "Tencent's service is away", "nothing: it is looked at and tried again", false, false},
	{"ClientError", doubt, "no usable answer came", "check the network, and TIWKEYD_TENCENT_ENDPOINT", false, false},
}

// lookUp gives the longest match of a code.
func lookUp(code string) (row, bool) {
	var best row
	for _, r := range classes {
		if (code == r.code || strings.HasPrefix(code, r.code+".")) && len(r.code) > len(best.code) {
			best = r
		}
	}
	return best, best.code != ""
}

func aboutCredential(code string) bool {
	r, _ := lookUp(code)
	return r.renew
}

func classify(action string, t secrets.Target, code, message, requestID string) *rotator.APIError {
	r, known := lookUp(code)
	if !known {
		r = row{class: doubt, meaning: "a code that is not known", advice: "nothing: it is looked at and tried again"}
	}
	return &rotator.APIError{Class: r.class, Action: action, Target: t, Code: printable.Text(code), Message: printable.Text(message), RequestID: printable.Text(requestID),
		Meaning: r.meaning, Advice: r.advice, Forbidden: r.forbidden}
}

func notSent(action string, t secrets.Target, err error) *rotator.APIError {
	e := classify(action, t, codeNotSent, err.Error(), "")
	e.Err = err
	return e
}

// redact puts k's id where its value stands in s, which came from outside (an API's message, a
// proxy's error page).
func redact(s string, k secrets.Key) string {
	if !k.IsZero() {
		s = strings.ReplaceAll(s, k.Reveal(), "["+k.String()+"]")
	}
	return s
}

// explain turns an error of the SDK into ours. The SDK quotes whole answers in its messages,
// and an answer of Describe has the key in it: such a message is replaced. Tencent's own
// messages are kept, but for the key that was sent.
func explain(action string, t secrets.Target, k secrets.Key, err error) *rotator.APIError {
	if errors.Is(err, errTooLate) {
		return notSent(action, t, errTooLate)
	}
	var sdk *tcerr.TencentCloudSDKError
	if !errors.As(err, &sdk) {
		e := classify(action, t, "ClientError", redact(err.Error(), k), "")
		e.Err = err
		return e
	}
	message := sdk.Message
	if strings.HasPrefix(sdk.Code, "ClientError") {
		message, _, _ = strings.Cut(message, "Fail to parse json content: ")
		if cause := sdk.Unwrap(); cause != nil {
			message += ": " + cause.Error()
		}
		if message == "" {
			message = "the answer is not JSON of the API"
		}
	}
	return classify(action, t, sdk.Code, redact(message, k), sdk.RequestId)
}
