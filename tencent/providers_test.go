package tencent

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
)

// cloud stands for Tencent's STS and the machine's metadata service, which the SDK's
// providers ask at fixed addresses: every request of the process goes to it.
func cloud(t *testing.T, handler http.HandlerFunc) {
	t.Helper()
	s := httptest.NewServer(handler)
	oldClient, oldTransport := common.DefaultHttpClient, http.DefaultTransport
	to := toServer{s.Listener.Addr().String(), &http.Transport{DisableKeepAlives: true}}
	common.DefaultHttpClient, http.DefaultTransport = &http.Client{Transport: to}, to
	t.Cleanup(func() {
		common.DefaultHttpClient, http.DefaultTransport = oldClient, oldTransport
		s.Close()
	})
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
	cloud(t, func(w http.ResponseWriter, r *http.Request) {
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
		c, err := ParseCredentials(spec, func(name string) string { return env[name] }, nil)
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
