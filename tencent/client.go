// Package tencent sets and reads back the callback keys of Tencent Interactive Whiteboard
// (TIW) applications, through the common module of Tencent Cloud's SDK. It tells, for every
// answer and every lack of one, whether the request was applied, refused or in doubt.
package tencent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"tiwkeyd/internal/hostport"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
)

// Facts of the API (SetWhiteboardPushCallbackKey and its like).
const (
	DefaultEndpoint = "tiw.tencentcloudapi.com"
	DefaultRegion   = "ap-singapore" // the only one of the international site
	MainlandRegion  = "ap-guangzhou" // the only one of the mainland site
	DefaultRate     = 20             // requests a second, for each API of an account

	product    = "tiw"
	apiVersion = "2019-09-19"
)

// callTimeout bounds one request; a caller's earlier deadline goes before it.
const callTimeout = 10 * time.Second

// apis names the pair of calls of each service.
var apis = map[secrets.Service]struct{ set, describe string }{
	secrets.WhiteboardPush:  {"SetWhiteboardPushCallbackKey", "DescribeWhiteboardPushCallback"},
	secrets.OnlineRecord:    {"SetOnlineRecordCallbackKey", "DescribeOnlineRecordCallback"},
	secrets.Transcode:       {"SetTranscodeCallbackKey", "DescribeTranscodeCallback"},
	secrets.VideoGeneration: {"SetVideoGenerationTaskCallbackKey", "DescribeVideoGenerationTaskCallback"},
	secrets.PPTCheck:        {"SetPPTCheckCallbackKey", "DescribePPTCheckCallback"},
}

// Sites are Tencent Cloud's two, by the value of TIWKEYD_TENCENT_SITE. An account of one is refused with the other's
// region. "" is the international one at the endpoint that both editions of the SDK go to.
// Source: the API's pages of both sites, and FAQ 1137/46192.
var Sites = map[string]struct{ Endpoint, Region string }{
	"":         {DefaultEndpoint, DefaultRegion},
	"intl":     {"tiw.intl.tencentcloudapi.com", DefaultRegion},
	"mainland": {DefaultEndpoint, MainlandRegion},
}

// APIs names the calls that set and read back the key of a service, as Tencent does.
func APIs(s secrets.Service) (set, describe string) { return apis[s].set, apis[s].describe }

// Options are a Client's settings.
type Options struct {
	Endpoint    string  // host or URL; "" is DefaultEndpoint; plain http for loopback addresses only
	Region      string  // "" is DefaultRegion
	Rate        float64 // requests a second, for each API; 0 is DefaultRate
	Credentials Credentials
	Now         func() time.Time // nil is time.Now
}

// Client is a rotator.CallbackAPI. It is safe for concurrent use.
type Client struct {
	scheme, host string
	region       string
	credentials  Credentials
	transport    *transport
	limits       map[string]*Limiter // by API
}

// New gives a Client. It contacts nothing.
func New(o Options) (*Client, error) {
	scheme, host, err := ParseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &Client{scheme: scheme, host: host, region: o.Region, credentials: o.Credentials,
		transport: newTransport(o.Now), limits: map[string]*Limiter{}}
	if c.region == "" {
		c.region = DefaultRegion
	}
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	for _, api := range apis {
		c.limits[api.set], c.limits[api.describe] = NewLimiter(o.Rate), NewLimiter(o.Rate)
	}
	return c, nil
}

// ParseEndpoint reads a host, or a URL without a path. The key travels in the request's
// body, so plain http is for loopback addresses only.
func ParseEndpoint(endpoint string) (scheme, host string, err error) {
	if endpoint == "" {
		endpoint = DefaultEndpoint
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return "", "", errors.New("the endpoint is neither a host nor a URL of the form https://host[:port]")
	}
	if err := hostport.URL(u); err != nil {
		return "", "", fmt.Errorf("the endpoint: %w", err)
	}
	switch u.Scheme {
	case "https":
	case "http":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return "", "", fmt.Errorf("the endpoint's plain http:// would show the key to the network: use https:// (http is for loopback addresses only, and %s is not one)", u.Hostname())
		}
	default:
		return "", "", fmt.Errorf("the endpoint's scheme %q is neither https nor http", u.Scheme)
	}
	return u.Scheme, u.Host, nil
}

