//go:build sdk

package tiwtest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sdkDir gives the folder with Tencent's own SDKs of the versions in sdk/package-lock.json, which are kept in the user's cache.
func sdkDir(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("sdk/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "tiwkeyd", "node-sdks-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("there is no %s to call Tencent's SDKs with: apt-get install nodejs npm", program)
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "node-sdks-part-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(part) }()
	if err := os.CopyFS(part, os.DirFS("sdk")); err != nil {
		t.Fatal(err)
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = part
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("%s cannot fetch Tencent's SDKs (100 MB): mend what it says, and run `make sdk` again\n%v\n%s", npm, err, out)
	}
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // nobody else was quicker
			t.Fatal(err)
		}
	}
	return dir
}

// sdkCall is one call, as sdk/calls.js reads it.
type sdkCall struct {
	SDK      string         `json:"sdk"`
	ID       string         `json:"id"`
	Key      string         `json:"key"`
	Token    string         `json:"token"`
	Region   string         `json:"region"`
	Endpoint string         `json:"endpoint"`
	Timeout  int            `json:"timeout"` // seconds
	Action   string         `json:"action"`
	Params   map[string]any `json:"params"`
}

// sdkResult is what an SDK made of the answer.
type sdkResult struct {
	Answer map[string]any
	Error  *struct {
		Code, Message, RequestID string
		HTTPCode                 int
	}
}

// sdkProcess calls the server with the SDKs.
type sdkProcess struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func startSDKs(t *testing.T) *sdkProcess {
	t.Helper()
	node := exec.CommandContext(t.Context(), "node", "sdk/calls.js", sdkDir(t))
	node.Stderr = os.Stderr
	node.Env = []string{"PATH=" + os.Getenv("PATH")} // a proxy's variables would lead elsewhere
	in, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatalf("there is no Node to call Tencent's SDKs with (%v): apt-get install nodejs npm", err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = node.Wait() })
	return &sdkProcess{t, in, bufio.NewScanner(out)}
}

