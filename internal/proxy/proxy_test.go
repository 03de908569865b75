package proxy

import (
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"tiwkeyd/tencent/tiwtest"
	"tiwkeyd/webhook"
)

// TestHandedOn: what is genuine comes to the receiver as it was sent, with what was verified.
func TestHandedOn(t *testing.T) {
	t.Parallel()
	odd := strings.Replace(callback(1), "teacher", "te\xff\\ud83d\u2028cher", 1)
	for _, c := range []struct {
		name, at, uri, want, body string
		chunked                   bool
	}{
		{name: "the root", uri: "/", want: "/"},
		{name: "a path and a query", uri: "/a/b?x=1&y=%20", want: "/a/b?x=1&y=%20"},
		{name: "escapes stay", uri: "/a%2Fb//c/../d%20?q=%2f", want: "/a%2Fb//c/../d%20?q=%2f"},
		{name: "a query that Go cannot parse", uri: "/?a;b=1&%zz&&=", want: "/?a;b=1&%zz&&="},
		{name: "behind a path", at: "/base/", uri: "/a?x", want: "/base/"},
		{name: "to a path, whatever was asked for", at: "/tiw/callback", uri: "/../../admin/delete?SdkAppId=2", want: "/tiw/callback"},
		{name: "spaces and odd bytes in the body", uri: "/", want: "/", body: " \r\n" + odd + "\n\t "},
		{name: "in chunks", uri: "/", want: "/", chunked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(o *Options) {
				if c.at != "" {
					o.Upstream = parse(t, c.at)
				}
			})
			body := c.body
			if body == "" {
				body = callback(7)
			}
			sent, length := body, fmt.Sprintf("Content-Length: %d", len(body))
			if c.chunked {
				sent, length = fmt.Sprintf("5\r\n%s\r\n%x;ext=1\r\n%s\r\n0\r\n\r\n", body[:5], len(body)-5, body[5:]), "Transfer-Encoding: chunked"
			}
			status := r.raw("POST " + c.uri + " HTTP/1.1\r\nHost: hooks.example\r\nContent-Type: application/json; charset=utf-7\r\nContent-Encoding: identity\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nAuthorization: Basic eDp5\r\nX-Two: 1\r\nX-Two: 2\r\n" + length + "\r\n\r\n" + sent)
			got := r.receiver.requests()
			if status != 200 || len(got) == 0 {
				t.Fatalf("status %d, the receiver got %d", status, len(got))
			}
			g := got[len(got)-1]
			if g.Method != http.MethodPost || g.RequestURI != c.want || g.body != body || g.ContentLength != int64(len(body)) {
				t.Errorf("%s %s, length %d\n%q", g.Method, g.RequestURI, g.ContentLength, g.body)
			}
			want := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Basic eDp5"}, "X-Two": {"1", "2"}, "Content-Length": {fmt.Sprint(len(body))},
				HeaderKeyID: {"key-a"}, HeaderEvent: {event}, HeaderSdkAppID: {fmt.Sprint(testApp)}, "Idempotency-Key": {sum(body)},
				"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"hooks.example"}, "X-Forwarded-Proto": {"http"}}
			via := strings.Join(g.Header["Via"], ",")
			g.Header.Del("Via")
			if !strings.HasPrefix(via, "1.1 "+pseudonym) || !reflect.DeepEqual(g.Header, want) {
				t.Errorf("via %s, headers: %v\nwant: %v", via, g.Header, want)
			}
			if g.Host == "hooks.example" {
				t.Error("the receiver is asked for under the sender's name for the proxy")
			}
		})
	}
}