// Actions gives the names of the calls that set and read a service's key.
func Actions(s secrets.Service) (set, describe string) { return apis[s].set, apis[s].describe }

// ServerTime gives the time that the endpoint stamps its answers with, to the second, and the
// zero time if it stamps none. It needs no credential and asks for nothing: whatever answers will do.
func (c *Client) ServerTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.scheme+"://"+c.host+"/", nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("tencent: %w", err)
	}
	res, err := c.transport.base.RoundTrip(r)
	if err != nil {
		return time.Time{}, fmt.Errorf("tencent: reach %s://%s: %w", c.scheme, c.host, err)
	}
	_ = res.Body.Close()
	at, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil
	}
	return at, nil
}

// Share says that so many replicas of one account are at work, and that this one is the place'th
// of them, from 0.
func (c *Client) Share(replicas, place int) {
	for _, l := range c.limits {
		l.Share(replicas, place)
	}
}

// Limits tells how the limit of each API stands.
func (c *Client) Limits() map[string]Limit {
	all := map[string]Limit{}
	for api, l := range c.limits {
		all[api] = l.Limit()
	}
	return all
}

// tooMany reports whether a code says that there were too many calls: "RequestLimitExceeded", or one
// of its kinds ("RequestLimitExceeded.UinLimitExceeded").
func tooMany(code string) bool {
	return code == "RequestLimitExceeded" || strings.HasPrefix(code, "RequestLimitExceeded.")
}

// Close drops idle connections.
func (c *Client) Close() { c.transport.base.CloseIdleConnections() }

type setRequest struct {
	*tchttp.BaseRequest
	SdkAppID    *int64  `json:"SdkAppId"`
	CallbackKey *string `json:"CallbackKey"`
}

type describeRequest struct {
	*tchttp.BaseRequest
	SdkAppID *int64 `json:"SdkAppId"`
}

// answer is the answer of all calls; Set's has the RequestId only.
type answer struct {
	*tchttp.BaseResponse
	Response *struct {
		CallbackKey json.RawMessage `json:"CallbackKey"`
		RequestID   *string         `json:"RequestId"`
		Error       *struct{}       `json:"Error"` // one with a code never comes here
	} `json:"Response"`
}

// SetKey is Set…CallbackKey. It never sends an empty key, which would delete the one in force.
func (c *Client) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	action := apis[t.Service].set
	value := k.Reveal()
	if value == "" || len(value) > secrets.MaxKeyLength {
		return "", notSent(action, t, fmt.Errorf("a key of %d characters is not one to set (1 to %d)", len(value), secrets.MaxKeyLength))
	}
	got, err := c.call(ctx, action, t, k, func(base *tchttp.BaseRequest) tchttp.Request {
		return &setRequest{BaseRequest: base, SdkAppID: &t.SdkAppID, CallbackKey: &value}
	})
	if err != nil {
		return "", err
	}
	return *got.Response.RequestID, nil
}