func (p *sdkProcess) call(c sdkCall) (r sdkResult) {
	p.t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("Node says no more: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		p.t.Fatalf("%v: %s", err, p.out.Text())
	}
	return r
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// sites are Tencent's SDKs: each is of a site, and knows its services.
var sites = map[string]struct {
	endpoint, region string
	services         int
}{
	"mainland": {"tiw.tencentcloudapi.com", "ap-guangzhou", 5},
	"intl":     {"tiw.intl.tencentcloudapi.com", "ap-singapore", 4},
}

const sdkKey = "Xz4ZgayTr7rMgWQrHXz4ZgayTr7rMgWQrHXz4ZgayTr7rMgWQrHXz4ZgayTr7rMg"

// TestOfficialSDKs: what Tencent's own SDKs make of our answers is what we meant.
func TestOfficialSDKs(t *testing.T) {
	p := startSDKs(t)
	for sdk, site := range sites {
		server := func(o Options) (*Server, sdkCall) {
			s, err := Start(o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			s.AddCredential("AKIDtest", "CANARYsecretkey", "a-token")
			s.AddApp(senderApp)
			_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
			return s, sdkCall{SDK: sdk, ID: "AKIDtest", Key: "CANARYsecretkey", Token: "a-token", Region: site.region, Endpoint: site.endpoint + ":" + port, Timeout: 60}
		}
		s, base := server(Options{Site: sdk, Rate: -1})
		set := func(action, key string, change ...func(*sdkCall)) sdkResult {
			c := base
			c.Action, c.Params = action, map[string]any{"SdkAppId": senderApp, "CallbackKey": key}
			for _, f := range change {
				f(&c)
			}
			return p.call(c)
		}
		describe := func(action string) sdkResult {
			c := base
			c.Action, c.Params = action, map[string]any{"SdkAppId": senderApp}
			return p.call(c)
		}
		good := func(r sdkResult) bool { return r.Error == nil && uuid.MatchString(r.Answer["RequestId"].(string)) }

		services := 0
		for _, pair := range calls {
			if pair.verb != "Set" || pair.service == "ppt-check" && sdk == "intl" {
				continue
			}
			services++
			var read string
			for _, other := range calls {
				if other.verb == "Describe" && other.service == pair.service {
					read = other.api
				}
			}
			for _, key := range []string{sdkKey, ""} { // "" deletes it
				if r := set(pair.api, key); !good(r) || s.KeyInForce(senderApp, pair.service) != key {
					t.Errorf("%s: %s: %+v, %+v", sdk, pair.api, r.Answer, r.Error)
				}
				if r := describe(read); !good(r) || r.Answer["CallbackKey"] != key || r.Answer["Callback"] != "" {
					t.Errorf("%s: %s: %+v, %+v", sdk, read, r.Answer, r.Error)
				}
			}
		}
		if services != site.services {
			t.Errorf("%s: %d services", sdk, services)
		}

		if t.Failed() {
			return // nothing that follows would be understood
		}
		const api, service = "SetWhiteboardPushCallbackKey", "whiteboard-push"
		refused := func(name, code string, r sdkResult) {
			t.Helper()
			if r.Error == nil || r.Error.Code != code || r.Error.Message == "" || !uuid.MatchString(r.Error.RequestID) || r.Error.HTTPCode != 0 {
				t.Errorf("%s: %s: %+v, %+v", sdk, name, r.Answer, r.Error)
			}
		}
		for name, c := range map[string]struct {
			code   string
			change func(*sdkCall)
		}{
			"wrong key":   {"AuthFailure.SignatureFailure", func(c *sdkCall) { c.Key = "another" }},
			"unknown id":  {"AuthFailure.SecretIdNotFound", func(c *sdkCall) { c.ID = "AKIDother" }},
			"wrong token": {"AuthFailure.TokenFailure", func(c *sdkCall) { c.Token = "another" }},
			"the other site": {"UnsupportedRegion", func(c *sdkCall) {
				c.Region = map[string]string{"intl": "ap-guangzhou", "mainland": "ap-singapore"}[sdk]
			}},
			"another's application": {"UnauthorizedOperation.SdkAppId", func(c *sdkCall) { c.Params["SdkAppId"] = 1400000002 }},
			"text for the SdkAppId": {"InvalidParameter.BodyParameterTypeUnmatched", func(c *sdkCall) { c.Params["SdkAppId"] = "1400000001" }},
			"too long":              {"InvalidParameter", func(c *sdkCall) { c.Params["CallbackKey"] = sdkKey + "x" }},
			"without a CallbackKey": {"MissingParameter", func(c *sdkCall) { delete(c.Params, "CallbackKey") }},
		} {
			refused(name, c.code, set(api, sdkKey, c.change))
		}
		now := time.Now()
		_, often := server(Options{Site: sdk, Rate: 1, Now: func() time.Time { return now }})
		often.Action, often.Params = api, map[string]any{"SdkAppId": senderApp, "CallbackKey": ""}
		if r := p.call(often); !good(r) {
			t.Errorf("%s: %+v", sdk, r.Error)
		}
		refused("twice in the second of one", "RequestLimitExceeded", p.call(often))

		met := map[Kind]bool{}
		for _, c := range []struct {
			fault   Fault
			applied bool
			code    string
			http    int
			says    string // "": it succeeds
		}{
			{Refuse("ResourceUnavailable.ServiceExpired"), false, "ResourceUnavailable.ServiceExpired", 0, "as planned"},
			{Delay(time.Millisecond), true, "", 0, ""},
			{Drop(), false, "", 0, "socket hang up"},
			{ApplyThenDrop(), true, "", 0, "socket hang up"},
			{DropThenApply(time.Millisecond), true, "", 0, "socket hang up"},
			{Garbage(), true, "", 0, "invalid json"},
			{HTTPError(), false, "", 502, "Bad Gateway"},
			{SlowLoris(), true, "", 0, "timeout"},
			{ApplyThenError(), true, "InternalError", 0, "as planned"},
			{WrongShape(), true, "", 0, "undefined"},
		} {
			met[c.fault.Kind] = true
			s.SetKey(senderApp, service, "the one before")
			applied := make(chan struct{}, 1)
			s.OnApply(func(a Applied) {
				if a.Key == sdkKey {
					select {
					case applied <- struct{}{}:
					default:
					}
				}
			})
			s.Plan(api, senderApp, c.fault)
			r := set(api, sdkKey, func(call *sdkCall) {
				if c.fault.Kind == KindSlowLoris {
					call.Timeout = 3
				}
			})
			switch {
			case c.says == "":
				if !good(r) {
					t.Errorf("%s: %s: %+v", sdk, c.fault, r.Error)
				}
			case c.code != "":
				refused(c.fault.String(), c.code, r)
			case r.Error == nil || !strings.Contains(r.Error.Message, c.says) || r.Error.HTTPCode != c.http || r.Error.RequestID != "":
				t.Errorf("%s: %s: %+v, %+v", sdk, c.fault, r.Answer, r.Error)
			}
			if c.applied {
				select {
				case <-applied:
				case <-time.After(time.Minute):
					t.Fatalf("%s: %s: it is not applied", sdk, c.fault)
				}
			} else if s.KeyInForce(senderApp, service) != "the one before" {
				t.Errorf("%s: %s: it is applied", sdk, c.fault)
			}
		}
		for _, kind := range Kinds() {
			if !met[kind] {
				t.Errorf("no SDK has met the fault %s", kind)
			}
		}
		if r := set(api, sdkKey); !good(r) {
			t.Errorf("%s: after all the faults: %+v", sdk, r.Error)
		}
	}
}