// TestSpoofs: nothing of what the sender says under the proxy's own names comes through, in
// no spelling that a receiver may take for them, and it cannot take away what the proxy says.
func TestSpoofs(t *testing.T) {
	t.Parallel()
	names := []string{"X-Tiwkeyd-Key-Id", "x_tiwkeyd_key_id", "X-TIWKEYD-anything", "X-Tiwkeyd_Sdk-App-Id", "x-tiwkeyd-", "X.Tiwkeyd!Key~Id", "X-Tiwkeyd-Event-Type",
		"Idempotency-Key", "idempotency_key", "IDEMPOTENCY.KEY", "X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Host", "X_Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded_Proto", "Forwarded"}
	spoofs, trailers := "", ""
	for _, n := range names {
		spoofs += n + ": SPOOF\r\n" + n + ": SPOOF twice\r\n"
		trailers += n + ": SPOOF\r\n"
	}
	body := callback(1)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n", len(body), body)
	for _, c := range []struct{ name, headers, rest string }{
		{"as headers", spoofs + length, body},
		{"named in Connection", spoofs + "Connection: X-Tiwkeyd-Key-Id, X-Tiwkeyd-Sdk-App-Id, Idempotency-Key, X-Forwarded-For\r\n" + length, body},
		{"named in Connection alone", "Connection: keep-alive, x-tiwkeyd-key-id, x-tiwkeyd-event-type, x-tiwkeyd-sdk-app-id, idempotency-key\r\n" + length, body},
		{"as announced trailers", "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: " + strings.Join(names, ", ") + "\r\n", chunks + trailers + "\r\n"},
		{"as trailers", "Transfer-Encoding: chunked\r\n", chunks + trailers + "\r\n"},
		{"as both", spoofs + "Transfer-Encoding: chunked\r\nTrailer: X-Tiwkeyd-Key-Id\r\n", chunks + trailers + "\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.receiver.handle = func(_ http.ResponseWriter, q *http.Request) {
				if len(q.Trailer) != 0 {
					t.Errorf("trailers: %v", q.Trailer)
				}
			}
			status := r.raw("POST / HTTP/1.1\r\nHost: x\r\n" + c.headers + "\r\n" + c.rest)
			got := r.receiver.requests()
			if status != 200 || len(got) != 1 {
				t.Fatalf("status %d, the receiver got %d", status, len(got))
			}
			for name, values := range got[0].Header {
				if strings.Contains(strings.Join(values, " "), "SPOOF") {
					t.Errorf("%s: %q came through", name, values)
				}
			}
			for name, want := range map[string]string{HeaderKeyID: "key-a", HeaderEvent: event, HeaderSdkAppID: "1400000001", "Idempotency-Key": sum(body), "X-Forwarded-For": "127.0.0.1"} {
				if values := got[0].Header[name]; len(values) != 1 || values[0] != want {
					t.Errorf("%s: %q", name, values)
				}
			}
			if got[0].Header["Trailer"] != nil || got[0].TransferEncoding != nil {
				t.Errorf("%v %v", got[0].Header, got[0].TransferEncoding)
			}
		})
	}
}

// TestLikeNames: headers whose names only resemble the proxy's own are the sender's affair.
func TestLikeNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	body := callback(1)
	names := []string{"X-Tiwkeyd", "X-Tiwkeyds-Key-Id", "My-X-Tiwkeyd-Key-Id", "Idempotency-Keys", "X-Forwarded-Port"}
	headers := ""
	for _, n := range names {
		headers += n + ": theirs\r\n"
	}
	if status := r.raw(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)); status != 200 {
		t.Fatal(status)
	}
	for _, n := range names {
		if r.receiver.requests()[0].Header.Get(n) != "theirs" {
			t.Errorf("%s is gone", n)
		}
	}
}

// TestUpgrade: who has a genuine callback gets no connection on which to send anything else,
// and a receiver that minds Expect does not get to see it: the body is there already.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.receiver.handle = func(w http.ResponseWriter, q *http.Request) {
		if q.Header["Connection"] != nil {
			t.Errorf("Connection: %s", q.Header["Connection"])
		}
		switch {
		case q.Header.Get("Upgrade") != "":
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", q.Header.Get("Upgrade"))
			w.WriteHeader(http.StatusSwitchingProtocols)
		case q.Header.Get("Expect") != "":
			w.WriteHeader(http.StatusExpectationFailed)
		}
	}
	body := callback(1)
	for _, headers := range []string{"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n", "Connection: upgrade\r\nUpgrade: websocket\r\n", "Expect: 100-continue\r\n"} {
		if status := r.raw(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)); status != 200 {
			t.Errorf("%s: %d", headers, status)
		}
	}
}

// TestEventType is in a header if it is fit for one. The signature does not cover it.
func TestEventType(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("e", 64)
	for _, c := range []struct{ name, event, want string }{
		{"known", event, event}, {"every kind of character", "Az09._-", "Az09._-"}, {"as long as may be", long, long}, {"too long by one", long + "e", ""}, {"none", "", ""},
		{"a line end", "a\r\nX-Tiwkeyd-Key-Id: SPOOF", ""}, {"a line feed", "a\nb", ""}, {"a NUL", "a\x00", ""}, {"not ASCII", "Ünbekannt", ""}, {"a space", "a b", ""}, {"a comma", "a,b", ""},
		{"before a", "`", ""}, {"behind z", "{", ""}, {"before A", "@", ""}, {"behind Z", "[", ""}, {"before 0", "/", ""}, {"behind 9", ":", ""}, {"all of the alphabets", "azAZ09", "azAZ09"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			body := string(tiwtest.Callback(testApp, c.event, 1, canaryB, expiry))
			status, _ := r.post(body)
			got := r.receiver.requests()
			if status != 200 || len(got) != 1 || got[0].body != body {
				t.Fatalf("status %d: %d", status, len(got))
			}
			if values, there := got[0].Header[HeaderEvent]; there != (c.want != "") || strings.Join(values, "|") != c.want || got[0].Header.Get(HeaderKeyID) != "key-b" {
				t.Errorf("%v", got[0].Header)
			}
		})
	}
}

