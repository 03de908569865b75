package webhook

import (
	"crypto/fips140"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

const (
	testApp = 1400000001
	canaryA = "CANARY-a-kPq3Zs8VdX1mB7nL5cR0tYwUeGhJfKaQzSxDvCbNmMlPoIuYtReWq12"
	canaryB = "CANARY-b-9KcT4yHnW2pLxM6vQ8sRzB3dFgJ1uEaYwXo5ViNqZtPmCkSh7GrDlUj"
)

// expiry is when the callbacks of these tests expire; they are judged a minute before.
const expiry2030 = 1893456000

var (
	testTarget = Target{SdkAppID: testApp, Service: secrets.WhiteboardPush}
	testNow    = time.Unix(expiry2030-60, 0)
	testKeys   = Keys{SdkAppID: testApp, Accept: []Key{secrets.NewKey("a", canaryA), secrets.NewKey("b", canaryB)}}
)

// callback is a genuine body.
func callback(key string) string {
	return fixed(tiwtest.Callback(testApp, "WhiteboardPushStarted", 7, key, time.Unix(expiry2030, 0)))
}

var timestamp2030 = regexp.MustCompile(`"Timestamp":\d+`)

// fixed is a body that is the same whenever it is made.
func fixed(body []byte) string {
	return timestamp2030.ReplaceAllString(string(body), fmt.Sprintf(`"Timestamp":%d`, expiry2030-600))
}

// listOf is an object's names and values as a list.
func listOf(t testing.TB, object string) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &m); err != nil {
		t.Fatal(err)
	}
	var parts []string
	for k, v := range m {
		parts = append(parts, strconv.Quote(k)+","+string(v))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// with is a genuine body with something in it replaced.
func with(t testing.TB, old, by string) string {
	t.Helper()
	body := callback(canaryA)
	if !strings.Contains(body, old) {
		t.Fatalf("a callback has no %s", old)
	}
	return strings.Replace(body, old, by, 1)
}

// TestPublishedVectors checks what Tencent's pages show.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		key, sign string
		expire    int64
	}{
		{"Xz4ZgayTr7rMgWQrH", "a2dabb362a9b811c0e26953a6276a41c", 1588040109},
		{"NjFGoDEy", "b9454ab5a85f9b7ad36071f5688ed34d", 1614151508},
	} {
		body := fmt.Sprintf(`{"EventData":{"PushStartTime":1610545438,"PushUserId":"tic_push_user_1253_01","RoomId":1253,"TaskId":"bj0mt2l23osdj300hl30"},
			"EventType":"WhiteboardPushStarted","ExpireTime":%d,"SdkAppId":1400000001,"Sign":%q,"Timestamp":1575545412}`, v.expire, v.sign)
		keys := Keys{SdkAppID: testApp, Accept: []Key{secrets.NewKey("other", canaryB), secrets.NewKey("theirs", v.key)}}
		if id, err := Verify([]byte(body), keys, time.Unix(v.expire, 0)); id != "theirs" || err != nil {
			t.Errorf("the vector of %s: %q, %v", v.sign, id, err)
		}
		if _, err := Verify([]byte(body), keys, time.Unix(v.expire+1, 0)); ReasonOf(err) != Expired {
			t.Errorf("a second later: %v", err)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	sign := `"Sign":"` + tiwtest.Sign(canaryA, expiry2030) + `"`
	unsigned := callback("")
	deep := strings.Repeat(`{"a":`, MaxDepth-1) + "1" + strings.Repeat("}", MaxDepth-1)
	for _, c := range []struct {
		name, body string
		want       Reason
	}{
		{"genuine", callback(canaryA), ""},
		{"genuine, the second key", callback(canaryB), ""},
		{"no accepted key", callback("CANARY-c"), BadSignature},
		{"no Sign", unsigned, Unsigned},
		{"an empty Sign", with(t, sign, `"Sign":""`), Unsigned},
		{"upper case", with(t, sign, `"Sign":"`+strings.ToUpper(tiwtest.Sign(canaryA, expiry2030))+`"`), BadSignature},
		{"one character short", with(t, sign, sign[:len(sign)-2]+`"`), BadSignature},
		{"one character more", with(t, sign, sign[:len(sign)-1]+`0"`), BadSignature},
		{"another ExpireTime", with(t, "1893456000", "1893456001"), BadSignature},
		{"another application", with(t, "1400000001", "1400000002"), WrongApplication},
		{"expired", strings.Replace(callback(canaryA), "1893456000", "1893455939", 1), Expired},
		{"an event nobody knows", with(t, "WhiteboardPushStarted", "Ünbekannt"), ""},
		{"altered data, which the signature does not cover", with(t, "teacher", "somebody"), ""},
		{"a member nobody knows", with(t, `"Sign"`, `"New":[1.5,"x",null,{"y":true}],"Sign"`), ""},
		{"an escaped name", with(t, `"Sign"`, `"\u0053ign"`), ""},
		{"an escaped value", with(t, `"Sign":"`+sign[8:9], fmt.Sprintf(`"Sign":"\u%04x`, sign[8])), ""},
		{"space around", " \r\n\t" + callback(canaryA) + " \r\n\t", ""},
		{"invalid UTF-8 in a string", with(t, "teacher", "te\xff\xfecher"), ""},
		{"half an escaped emoji", with(t, "teacher", `te\ud83dcher`), ""},
		{"nothing", "", Malformed},
		{"space", "  ", Malformed},
		{"no JSON", "ExpireTime=1893456000", Malformed},
		{"half", callback(canaryA)[:80], Malformed},
		{"a list", "[" + callback(canaryA) + "]", Malformed},
		{"null", "null", Malformed},
		{"a string", `"x"`, Malformed},
		{"text behind", callback(canaryA) + "x", Malformed},
		{"another object behind", callback(canaryA) + callback(canaryA), Malformed},
		{"a comma behind", callback(canaryA) + ",", Malformed},
		{"a comma too much", with(t, `"Sign"`, `,"Sign"`), Malformed},
		{"two ExpireTimes", with(t, `"Sign"`, `"ExpireTime":1,"Sign"`), Malformed},
		{"two Signs", with(t, `"Sign"`, `"Sign":"x","Sign"`), Malformed},
		{"two Signs, one escaped", with(t, `"Sign"`, `"\u0053ign":"x","Sign"`), Malformed},
		{"two equal names deep inside", with(t, `"RoomId"`, `"TaskId":"x","RoomId"`), Malformed},
		{"two equal unknown names", with(t, `"Sign"`, `"x":1,"x":1,"Sign"`), Malformed},
		{"a float", with(t, "1893456000", "1893456000.0"), Malformed},
		{"an exponent", with(t, "1893456000", "1893456e3"), Malformed},
		{"a string for a number", with(t, "1893456000", `"1893456000"`), Malformed},
		{"a negative number", with(t, "1893456000", "-1893456000"), Malformed},
		{"minus nothing", with(t, "1400000001", "-0"), Malformed},
		{"a leading zero", with(t, "1893456000", "01893456000"), Malformed},
		{"plus", with(t, "1893456000", "+1893456000"), Malformed},
		{"out of range", with(t, "1893456000", "9223372036854775808"), Malformed},
		{"true for a number", with(t, "1400000001", "true"), Malformed},
		{"null for a number", with(t, "1400000001", "null"), Malformed},
		{"a number for Sign", with(t, sign, `"Sign":1`), Malformed},
		{"null for Sign", with(t, sign, `"Sign":null`), Malformed},
		{"a list for Sign", with(t, sign, `"Sign":["x"]`), Malformed},
		{"a number for EventType", with(t, `"WhiteboardPushStarted"`, "7"), Malformed},
		{"a list for EventData", with(t, `"EventData":{`, `"EventData":[],"x":{`), Malformed},
		{"a float for Timestamp", with(t, `"Timestamp":`, `"Timestamp":0.5,"x":`), Malformed},
		{"no ExpireTime", with(t, `"ExpireTime"`, `"x"`), Malformed},
		{"neither Sign nor ExpireTime", strings.Replace(with(t, `"ExpireTime"`, `"x"`), `"Sign"`, `"y"`, 1), Unsigned},
		{"an empty Sign, and no ExpireTime", strings.Replace(with(t, `"ExpireTime"`, `"x"`), sign, `"Sign":""`, 1), Unsigned},
		{"no SdkAppId", with(t, `"SdkAppId"`, `"x"`), Malformed},
		{"a name in another case", with(t, `"Sign"`, `"SDKAPPID":2,"Sign"`), Malformed},
		{"a name in another case, escaped", with(t, `"Sign"`, `"\u0073ign":"x","Sign"`), Malformed},
		{"a name with the Kelvin sign for k", with(t, `"Sign"`, `"Sd\u212aAppId":2,"Sign"`), Malformed},
		{"a name that ends early for C", with(t, `"Sign"`, `"Sign\u0000":"x","Sign"`), Malformed},
		{"another case deep inside", with(t, `"RoomId"`, `"sign":1,"RoomId"`), ""},
		{"a list of names and values", listOf(t, callback(canaryA)), Malformed},
		{"no EventType", with(t, `"EventType"`, `"x"`), Malformed},
		{"no EventData", with(t, `"EventData"`, `"x"`), Malformed},
		{"no Timestamp", with(t, `"Timestamp"`, `"x"`), Malformed},
		{"as deep as may be", with(t, `"EventData":{`, `"x":`+deep+`,"EventData":{`), ""},
		{"too deep by one", with(t, `"EventData":{`, `"x":{"y":`+deep+`},"EventData":{`), Malformed},
		{"deep lists", strings.Repeat("[", 100_000), Malformed},
		{"brackets in a string are not deep", with(t, "teacher", strings.Repeat("[", 100)+`\"`+strings.Repeat("{", 100)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := Verify([]byte(c.body), testKeys, testNow)
			if ReasonOf(err) != c.want || (err == nil) != (c.want == "") || (err == nil) != (id != "") {
				t.Fatalf("%q, %v; want %q", id, err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), sign[8:40])) {
				t.Errorf("the error shows a key or a signature: %v", err)
			}
			if _, ok := naive([]byte(c.body), testApp, map[string]string{"a": canaryA, "b": canaryB}, testNow.Unix()); ok != (err == nil) {
				t.Errorf("the second implementation says %v", ok)
			}
		})
	}
}

