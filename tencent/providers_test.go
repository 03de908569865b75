package tencent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
)

// cloud stands for Tencent's STS and the machine's metadata service, which the SDK's
// providers ask at fixed addresses: every request of the process goes to it.
func cloud(t *testing.T, handler http.HandlerFunc) *metadata {
	t.Helper()
	s := httptest.NewServer(handler)
	oldClient, oldTransport := common.DefaultHttpClient, http.DefaultTransport
	to := toServer{s.Listener.Addr().String(), &http.Transport{DisableKeepAlives: true}}
	common.DefaultHttpClient, http.DefaultTransport = &http.Client{Transport: to}, to
	t.Cleanup(func() {
		common.DefaultHttpClient, http.DefaultTransport = oldClient, oldTransport
		s.Close()
	})
	return &metadata{url: s.URL + "/latest/meta-data/cam/security-credentials/", client: s.Client()}
}

type toServer struct {
	addr string
	base *http.Transport
}

func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Meant-For", r.URL.Host)
	r.URL.Scheme, r.URL.Host = "http", s.addr
	return s.base.RoundTrip(r)
}

// TestProviders has each of the SDK's sources of a credential give one.
func TestProviders(t *testing.T) {
	machine := cloud(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var params map[string]any
		_ = json.Unmarshal(body, &params)
		role, _ := params["RoleArn"].(string)
		give := func(id string) {
			_, _ = fmt.Fprintf(w, `{"Response":{"Credentials":{"Token":"tok","TmpSecretId":%q,"TmpSecretKey":"CANARYkey"},"ExpiredTime":4000000000,"RequestId":"r"}}`, id)
		}
		switch action := r.Header.Get("X-TC-Action"); {
		case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
			_, _ = io.WriteString(w, "the-role")
		case strings.HasSuffix(r.URL.Path, "/security-credentials/the-role"):
			_, _ = io.WriteString(w, `{"TmpSecretId":"cvm","TmpSecretKey":"CANARYkey","ExpiredTime":4000000000,"Token":"tok","Code":"Success"}`)
		case action == "AssumeRole" && strings.Contains(r.Header.Get("Authorization"), "Credential=base/"):
			give("sts " + role)
		case action == "AssumeRoleWithWebIdentity" && params["WebIdentityToken"] == "pod-token" && r.Header.Get("Authorization") != "":
			give("tke " + role)
		default:
			_, _ = fmt.Fprintf(w, `{"Response":{"Error":{"Code":"UnauthorizedOperation","Message":"not for %s"},"RequestId":"r-4"}}`, action)
		}
	})
	home := t.TempDir()
	t.Setenv("HOME", home)
	write := func(path, text string) string {
		t.Helper()
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	get := func(spec string, env map[string]string) (Credential, error) {
		t.Helper()
		c, err := parseCredentials(spec, func(name string) string {
			if name == "HOME" {
				return home
			}
			return env[name]
		}, nil, machine.fetch)
		if err != nil {
			t.Fatal(err)
		}
		return c.Get(t.Context())
	}
	base := map[string]string{"TENCENTCLOUD_SECRET_ID": "base", "TENCENTCLOUD_SECRET_KEY": "CANARYkey"}
	const arn = "qcs::cam::uin/1:roleName/r"
	want := func(spec string, env map[string]string, id string) {
		t.Helper()
		if c, err := get(spec, env); err != nil || c.id != id {
			t.Errorf("%s gives %q, %v", spec, c.id, err)
		}
	}
	want("auto", nil, "cvm") // nothing else is there
	want("cvm-role", nil, "cvm")
	want("sts:"+arn, base, "sts "+arn)
	write(".tencentcloud/credentials", "[default]\nsecret_id = profile\nsecret_key = CANARYkey\n")
	want("profile", nil, "profile")
	want("auto", nil, "profile")
	for name, value := range map[string]string{"TKE_REGION": "ap-guangzhou", "TKE_PROVIDER_ID": "p", "TKE_WEB_IDENTITY_TOKEN_FILE": write("pod-token", "pod-token"), "TKE_ROLE_ARN": arn} {
		t.Setenv(name, value)
	}
	tke := map[string]string{"TKE_ROLE_ARN": arn}
	want("tke-oidc", tke, "tke "+arn)
	want("auto", tke, "tke "+arn)
	podToken := os.Getenv("TKE_WEB_IDENTITY_TOKEN_FILE")
	for mode, says := range map[os.FileMode]string{0o644: "TKE_WEB_IDENTITY_TOKEN_FILE: " + podToken + " can be read by others", 0o660: "chmod go-w", 0o600: ""} {
		if err := os.Chmod(podToken, mode); err != nil {
			t.Fatal(err)
		}
		_, err := get("tke-oidc", map[string]string{"TKE_ROLE_ARN": arn, "TKE_WEB_IDENTITY_TOKEN_FILE": podToken})
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("a pod's token of mode %04o: %v", mode, err)
		}
	}
	base["TKE_ROLE_ARN"] = arn
	want("auto", base, "base")

	base["TENCENTCLOUD_SECRET_ID"] = "stranger"
	if _, err := get("sts:"+arn, base); err == nil || !strings.Contains(err.Error(), "UnauthorizedOperation: not for AssumeRole; RequestId r-4") {
		t.Errorf("a role that may not be assumed: %v", err)
	}
	write(".tencentcloud/credentials", "[default]\nsecret_id = profile\nsecret_key CANARYkey\n")
	if _, err := get("profile", nil); err == nil || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("a profile that is broken: %v", err)
	}
	if _, err := get("tke-oidc", nil); err == nil || !strings.Contains(err.Error(), "TKE_ROLE_ARN") {
		t.Errorf("no pod: %v", err)
	}
}

