package tencent

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// TestOddAnswers has answers that are none, whatever they look like.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	tg, key := target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey)
	for name, c := range map[string]struct {
		status    int
		body      string
		set, look string // codes; "" is success
		class     rotator.Class
	}{
		"no CallbackKey":          {200, `{"Response":{"RequestId":"r-9"}}`, "", codeUnexpected, doubt},
		"CallbackKey no string":   {200, `{"Response":{"CallbackKey":["` + canaryKey + `"],"RequestId":"r-9"}}`, "", codeUnexpected, doubt},
		"empty RequestId":         {200, `{"Response":{"CallbackKey":"","RequestId":""}}`, codeUnexpected, codeUnexpected, doubt},
		"somebody else's 202":     {202, `{"Response":{"CallbackKey":"","RequestId":"r-9"}}`, "ClientError.NetworkError", "ClientError.NetworkError", doubt},
		"a refusal as 403":        {403, `{"Response":{"Error":{"Code":"ResourceUnavailable.ServiceExpired","Message":"x"},"RequestId":"r-9"}}`, "ResourceUnavailable.ServiceExpired", "ResourceUnavailable.ServiceExpired", refused},
		"a fault as 500":          {500, `{"Response":{"Error":{"Code":"InternalError","Message":"x"},"RequestId":"r-9"}}`, "InternalError", "InternalError", doubt},
		"a refusal as a redirect": {307, `{"Response":{"Error":{"Code":"AuthFailure","Message":"x"},"RequestId":"r-9"}}`, "AuthFailure", "AuthFailure", refused},
		"a 500 without RequestId": {500, `{"Response":{"Error":{"Code":"AuthFailure","Message":"x"}}}`, "ClientError.NetworkError", "ClientError.NetworkError", doubt},
		"a message with the key":  {200, `{"Response":{"Error":{"Code":"InvalidParameterValue","Message":"CallbackKey ` + canaryKey + ` is odd"},"RequestId":"r-9"}}`, "InvalidParameterValue", "", refused},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		cl := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
		_, err := cl.SetKey(t.Context(), tg, key)
		if c.set != "" {
			check(t, name, err, c.class, c.set)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.look != "" {
			_, err = cl.KeyInForce(t.Context(), tg)
			check(t, name, err, c.class, c.look)
		}
		cl.Close()
		s.Close()
	}
}

// TestEventStream: the SDK would read such an answer in a goroutine of its own.
func TestEventStream(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `{"Response":{"CallbackKey":"x","RequestId":"r-9"}}`)
	}))
	defer s.Close()
	c := client(t, s.URL, Static(NewCredential(secretID, secretKey, "")))
	if k, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush)); err != nil || k.Reveal() != "x" {
		t.Errorf("%v, %v", k, err)
	}
}

// TestDoubtIsNotSentTwice has a source that gives another good credential each time.
func TestDoubtIsNotSentTwice(t *testing.T) {
	t.Parallel()
	s, _ := start(t, tiwtest.Options{})
	var n atomic.Int32
	c := client(t, s.URL, &source{name: "sts", fetch: func(context.Context) (Credential, error) {
		id := fmt.Sprint("AKID", n.Add(1))
		s.AddCredential(id, secretKey, "")
		return NewCredential(id, secretKey, ""), nil
	}})
	for _, f := range []tiwtest.Fault{tiwtest.ApplyThenDrop(), tiwtest.ApplyThenError(), tiwtest.Refuse("ResourceUnavailable.ServiceExpired")} {
		before := s.Calls("SetWhiteboardPushCallbackKey")
		s.Plan("Set", 0, f)
		if _, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey)); err == nil {
			t.Errorf("%s: no error", f)
		}
		if got := s.Calls("SetWhiteboardPushCallbackKey") - before; got != 1 {
			t.Errorf("%s: it was sent %d times", f, got)
		}
	}
}

// TestRateIsKept by the client itself, for each API.
func TestRateIsKept(t *testing.T) {
	t.Parallel()
	s, _ := start(t, tiwtest.Options{})
	c, err := New(Options{Endpoint: s.URL, Credentials: Static(NewCredential(secretID, secretKey, "")), Rate: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	for range 5 {
		if _, err := c.KeyInForce(t.Context(), target(secrets.WhiteboardPush)); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took < 190*time.Millisecond {
		t.Errorf("five calls at 20 a second took %s", took)
	}
}

// TestSDKIsQuiet: nothing is written but by us.
func TestSDKIsQuiet(t *testing.T) {
	_, c := start(t, tiwtest.Options{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	log.SetOutput(w)
	_, setErr := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
	os.Stdout, os.Stderr = out, errs
	log.SetOutput(errs)
	_ = w.Close()
	text, _ := io.ReadAll(r)
	if setErr != nil || len(text) != 0 {
		t.Errorf("%v, the SDK wrote %d bytes", setErr, len(text))
	}
}

// TestExplainAnythingElse has an error that neither the SDK nor this client made.
func TestExplainAnythingElse(t *testing.T) {
	t.Parallel()
	e := explain("Set", target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey), fmt.Errorf("odd: %s", canaryKey))
	e.Err = nil
	check(t, "an error of no known kind", e, doubt, "ClientError")
}

// TestNoOtherRegion looks into the SDK: its breaker would send the key to another region.
func TestNoOtherRegion(t *testing.T) {
	t.Parallel()
	c := client(t, "a.example", Static(NewCredential(secretID, secretKey, "")))
	if rb := reflect.ValueOf(c.sdk(NewCredential("a", "b", ""))).Elem().FieldByName("rb"); !rb.IsValid() || !rb.IsNil() {
		t.Error("the SDK may send the key to another region")
	}
}

// TestSpaceAround: space around the key that Tencent tells of is not part of it.
func TestSpaceAround(t *testing.T) {
	t.Parallel()
	s, c := start(t, tiwtest.Options{})
	tg := target(secrets.WhiteboardPush)
	for told, want := range map[string]string{canaryKey: canaryKey, " " + canaryKey + "\n": canaryKey, "\t" + canaryKey: canaryKey, "two words": "two words", " \n": ""} {
		s.SetKey(app, string(tg.Service), told)
		if got, err := c.KeyInForce(t.Context(), tg); err != nil || got.Reveal() != want {
			t.Errorf("%q is taken for %q: %v", told, got.Reveal(), err)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	if got := redact("a "+canaryKey+" b \xff", secrets.NewKey("public", canaryKey)) + redact("c", secrets.Key{}); got != "a [public] b \xffc" {
		t.Errorf("%q", got)
	}
}