// TestZeroKey: with an empty key anybody could sign.
func TestZeroKey(t *testing.T) {
	t.Parallel()
	forged := strings.Replace(callback(""), `"Timestamp"`, `"Sign":"`+tiwtest.Sign("", expiry2030)+`","Timestamp"`, 1)
	if id, err := Verify([]byte(forged), Keys{SdkAppID: testApp, Accept: []Key{{}, secrets.NewKey("unset", "")}}, testNow); ReasonOf(err) != BadSignature {
		t.Errorf("%q, %v", id, err)
	}
	if k, err := NewKey("unset", ""); err == nil || !k.IsZero() {
		t.Error("there is an empty key")
	}
	// A key without a name is not taken for none.
	k, err := NewKey("", canaryA)
	if id, verifyErr := Verify([]byte(callback(canaryA)), Keys{SdkAppID: testApp, Accept: []Key{k}}, testNow); err != nil || verifyErr != nil || id == "" {
		t.Errorf("%q, %v", id, err)
	}
}

// TestWords: what the log tells of a refusal.
func TestWords(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		with(t, "1893456000", "1893455879"):                         "expired: it expired 1m1s ago",
		with(t, "1893456000", "0"):                                  "it expired 525959h59m0s ago",
		with(t, `"Sign"`, `"x":1,"x":2,"Sign"`):                     "malformed: a name in the JSON is repeated",
		with(t, `"Sign"`, `"sIGN":1,"Sign"`):                        "looks like a documented one",
		with(t, "1893456000", "1e9"):                                "ExpireTime is not a whole number",
		callback(canaryA) + "x":                                     "text behind",
		strings.Repeat("[", 99):                                     "more than 32 levels",
		with(t, "1400000001", "2"):                                  "it is of SdkAppId 2, not 1400000001",
		callback("x"):                                               "none of the 2 keys",
		strings.Replace(callback(canaryA), "Timestamp", "Other", 1): "Timestamp is missing",
	} {
		if _, err := Verify([]byte(body), testKeys, testNow); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// TestPrinting a callback shows nothing that others could be sent with.
func TestPrinting(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(callback(canaryA)))
	if err != nil {
		t.Fatal(err)
	}
	e := Event{Callback: c, KeyID: "a", Body: []byte(callback(canaryA))}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "callback", c, "event", e, "pointer", &e)
	text := fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v", c, c, c, c, &c, e, &e, e) + log.String()
	if strings.Contains(text, tiwtest.Sign(canaryA, expiry2030)) || !strings.Contains(text, "1400000001") {
		t.Error(text)
	}
}