// TestProfiles: a file that is no credentials file is an error with its name, whatever is wrong with it, and shows
// nothing of its content; `auto` goes on to what comes next.
func TestProfiles(t *testing.T) {
	t.Parallel()
	const good = "[default]\nsecret_id = me\nsecret_key = CANARYkey\n"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string // of the error; "" is success
		id   string
	}{
		"as it should be":   {good, 0o600, "", "me"},
		"with a token":      {good + "token = CANARYtoken\n", 0o400, "", "me"},
		"BOM":               {"\ufeff" + good, 0o600, "", "me"},
		"CRLF":              {strings.ReplaceAll(good, "\n", "\r\n"), 0o600, "", "me"},
		"no line break":     {strings.TrimSpace(good), 0o600, "", "me"},
		"quotes, comments":  {"# mine\n[default]\nsecret_id = \"me\"\nsecret_key = 'CANARYkey' # of June\n", 0o600, "", "me"},
		"no references":     {"[default]\nsecret_id = a%(secret_key)s\nsecret_key = CANARY$key;#\n", 0o600, "", "a%(secret_key)s"},
		"other sections":    {"[other]\nsecret_id = you\n" + good, 0o600, "", "me"},
		"empty":             {"", 0o600, "lacks secret_id or secret_key", ""},
		"only a comment":    {"# packaged\n", 0o600, "lacks secret_id", ""},
		"without [default]": {"secret_id = me\nsecret_key = CANARYkey\n", 0o600, "lacks secret_id", ""},
		"another section":   {strings.Replace(good, "default", "Default2", 1), 0o600, "[default]", ""},
		"half":              {"[default]\nsecret_id = me\nsecret_key =\n", 0o600, "lacks secret_id or secret_key", ""},
		"no separator":      {"[default]\nsecret_id = me\nsecret_key CANARYkey\n", 0o600, "cannot be read as a credentials file", ""},
		"half a section":    {"[default\nsecret_id = me\n", 0o600, "cannot be read as a credentials file", ""},
		"readable by all":   {good, 0o644, "chmod go=", ""},
		"writable by all":   {good, 0o602, "chmod go-w", ""},
		"UTF-16":            {"\xff\xfe[\x00d\x00", 0o600, "UTF-16", ""},
		"too long":          {good + strings.Repeat("#", maxProfile), 0o600, "larger than 1048576 bytes", ""},
	} {
		path := filepath.Join(t.TempDir(), "credentials")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
		env := func(name string) string { return map[string]string{"TENCENTCLOUD_CREDENTIALS_FILE": path}[name] }
		machine := func(context.Context) (Credential, error) { return NewCredential("machine", "CANARYkey", ""), nil }
		for spec, id := range map[string]string{"profile": c.id, "auto": cmp.Or(c.id, "machine")} {
			source, err := parseCredentials(spec, env, nil, machine)
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Get(t.Context())
			switch {
			case got.id != id || (err != nil) != (id == ""):
				t.Errorf("%s: %s gives %q, %v", name, spec, got.id, err)
			case err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "CANARY")):
				t.Errorf("%s: %v", name, err)
			case got.id == "me" && got.key != "CANARYkey":
				t.Errorf("%s: another SecretKey", name)
			}
		}
	}
	gone := filepath.Join(t.TempDir(), "none")
	if _, err := readProfile(gone); err == nil || !strings.Contains(err.Error(), "there is no "+gone) {
		t.Error(err)
	}
}

