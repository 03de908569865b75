package tiwtest

import (
	"net/http"
	"strings"
	"testing"
)

// TestVectors proves the signature against the two published examples of API 3.0.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ value, payload, signature string }{
		{`\u672a\u547d\u540d`, "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064", "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"},
		{`unnamed`, "99d58dfbc6745f6747f36bfca17dee5e6881dc0428a0a36f96199342bc5b4907", "63eae8f4b793c20564dafd5a5f62817d6e8de7ce5d4fb2d38f7babf1531c493c"},
	} {
		r := signedRequest{method: "POST", path: "/", timestamp: "1551113065", date: "2019-02-25", service: "cvm",
			headers: [][2]string{{"content-type", "application/json; charset=utf-8"}, {"host", "cvm.tencentcloudapi.com"}},
			payload: []byte(`{"Limit": 1, "Filters": [{"Values": ["` + v.value + `"], "Name": "instance-name"}]}`)}
		if got := hash(r.payload); got != v.payload {
			t.Errorf("payload hash %s, want %s", got, v.payload)
		}
		if got := r.sign("Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"); got != v.signature {
			t.Errorf("signature %s, want %s", got, v.signature)
		}
	}
}

// TestCallbackVectors proves the callback's signature against both published examples.
func TestCallbackVectors(t *testing.T) {
	t.Parallel()
	if got := Sign("Xz4ZgayTr7rMgWQrH", 1588040109); got != "a2dabb362a9b811c0e26953a6276a41c" {
		t.Error(got)
	}
	if got := Sign("NjFGoDEy", 1614151508); got != "b9454ab5a85f9b7ad36071f5688ed34d" {
		t.Error(got)
	}
}

const goodHeader = "TC3-HMAC-SHA256 Credential=AKID/2026-01-01/tiw/tc3_request, SignedHeaders=content-type;host, Signature=abc"

func TestParseAuthorization(t *testing.T) {
	t.Parallel()
	a, err := parseAuthorization(goodHeader)
	if err != nil || a.secretID != "AKID" || a.date != "2026-01-01" || a.service != "tiw" || a.signature != "abc" || len(a.signedHeaders) != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, change := range [][2]string{{"TC3-HMAC-SHA256", "TC3-HMAC-SHA1"}, {"/tc3_request", ""}, {"/tc3_request", "/other"}, {"Signature=abc", "Signature="}, {"content-type;host", "content-type"}, {"host", "hos"}, {"Credential=AKID", "Credential="}, {", Signature", ", Odd=1, Signature"}} {
		if _, err := parseAuthorization(strings.Replace(goodHeader, change[0], change[1], 1)); err == nil {
			t.Errorf("%q for %q is accepted", change[1], change[0])
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add(goodHeader)
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err == nil && (a.secretID == "" || a.signature == "" || len(a.signedHeaders) < 2) {
			t.Errorf("%q gives %+v", header, a)
		}
	})
}

// TestUnsignedRequests sends what the client never would.
func TestUnsignedRequests(t *testing.T) {
	t.Parallel()
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, c := range map[string]struct {
		method string
		header map[string]string
		want   string
	}{
		"get":            {"GET", nil, "UnsupportedProtocol"},
		"version":        {"POST", map[string]string{"X-TC-Version": "2017-01-01"}, "NoSuchVersion"},
		"action":         {"POST", map[string]string{"X-TC-Action": "DropTables"}, "InvalidAction"},
		"region":         {"POST", map[string]string{"X-TC-Region": ""}, "MissingParameter"},
		"no signature":   {"POST", nil, "AuthFailure.InvalidAuthorization"},
		"odd timestamp":  {"POST", map[string]string{"Authorization": goodHeader, "X-TC-Timestamp": "now"}, "AuthFailure.InvalidAuthorization"},
		"old signature":  {"POST", map[string]string{"Authorization": goodHeader, "X-TC-Timestamp": "1767225600"}, "AuthFailure.SignatureExpire"},
		"odd scope date": {"POST", map[string]string{"Authorization": goodHeader, "X-TC-Timestamp": "1551113065"}, "AuthFailure.InvalidAuthorization"},
	} {
		r, err := http.NewRequest(c.method, s.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{"X-TC-Version": "2019-09-19", "X-TC-Action": "SetWhiteboardPushCallbackKey", "X-TC-Region": "ap-singapore"} {
			r.Header.Set(k, v)
		}
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_ = res.Write(&b)
		if !strings.Contains(b.String(), `"`+c.want+`"`) {
			t.Errorf("%s: %s, want %s", name, b.String(), c.want)
		}
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	set, describe := calls["SetWhiteboardPushCallbackKey"], calls["DescribeWhiteboardPushCallback"]
	for _, c := range []struct {
		call call
		body string
		want string
	}{
		{set, `{"SdkAppId":1,"CallbackKey":"k"}`, ""},
		{set, `{"SdkAppId":1,"CallbackKey":""}`, ""}, // deletes
		{set, `{"SdkAppId":1,"CallbackKey":"` + strings.Repeat("k", 64) + `"}`, ""},
		{set, `{"SdkAppId":1,"CallbackKey":"` + strings.Repeat("k", 65) + `"}`, "InvalidParameter"},
		{set, `{"SdkAppId":"1","CallbackKey":"k"}`, "InvalidParameter.BodyParameterTypeUnmatched"},
		{set, `{"SdkAppId":1.5,"CallbackKey":"k"}`, "InvalidParameter.BodyParameterTypeUnmatched"},
		{set, `{"SdkAppId":1,"CallbackKey":7}`, "InvalidParameter.BodyParameterTypeUnmatched"},
		{set, `{"SdkAppId":1}`, "MissingParameter"},
		{set, `{"CallbackKey":"k"}`, "MissingParameter"},
		{set, `{"SdkAppId":1,"CallbackKey":"k","Extra":1}`, "UnknownParameter"},
		{describe, `{"SdkAppId":1}`, ""},
		{describe, `{"SdkAppId":1,"CallbackKey":"k"}`, "UnknownParameter"},
		{describe, `null`, "InvalidParameter"},
		{describe, `{`, "InvalidParameter"},
	} {
		if _, _, code, _ := parameters(c.call, []byte(c.body)); code != c.want {
			t.Errorf("%s %s: %q, want %q", c.call.api, c.body, code, c.want)
		}
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add("TC3-HMAC-SHA256 Credential=AKID/2019-02-25/tiw/tc3_request, SignedHeaders=content-type;host, Signature=abc")
	f.Add("TC3-HMAC-SHA256 Credential=/, SignedHeaders=;;, Signature=")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err == nil && (a.secretID == "" || a.signature == "" || a.date == "" && a.service == "" && len(a.signedHeaders) < 2) {
			t.Fatalf("%q is taken as %+v", header, a)
		}
	})
}