// TestUnderFIPS: that MD5 is Tencent's choice is no reason to panic.
func TestUnderFIPS(t *testing.T) {
	if fips140.Enforced() {
		TestPublishedVectors(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestUnderFIPS$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestUnderFIPS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestVerifyAllocates nothing, whichever key it is, and also with the longest numbers.
func TestVerifyAllocates(t *testing.T) {
	for _, key := range []string{canaryA, canaryB} {
		for _, expire := range []int64{expiry2030, 1<<63 - 1} {
			c, err := Parse(tiwtest.Callback(testApp, "x", 1, key, time.Unix(expire, 0)))
			if err != nil {
				t.Fatal(err)
			}
			if n := testing.AllocsPerRun(100, func() {
				if _, err := c.Verify(testKeys, testNow); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("it allocates %v times", n)
			}
		}
	}
}

// TestParsedDataStays: a parsed callback shares the body, which a pooled decoder must not
// touch any more.
func TestParsedDataStays(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(callback(canaryA)))
	if err != nil {
		t.Fatal(err)
	}
	was := string(c.EventData)
	for range 100 {
		if _, err := Parse([]byte(with(t, "teacher", "another"))); err != nil {
			t.Fatal(err)
		}
	}
	if string(c.EventData) != was || !strings.Contains(was, "teacher") {
		t.Errorf("EventData is %s now, was %s", c.EventData, was)
	}
}

// FuzzVerify has Verify agree with the second implementation.
func FuzzVerify(f *testing.F) {
	for _, key := range []string{canaryA, canaryB, "", "another"} {
		for _, event := range []string{"WhiteboardPushStarted", "WhiteboardPushStopped", "Ünbekannt \u2028"} {
			f.Add(tiwtest.Callback(testApp, event, 7, key, time.Unix(expiry2030, 0)))
		}
	}
	for _, body := range []string{with(f, `"Sign"`, `"\u0053ign"`), with(f, `"Sign"`, `"Sign":"x","Sign"`), with(f, "1893456000", "1893456000.0"), with(f, "teacher", "te\xff\\ud83dcher"),
		with(f, `"EventData":{`, `"x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],"EventData":{`), " " + callback(canaryB) + "\n\x00"} {
		f.Add([]byte(body))
	}
	keys := map[string]string{"a": canaryA, "b": canaryB}
	f.Fuzz(func(t *testing.T, body []byte) {
		was := string(body)
		id, err := Verify(body, testKeys, testNow)
		if string(body) != was {
			t.Fatal("the body was changed")
		}
		wantID, want := naive(body, testApp, keys, testNow.Unix())
		if err == nil && (!want || id != wantID) {
			t.Fatalf("accepted with %s what the second implementation refuses", id)
		}
		// Invalid UTF-8 in names is another matter for each.
		if want && err != nil && utf8.Valid(body) {
			t.Fatalf("refused what the second implementation accepts: %v", err)
		}
	})
}