// KeyInForce is Describe…Callback. That CallbackKey is "" or null says that none is set; without one the answer says
// nothing, and is in doubt. (The API's pages in Chinese, and the SDKs' examples, have "".)
func (c *Client) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	action := apis[t.Service].describe
	got, err := c.call(ctx, action, t, secrets.Key{}, func(base *tchttp.BaseRequest) tchttp.Request {
		return &describeRequest{BaseRequest: base, SdkAppID: &t.SdkAppID}
	})
	if err != nil {
		return secrets.Key{}, err
	}
	var value *string
	switch {
	case got.Response.CallbackKey == nil:
		return secrets.Key{}, classify(action, t, codeUnexpected, "the answer has no CallbackKey, which says neither that there is one nor that there is none", *got.Response.RequestID)
	case json.Unmarshal(got.Response.CallbackKey, &value) != nil:
		return secrets.Key{}, classify(action, t, codeUnexpected, "the answer has a CallbackKey that is no string", *got.Response.RequestID)
	case value == nil:
		return secrets.Key{}, nil
	}
	// Space around it is not the key's: a receiver that was given it would refuse everything.
	return secrets.NewKey("", strings.TrimSpace(*value)), nil
}

// call sends one request, and once more if Tencent says that the credential is wrong and
// there is another one by now: such a refusal is definite, so nothing is sent twice.
func (c *Client) call(ctx context.Context, action string, t secrets.Target, k secrets.Key, request func(*tchttp.BaseRequest) tchttp.Request) (*answer, error) {
	if action == "" {
		return nil, notSent("call", t, fmt.Errorf("the service %q is unknown", t.Service))
	}
	used, err := c.credentials.Get(ctx)
	if err != nil {
		return nil, notSent(action, t, fmt.Errorf("no credential could be had from %s: %w", c.credentials, err))
	}
	got, apiErr := c.send(ctx, action, t, k, request, used)
	if apiErr == nil {
		return got, nil
	}
	if aboutCredential(apiErr.Code) {
		c.credentials.Forget(used)
		// A role gives another one each time: once is enough to know.
		if renewed, err := c.credentials.Get(ctx); err == nil && !renewed.same(used) {
			if got, apiErr = c.send(ctx, action, t, k, request, renewed); apiErr == nil {
				return got, nil
			}
		}
	}
	return nil, apiErr
}

func (c *Client) send(ctx context.Context, action string, t secrets.Target, k secrets.Key, request func(*tchttp.BaseRequest) tchttp.Request, used Credential) (*answer, *rotator.APIError) {
	place, err := c.limits[action].Wait(ctx)
	if err != nil {
		return nil, notSent(action, t, fmt.Errorf("wait for a place within the rate limit: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	base := (&tchttp.BaseRequest{}).Init().WithApiInfo(product, apiVersion, action)
	base.SetContext(ctx)
	got := &answer{BaseResponse: &tchttp.BaseResponse{}}
	if err := c.sdk(used).Send(request(base), got); err != nil {
		answer := explain(action, t, k, err)
		if answer.RequestID != "" {
			c.limits[action].Answered(place)
		}
		if tooMany(answer.Code) {
			c.limits[action].Exceeded(place)
		}
		return nil, answer
	}
	c.limits[action].Answered(place)
	if got.Response == nil || got.Response.RequestID == nil || *got.Response.RequestID == "" {
		return nil, classify(action, t, codeUnexpected, "the answer has no RequestId", "")
	}
	if got.Response.Error != nil {
		return nil, classify(action, t, codeUnexpected, "the answer is an error without a code", *got.Response.RequestID)
	}
	return got, nil
}

// sdk is a client of the SDK for one request. It is made anew each time because its
// credential must not change under a request of another goroutine; the transport is shared.
func (c *Client) sdk(used Credential) *common.Client {
	p := profile.NewClientProfile()
	p.Language = "en-US"
	p.SignMethod = "TC3-HMAC-SHA256"
	p.DisableRegionBreaker = true // else it may send the key to another region
	p.Debug = false               // it would write the key to standard error
	p.HttpProfile.ReqMethod = http.MethodPost
	p.HttpProfile.Scheme = c.scheme
	p.HttpProfile.Endpoint = c.host
	p.HttpProfile.ReqTimeout = 0 // the context has the deadline; a second timer would outlive an answer that breaks off
	return common.NewCommonClient(common.NewTokenCredential(used.id, used.key, used.token), c.region, p).
		WithHttpTransport(c.transport)
}
