//go:build receivers

package receivers_test

import (
	"bytes"
	"crypto/md5" //nolint:gosec // the signature is MD5 by Tencent's definition
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tiwkeyd/tencent/tiwtest"
)

// verdict is the statuses that a callback may be answered with.
type verdict []int

var (
	genuine   = verdict{http.StatusOK}
	forged    = verdict{http.StatusUnauthorized}
	malformed = verdict{http.StatusBadRequest}
	unfit     = verdict{http.StatusBadRequest, http.StatusUnauthorized}
	tooLong   = verdict{http.StatusRequestEntityTooLarge}
	survived  = verdict{http.StatusOK, http.StatusBadRequest, http.StatusUnauthorized}
)

// want is one callback and what becomes of it.
type want struct {
	name string
	body []byte
	verdict
}

const maxBody = 1 << 20

// wants is what every recipe has to do, with the keyring of previous, current and pending.
func wants() []want {
	genuineBody := string(callback(current))
	list := []want{
		{"signed with the previous key", callback(previous), genuine},
		{"signed with the current key", callback(current), genuine},
		{"signed with the pending key", callback(pending), genuine},
		{"signed with an unknown key", callback(foreign), forged},
		{"signed with a key's id", callback("id-current"), forged},
		{"unsigned", callback(""), forged},
		{"expired", tiwtest.Callback(app, "WhiteboardPushStarted", 1, current, time.Now().Add(-2*time.Second)), forged},
		{"soon expired", tiwtest.Callback(app, "WhiteboardPushStarted", 1, current, time.Now().Add(time.Minute)), genuine},
		{"of another application", tiwtest.Callback(app+1, "WhiteboardPushStarted", 1, current, time.Now().Add(time.Minute)), forged},
		{"published vector", []byte(`{"SdkAppId":1400000001,"ExpireTime":1588040109,"Sign":"a2dabb362a9b811c0e26953a6276a41c"}`), forged},

		{"space around", []byte(" \r\n\t" + genuineBody + "\n "), genuine},
		{"the longest", padded(genuineBody, maxBody), genuine},
		{"too long by one", padded(genuineBody, maxBody+1), tooLong},

		{"empty", nil, malformed},
		{"no JSON", []byte("hello"), malformed},
		{"cut off", []byte(genuineBody[:len(genuineBody)-1]), malformed},
		{"text behind the end", []byte(genuineBody + "x"), malformed},
		{"sent twice in one", []byte(genuineBody + genuineBody), malformed},
		{"a list", []byte("[" + genuineBody + "]"), malformed},
		{"null", []byte("null"), malformed},
		{"a string", []byte(`"{"`), malformed},
		{"a number", []byte("1"), malformed},
		{"single quotes", []byte(strings.ReplaceAll(genuineBody, `"`, "'")), malformed},
		{"an empty object", []byte("{}"), unfit},

		{"nested without end", []byte(strings.Repeat("[", 100_000)), malformed},
		{"nested without end in an object", []byte(`{"a":` + strings.Repeat("[", 100_000)), malformed},
		{"nested deeply in EventData", fields{EventData: deep}.signed(), survived},
		{"nested deeply in Sign", fields{Sign: deep}.signed(), unfit},
		{"nested deeply in SdkAppId", fields{SdkAppId: deep}.signed(), unfit},
		{"nested deeply in ExpireTime", fields{ExpireTime: deep}.signed(), unfit},
		{"a hundred thousand numbers", fields{EventData: "[" + strings.Repeat("1.5,", 100_000) + "-2e-3]"}.signed(), genuine},
		{"a hundred thousand times the same name", fields{EventData: "[" + strings.Repeat(`{"ExpireTime":1},`, 50_000) + "0]"}.signed(), genuine},
		{"a hundred thousand escapes", fields{EventData: `"` + strings.Repeat(`\u4e2d\"\\`, 50_000) + `"`}.signed(), genuine},
		{"a number of a million digits", fields{EventData: strings.Repeat("7", 1_000_000)}.signed(), survived},
		{"bytes that are no UTF-8", fields{EventData: "\"\xff\xfe\""}.signed(), survived},

		// What is written elsewhere in the body is not mistaken for the members that are signed.
		{"the names elsewhere", fields{EventData: `{"ExpireTime":1,"SdkAppId":[2],"Sign":null,"a":"\"ExpireTime\":7.5,\\","b\\":"\"SdkAppId\": 1"}`}.signed(), genuine},
		{"a float of that name elsewhere", fields{EventData: `{"ExpireTime":1.5}`}.signed(), survived},
		{"an integer elsewhere", fields{ExpireTime: future() + ".0", EventData: `{"ExpireTime":` + future() + `}`}.signed(), unfit},
		{"an integer behind an escape", fields{ExpireTime: future() + ".0", EventData: `0,"\tExpireTime":` + future()}.signed(), unfit},
		{"a float under an escaped name", bytes.Replace(fields{ExpireTime: future() + ".0"}.signed(), []byte("ExpireTime"), []byte(`\u0045xpireTime`), 1), unfit},
		{"an integer in a string", fields{ExpireTime: future() + ".0", EventData: `"\"ExpireTime\":` + future() + `"`}.signed(), unfit},
	}
	for _, sign := range badSigns() {
		list = append(list, want{"Sign " + sign, fields{Sign: sign}.signed(), unfit})
	}
	for _, name := range []string{"SdkAppId", "ExpireTime"} {
		for _, number := range badNumbers(map[string]string{"SdkAppId": appText, "ExpireTime": future()}[name]) {
			f := fields{SdkAppId: number}
			if name == "ExpireTime" {
				f = fields{ExpireTime: number}
			}
			for _, over := range signedOver(f) {
				f.Sign = `"` + sign(current, over) + `"`
				list = append(list, want{name + " " + number + " signed over " + over, f.signed(), unfit})
			}
		}
	}
	return list
}