// TestUnsigned: there is no key's id where there is no key.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{true, false} {
		r := newRig(t, func(o *Options) {
			o.Webhook.Keys, o.Webhook.AllowUnsigned = webhook.Static{{SdkAppID: testApp, AcceptUnsigned: true}}, allow
		})
		body := tiwtest.Callback(testApp, event, 1, "", expiry)
		status := r.raw(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nX-Tiwkeyd-Key-Id: SPOOF\r\nX_Tiwkeyd_Key_Id: SPOOF\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		got := r.receiver.requests()
		if !allow {
			if status != 401 || len(got) != 0 {
				t.Errorf("not allowed: %d", status)
			}
			continue
		}
		if status != 200 || len(got) != 1 || len(got[0].Header[HeaderKeyID]) != 0 || len(got[0].Header["X_tiwkeyd_key_id"]) != 0 || got[0].Header.Get(HeaderSdkAppID) != "1400000001" {
			t.Errorf("allowed: %d, %v", status, got)
		}
	}
}

// TestRefused: nothing that is not genuine comes to the receiver.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Webhook.MaxBody = 2000 })
	good := callback(1)
	for _, c := range []struct {
		name, method, body string
		want               int
		reason             webhook.Reason
	}{
		{"not JSON", "POST", "{", 400, webhook.Malformed},
		{"a repeated name", "POST", strings.Replace(good, `"Sign"`, `"SdkAppId":1,"Sign"`, 1), 400, webhook.Malformed},
		{"empty", "POST", "", 400, webhook.Malformed},
		{"another method", "PUT", good, 405, webhook.Malformed},
		{"too long", "POST", good + strings.Repeat(" ", 2001), 413, webhook.TooLarge},
		{"expired", "POST", string(tiwtest.Callback(testApp, event, 1, canaryA, expiry.AddDate(-1, 0, 0))), 401, webhook.Expired},
		{"no Sign", "POST", string(tiwtest.Callback(testApp, event, 1, "", expiry)), 401, webhook.Unsigned},
		{"bad signature", "POST", string(tiwtest.Callback(testApp, event, 1, "never ours", expiry)), 401, webhook.BadSignature},
		{"another application", "POST", string(tiwtest.Callback(7, event, 1, canaryA, expiry)), 401, webhook.WrongApplication},
	} {
		before := value(t, r.metrics, series(string(c.reason)))
		q, err := http.NewRequest(c.method, r.URL, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.want || len(r.receiver.requests()) != 0 || value(t, r.metrics, series(string(c.reason))) == before {
			t.Errorf("%s: %d %s", c.name, res.StatusCode, text)
		}
	}
	if status, _ := r.post(good); status != 200 {
		t.Errorf("a genuine one: %d", status)
	}
}

func series(result string) string {
	return fmt.Sprintf("tiwkeyd_proxy_requests_total{result=%q}", result)
}

// TestAnswers of the receiver are handed back as they are, whatever they are.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 204, 302, 404, 500, 503} {
		r := newRig(t, nil)
		r.receiver.handle = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.Header()["X-Two"] = []string{"1", "2"}
			w.WriteHeader(code)
			if code != 204 {
				_, _ = io.WriteString(w, "words")
			}
		}
		q, err := http.NewRequest(http.MethodPost, r.URL, strings.NewReader(callback(1)))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != code || (code != 204 && string(text) != "words") || len(res.Header["X-Two"]) != 2 || res.Header.Get("Location") != "/elsewhere" {
			t.Errorf("%d: %d %s %v", code, res.StatusCode, text, res.Header)
		}
		if want := map[bool]string{true: "1", false: "0"}[code >= 500]; value(t, r.metrics, series(failed)) != want || len(r.receiver.requests()) != 1 {
			t.Errorf("%d: not counted as it should be, or sent again", code)
		}
	}
}
