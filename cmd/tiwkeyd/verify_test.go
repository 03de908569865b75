package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/file"
	"tiwkeyd/webhook"
)

// verdictOf runs `verify` with a body on its standard input. What it prints is searched for
// secrets with all the rest.
func (r *rig) verdictOf(body string, args []string, env ...string) (out, complaint string, code int) {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"verify"}, args...)...)
	cmd.Env = append(append(append([]string{}, r.env...), noRaceSleep, "TIWKEYD_LOG_LEVEL=info"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(body), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.outputs = append(r.outputs, &output{b: *bytes.NewBuffer(append(bytes.Clone(stdout.Bytes()), stderr.Bytes()...))}, &output{b: *bytes.NewBufferString(strings.Join(cmd.Args, " "))})
	r.mu.Unlock()
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// verified checks one verdict, in words and as JSON, which must say the same.
func (r *rig) verified(name, body string, args []string, env []string, code int, reason webhook.Reason, words ...string) verdict {
	r.t.Helper()
	out, complaint, got := r.verdictOf(body, args, env...)
	head := "genuine\n"
	if reason != "" {
		head = "refused: " + string(reason) + "\n"
	}
	if got != code || !strings.HasPrefix(out, head) || strings.Count(out, uncovered) != 1 {
		r.t.Errorf("%s: exit status %d\n%s%s", name, got, out, complaint)
	}
	if want := "tiwkeyd: the callback would be refused: " + string(reason); (complaint != "") != (code != 0) || (code != 0 && !strings.HasSuffix(strings.TrimSpace(complaint), want)) {
		r.t.Errorf("%s: it complains:\n%s", name, complaint)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			r.t.Errorf("%s: %q is not in:\n%s", name, w, out)
		}
	}
	asJSON, _, got := r.verdictOf(body, append([]string{"--json"}, args...), env...)
	var v verdict
	d := json.NewDecoder(strings.NewReader(asJSON))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || got != code || v.Genuine != (reason == "") || v.Reason != string(reason) || len(v.Words) == 0 || v.Words[len(v.Words)-1] != uncovered || v.At.IsZero() {
		r.t.Errorf("%s: %d, %v\n%s", name, got, err, asJSON)
	}
	return v
}

// TestVerify has the keys in the file store and in key files.
func TestVerify(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	current, pending, previous, transcode, never := r.newKey(), r.newKey(), r.newKey(), r.newKey(), r.newKey()
	previousEntry := entry(previous, rotator.Previous)
	keyring, err := r.put(testTarget, entry(current, rotator.Current), entry(pending, rotator.Pending), previousEntry).Encode()
	if err != nil {
		t.Fatal(err)
	}
	other := secrets.Target{SdkAppID: testTarget.SdkAppID, Service: secrets.Transcode}
	r.put(other, entry(transcode, rotator.Current))
	large := secrets.Target{SdkAppID: 1<<53 + 1, Service: secrets.WhiteboardPush}
	r.put(large, entry(current, rotator.Current))
	unsigned := secrets.Target{SdkAppID: 1400000005, Service: secrets.WhiteboardPush}
	if _, err := r.store.Write(t.Context(), unsigned, &rotator.Keyring{Target: unsigned, AcceptUnsigned: true}, 0); err != nil {
		t.Fatal(err)
	}
	lines := writeFile(t, previous.Reveal()+"\n"+current.Reveal()+"\n")
	rendered := writeFile(t, string(keyring))
	stored := filepath.Join(strings.TrimPrefix(fmt.Sprint(r.store), "file://"), fmt.Sprint(testTarget.SdkAppID), string(testTarget.Service)+".json")

	app := testTarget.SdkAppID
	expire := time.Now().Add(time.Hour).Truncate(time.Second)
	at := "--at=" + expire.Add(-10*time.Minute).Format(time.RFC3339)
	accepted := "accepted until " + previousEntry.AcceptUntil.UTC().Format(time.RFC3339)
	good := r.signed(app, current, expire)
	for _, c := range []struct {
		name, body    string
		args          []string
		env           string
		reason        webhook.Reason
		target, state string
		id            string
		words         []string
	}{
		{"current", good, nil, "", "", testTarget.String(), "current", current.ID(), []string{"It was signed with key " + current.ID() + " of " + testTarget.String() + ", the current one.", "It expires in "}},
		{"pending", r.signed(app, pending, expire), nil, "", "", testTarget.String(), "pending", pending.ID(), []string{", the pending one."}},
		{"previous", r.signed(app, previous, expire), nil, "", "", testTarget.String(), "previous", previous.ID(), []string{", the previous one, " + accepted}},
		{"as of a time", good, []string{at}, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in 10m0s, at " + expire.UTC().Format(time.RFC3339)}},
		{"at the last moment", good, []string{"--at", expire.Format(time.RFC3339)}, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in 0s"}},
		{"a fraction later", good, []string{"--at", expire.Add(999 * time.Millisecond).Format(time.RFC3339Nano)}, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in 0s"}},
		{"a second later", good, []string{"--at", expire.Add(time.Second).Format(time.RFC3339)}, "", webhook.Expired, testTarget.String(), "current", current.ID(), []string{"It expired 1s ago, at " + expire.UTC().Format(time.RFC3339), "check this machine's clock", "signed with key " + current.ID()}},
		{"a century late", good, []string{"--at", "9999-12-31T23:59:59Z"}, "", webhook.Expired, testTarget.String(), "current", current.ID(), []string{"It expired more than a century ago"}},
		{"before there was time", good, []string{"--at", "0001-01-02T00:00:00Z"}, "", "", testTarget.String(), "current", current.ID(), nil},
		{"in 292 years and more", r.signed(app, current, time.Unix(1<<36, 0)), nil, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in the distant future."}},
		{"beyond what JSON has", r.signed(app, current, time.Unix(1<<63-1, 0)), nil, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in the distant future."}},
		{"beyond the year 9999, judged then", r.signed(app, current, time.Unix(253402300799+10, 0)), []string{"--at", "9999-12-31T23:59:59Z"}, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in the distant future."}},
		{"in 1970", r.signed(app, current, time.Unix(0, 0)), nil, "", webhook.Expired, testTarget.String(), "current", current.ID(), []string{"at 1970-01-01T00:00:00Z"}},
		{"the service asked for", good, []string{testTarget.String()}, "TIWKEYD_TARGETS=7", "", testTarget.String(), "current", current.ID(), nil},
		{"another service", r.signed(app, transcode, expire), nil, "TIWKEYD_TARGETS=7", "", other.String(), "current", transcode.ID(), nil},
		{"another service, which is not asked for", r.signed(app, transcode, expire), []string{testTarget.String()}, "", webhook.BadSignature, "", "", "", []string{"None of the keys accepted now explains its Sign: [" + current.ID() + " " + pending.ID() + " " + previous.ID() + "]", "this place does not keep"}},
		{"another service, which is not served", r.signed(app, transcode, expire), nil, "", webhook.BadSignature, "", "", "", nil},
		{"two services served", r.signed(app, transcode, expire), nil, "TIWKEYD_TARGETS=" + testTarget.String() + "," + other.String(), "", other.String(), "current", transcode.ID(), nil},
		{"never ours", r.signed(app, never, expire), nil, "", webhook.BadSignature, "", "", "", []string{"Either it was signed with a key that was retired", "never been ours", "It expires in "}},
		{"never ours, and expired", r.signed(app, never, expire), []string{"--at", expire.Add(time.Hour).Format(time.RFC3339)}, "", webhook.BadSignature, "", "", "", []string{"It expired 1h0m0s ago"}},
		{"unsigned", r.signed(app, secrets.Key{}, expire), nil, "", webhook.Unsigned, "", "", "", []string{"It has no Sign."}},
		{"unsigned, of an application without a key", r.signed(unsigned.SdkAppID, secrets.Key{}, expire), nil, "", webhook.Unsigned, "", "", "", []string{unsigned.String() + " has no key yet", "It has no Sign."}},
		{"neither signed nor with an ExpireTime", strings.Replace(r.signed(unsigned.SdkAppID, secrets.Key{}, expire), "ExpireTime", "x", 1), nil, "", webhook.Unsigned, "", "", "", []string{unsigned.String() + " has no key yet", "It has no Sign.", "It has no ExpireTime."}},
		{"signed, of an application without a key", r.signed(unsigned.SdkAppID, never, expire), nil, "", webhook.BadSignature, "", "", "", []string{"explains its Sign: []"}},
		{"beyond what JSON has, judged before there was time", r.signed(app, current, time.Unix(1<<63-1, 0)), []string{"--at", "0001-01-02T00:00:00Z"}, "", "", testTarget.String(), "current", current.ID(), []string{"It expires in the distant future."}},
		{"no keyring", r.signed(7, current, expire), nil, "", webhook.WrongApplication, "", "", "", []string{"There is no keyring of SdkAppId 7 at file store /"}},
		{"of another application", good, []string{"7"}, "", webhook.WrongApplication, "", "", "", []string{"It is of SdkAppId 1400000001, not of 7."}},
		{"malformed", `{"Sign":"` + never.Reveal() + `"`, nil, "", webhook.Malformed, "", "", "", []string{"It is not a callback: it is not JSON."}},
		{"empty", "", nil, "", webhook.Malformed, "", "", "", nil},
		{"a repeated name", strings.Replace(good, `"Sign"`, `"SdkAppId":1,"Sign"`, 1), nil, "", webhook.Malformed, "", "", "", []string{"a name in the JSON is repeated"}},
		{"from a file", "not this", []string{"--file", writeFile(t, good)}, "", "", testTarget.String(), "current", current.ID(), nil},
		{"above 2^53", r.signed(large.SdkAppID, current, expire), nil, "", "", large.String(), "current", current.ID(), []string{"of 9007199254740993/whiteboard-push"}},
		{"just beside it", r.signed(large.SdkAppID-1, current, expire), nil, "", webhook.WrongApplication, "", "", "", []string{"SdkAppId 9007199254740992"}},
		{"keys one a line", good, []string{"--key-file", lines}, "TIWKEYD_STORE=nonsense", "", "1400000001", "", "line-2", []string{"with key line-2 of 1400000001."}},
		{"keys one a line, never ours", r.signed(app, never, expire), []string{"--key-file", lines}, "", webhook.BadSignature, "", "", "", []string{"[line-1 line-2]", "this place does not keep"}},
		{"a rendered keyring", r.signed(app, previous, expire), []string{"--key-file", rendered}, "", "", testTarget.String(), "previous", previous.ID(), []string{accepted}},
		{"a rendered keyring and its target", r.signed(app, pending, expire), []string{"--key-file", rendered, testTarget.String()}, "", "", testTarget.String(), "pending", pending.ID(), nil},
		{"a file of the file store", good, []string{"--key-file", stored}, "", "", testTarget.String(), "current", current.ID(), []string{", the current one."}},
	} {
		code := 0
		if c.reason != "" {
			code = exitRefused
		}
		v := r.verified(c.name, c.body, c.args, []string{c.env}, code, c.reason, c.words...)
		if v.Target != c.target || v.KeyState != c.state || v.KeyID != c.id {
			t.Errorf("%s: %+v", c.name, v)
		}
		if says := strings.Contains(strings.Join(v.Words, " "), "no key yet"); says != (strings.HasPrefix(c.name, "unsigned, of an app") || strings.HasPrefix(c.name, "neither signed")) {
			t.Errorf("%s: it says that there is no key yet: %v", c.name, says)
		}
		if c.reason != webhook.Malformed && (v.SdkAppID == 0 || v.EventType != "WhiteboardPushStarted") {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
	v := r.verified("the JSON's members", good, []string{at}, nil, 0, "")
	if v.ExpireTime == nil || !v.ExpireTime.Equal(expire) || !v.At.Equal(expire.Add(-10*time.Minute)) || v.SdkAppID != app {
		t.Errorf("%+v", v)
	}
}

// TestVerifyWrongUsage has exit status 2, and 4 where the keys cannot be read.
func TestVerifyWrongUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	keyring, err := r.put(testTarget, entry(k, rotator.Current)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := r.fresh(testTarget.SdkAppID, k)
	missing := filepath.Join(t.TempDir(), "none")
	damaged := strings.TrimPrefix(fmt.Sprint(r.store), "file://")
	if _, err := file.Open(damaged); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(damaged, "9"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "9", "whiteboard-push.json"), []byte(`{"version":1,"keyring":{"accept":7,"x":"`+k.Reveal()+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.put(secrets.Target{SdkAppID: 9, Service: secrets.VideoGeneration}, entry(k, rotator.Current))
	for _, c := range []struct {
		body string
		args []string
		env  string
		code int
		want string
	}{
		{good, []string{"--at", "yesterday"}, "", exitUsage, `--at "yesterday" is not a time`}, {good, []string{"x"}, "", exitUsage, `target "x"`}, {good, []string{"7/chat"}, "", exitUsage, "whiteboard-push"},
		{good, []string{"1", "2"}, "", exitUsage, "arg(s)"}, {good, []string{"--odd"}, "", exitUsage, "--odd"}, {good, []string{"--file", missing}, "", exitUsage, "--file: open"},
		{good, nil, "TIWKEYD_STORE=ftp://x", exitUsage, "TIWKEYD_STORE"}, {good, nil, "TIWKEYD_STORE=vault", exitUsage, "log in to Vault"}, {good, nil, "TIWKEYD_TARGETS=x", exitUsage, "TIWKEYD_TARGETS"},
		{strings.Repeat(" ", 1<<20+1), nil, "", exitUsage, "the callback is longer than 1048576 bytes"}, {good, []string{"--file", t.TempDir()}, "", exitUsage, "read the callback"},
		{good, []string{"--key-file", missing}, "", exitUnsettled, "read the keys: open " + missing}, {good, []string{"--key-file", missing, testTarget.String()}, "", exitUnsettled, "read the keys: open " + missing},
		{good, []string{"--key-file", writeFile(t, "")}, "", exitUnsettled, "there is no key in it"}, {good, []string{"--key-file", writeFile(t, "not a key")}, "", exitUnsettled, "line 1 is not a key"},
		{good, []string{"--key-file", writeFile(t, strings.Replace(string(keyring), "1400000001", "1400000009", 1))}, "", exitUnsettled, "it belongs to SdkAppId 1400000009"},
		{good, []string{"--key-file", writeFile(t, strings.Replace(string(keyring), "whiteboard-push", "transcode", 1)), testTarget.String()}, "", exitUnsettled, "it belongs to another service"},
		{r.fresh(9, r.newKey()), []string{}, "", exitUnsettled, "it is not the JSON of a keyring"},
	} {
		out, complaint, code := r.verdictOf(c.body, c.args, c.env)
		if code != c.code || out != "" || !strings.Contains(complaint, c.want) || !strings.HasPrefix(complaint, "tiwkeyd: ") {
			t.Errorf("%v %s: %d\n%s%s", c.args, c.env, code, out, complaint)
		}
	}
	// A keyring that cannot be read does not matter where another one explains the callback.
	r.verified("beside a damaged keyring", r.fresh(9, k), nil, nil, 0, "", "of 9/video-generation, the current one")
	if n, err := strconv.Atoi("1048576"); err != nil || n != webhook.DefaultMaxBody {
		t.Error("the limit is another")
	}
	r.verified("just short enough", good+strings.Repeat(" ", webhook.DefaultMaxBody-len(good)), nil, nil, 0, "")
}