const deepLevels = 50_000

var deep = strings.Repeat("[", deepLevels) + strings.Repeat("]", deepLevels)

// fields is a callback, member by member, each as JSON text; absent leaves a member away and
// "" gives the genuine one.
type fields struct{ SdkAppId, ExpireTime, Sign, EventData string }

const absent = "absent"

func (f fields) signed() []byte {
	var b bytes.Buffer
	add := func(name, value, usual string) {
		if value == "" {
			value = usual
		}
		if value != absent {
			fmt.Fprintf(&b, `,%q:%s`, name, value)
		}
	}
	add("SdkAppId", f.SdkAppId, appText)
	add("ExpireTime", f.ExpireTime, future())
	add("Sign", f.Sign, `"`+sign(current, future())+`"`)
	add("EventData", f.EventData, "{}")
	return []byte("{" + strings.TrimPrefix(b.String(), ",") + "}")
}

// started is read once, so that all parts of a callback name the same second.
var started = time.Now()

func future() string { return fmt.Sprint(started.Add(time.Hour).Unix()) }

// sign is tiwtest.Sign for an ExpireTime that is no integer.
func sign(key, expireTime string) string {
	sum := md5.Sum([]byte(key + expireTime)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

func padded(body string, size int) []byte {
	return []byte(strings.Repeat(" ", size-len(body)) + body)
}

func badSigns() []string {
	s := sign(current, future())
	return []string{absent, "null", "true", "false", "0", "1e1", "[]", "{}", `["` + s + `"]`, `{"0":"` + s + `"}`, `""`,
		`"` + strings.ToUpper(s) + `"`, `"` + s + `\n"`, `" ` + s + `"`, `"` + s + `\u0000"`, `"` + s[:31] + `"`, `"` + s + `0"`,
		`"` + s + s + `"`, `"` + sign("", future()) + `"`, `"ü` + s[1:] + `"`, `"\ud800` + s[1:] + `"`, `"` + current + `"`}
}

// badNumbers is what must not pass for the integer n, though some languages take it for n.
func badNumbers(n string) []string {
	return []string{absent, "null", "true", "false", `"` + n + `"`, `""`, "[" + n + "]", `{"a":` + n + "}", "[]", "{}",
		n + ".0", n + ".5", n + ".0000000001", n + "e0", n + "E+0", n + "0e-1", "1.0", "1e10", "-" + n, "0", "-0",
		strings.Repeat("9", 30), "18446744073709551616", "1e400", n + "00000000000000000000000000000e-29", `"` + n + ` "`}
}

// signedOver is what careless code might sum up instead of the decimal ExpireTime.
func signedOver(f fields) []string {
	n := future()
	switch f.ExpireTime {
	case "":
		return []string{n}
	case absent:
		return []string{n, "", "null", "None", "undefined"}
	}
	text := strings.Trim(f.ExpireTime, `"`)
	java := n[:1] + "." + strings.TrimRight(n[1:], "0") + fmt.Sprint("E", len(n)-1)
	return []string{n, text, "", "1", "None", "True", "Array", "10000000000", n + ".0", java, "1e+30", "9223372036854775807", "18446744073709551616"}
}