type broken struct{}

func (broken) GetCredential() (common.CredentialIface, error) { panic("CANARY") }

// TestBrokenProvider: a provider that breaks down is an error, which does not quote what it was at.
func TestBrokenProvider(t *testing.T) {
	t.Parallel()
	if _, err := fromProvider(broken{})(t.Context()); err == nil || !strings.Contains(err.Error(), "broke down") || strings.Contains(err.Error(), "CANARY") {
		t.Error(err)
	}
}

// TestFailureIsShared: many targets ask a source that gives nothing once, and again a moment later; who waited for the
// others until its own time was over asks nobody.
func TestFailureIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, fails := 0, true
		s := &source{name: "cvm-role", fetch: func(context.Context) (Credential, error) {
			if asked++; fails {
				return Credential{}, errors.New("nothing there")
			}
			return NewCredential("id", "CANARYkey", ""), nil
		}}
		for range 100 {
			if _, err := s.Get(t.Context()); err == nil {
				t.Error("a credential from nowhere")
			}
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(keepFailed)
		if _, err := s.Get(over); !errors.Is(err, context.Canceled) || asked != 1 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		fails = false
		if c, err := s.Get(t.Context()); err != nil || c.id != "id" || asked != 2 {
			t.Errorf("%v, asked %d times", err, asked)
		}
	})
}

// TestMetadata: the machine's role is asked for at a link-local address alone, and
// through no proxy.
func TestMetadata(t *testing.T) {
	t.Parallel()
	answers := map[string]string{"/": "role\n", "/role": `{"Code":"Success","TmpSecretId":"id","TmpSecretKey":"CANARYkey","Token":"CANARYtok"}`}
	var status atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	defer s.Close()
	m := &metadata{url: s.URL + "/", client: s.Client()}
	status.Store(http.StatusNotFound)
	if _, err := m.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "no role") {
		t.Error(err)
	}
	status.Store(http.StatusOK)
	if c, err := m.fetch(t.Context()); err != nil || c != NewCredential("id", "CANARYkey", "CANARYtok") {
		t.Error(err)
	}
	for path, bad := range map[string]string{"/": " ", "/role": `{"Code":"Failed","TmpSecretKey":"CANARY"}`} {
		was := answers[path]
		answers[path] = bad
		if _, err := m.fetch(t.Context()); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", path, err)
		}
		answers[path] = was
	}
	answers["/role"] = `{"TmpSecretKey":"` + strings.Repeat("CANARY", maxAnswer)
	if _, err := m.fetch(t.Context()); err == nil || len(err.Error()) > 1000 {
		t.Error("an answer without an end is read")
	}
	answers["/role"] = `{"TmpSecretKey":"CANARY`
	if _, err := m.fetch(t.Context()); err == nil || strings.Contains(err.Error(), "CANARY") {
		t.Error(err)
	}
	real := newMetadata()
	real.url = s.URL + "/"
	if _, err := real.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "no link-local address") {
		t.Errorf("it goes anywhere: %v", err)
	}
	if real.client.Transport.(*http.Transport).Proxy != nil {
		t.Error("it may go through a proxy")
	}
}
