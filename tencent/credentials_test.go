package tencent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerr "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"

	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

func TestCredentialNeverShows(t *testing.T) {
	t.Parallel()
	c := NewCredential("CANARYid", "CANARYkey", "CANARYtoken")
	type holder struct{ C Credential }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, c) + fmt.Sprintf(verb, &c) + fmt.Sprintf(verb, holder{c}); strings.Contains(got, "CANARY") || strings.Contains(got, "43414e415259") {
			t.Errorf("%s shows %s", verb, got)
		}
	}
}

func TestParseCredentials(t *testing.T) {
	t.Parallel()
	env := map[string]string{"TENCENTCLOUD_SECRET_ID": "id", "TENCENTCLOUD_SECRET_KEY": "CANARYkey", "TENCENTCLOUD_TOKEN": "tok"}
	lookup := func(name string) string { return env[name] }
	read := func(_ context.Context, path string) (map[string]any, error) {
		switch path {
		case "secret/tencent/api":
			return map[string]any{"secret_id": "vid", "secret_key": "vkey"}, nil
		case "secret/half":
			return map[string]any{"secret_id": "vid"}, nil
		case "secret/newline":
			return map[string]any{"secret_id": "CANARYid\n", "secret_key": "vkey"}, nil
		case "secret/space":
			return map[string]any{"secret_id": "vid", "secret_key": "CANARYkey "}, nil
		}
		return nil, errors.New("no such secret")
	}
	for spec, want := range map[string]string{"": "id", "auto": "id", "env": "id", "vault:secret/tencent/api": "vid"} {
		c, err := ParseCredentials(spec, lookup, read)
		if err != nil {
			t.Fatalf("%q: %v", spec, err)
		}
		got, err := c.Get(t.Context())
		if err != nil || got.id != want {
			t.Errorf("%q: %v, %v", spec, got.id, err)
		}
	}
	for _, spec := range []string{"x", "env:1", "auto:1", "vault:", "vault:a", "vault:/a", "sts:", "sts:x"} {
		if _, err := ParseCredentials(spec, lookup, read); err == nil {
			t.Errorf("%q is accepted", spec)
		}
	}
	for spec, want := range map[string]string{"vault:secret/newline": "a line break", "vault:secret/space": "there is a space", "vault:secret/half": "lacks the fields", "vault:secret/none": "no such secret"} {
		c, _ := ParseCredentials(spec, lookup, read)
		if _, err := c.Get(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", spec, err)
		}
	}
	delete(env, "TENCENTCLOUD_SECRET_KEY")
	c, _ := ParseCredentials("env", lookup, nil)
	if _, err := c.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "TENCENTCLOUD_SECRET_KEY") {
		t.Errorf("half an environment: %v", err)
	}
}

// TestRenewedCredential replaces a credential at Tencent and in its source: the call that
// finds out asks the source again, and goes through.
func TestRenewedCredential(t *testing.T) {
	t.Parallel()
	s, _ := start(t, tiwtest.Options{})
	var asked atomic.Int32
	current := NewCredential(secretID, secretKey, "")
	src := &source{name: "test", fetch: func(context.Context) (Credential, error) { asked.Add(1); return current, nil }}
	c := client(t, s.URL, src)
	tg, key := target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey)
	for range 3 {
		if _, err := c.SetKey(t.Context(), tg, key); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the source was asked %d times", asked.Load())
	}
	s.RemoveCredential(secretID)
	_, err := c.SetKey(t.Context(), tg, key)
	check(t, "revoked", err, refused, "AuthFailure.SecretIdNotFound")
	s.AddCredential("AKIDnew", "CANARYnew", "temporary")
	current = NewCredential("AKIDnew", "CANARYnew", "temporary")
	if _, err := c.SetKey(t.Context(), tg, key); err != nil {
		t.Errorf("with a new credential at the source: %v", err)
	}
	for name, wrong := range map[string]struct {
		c    Credential
		code string
	}{
		"key":   {NewCredential("AKIDnew", "CANARYwrong", "temporary"), "AuthFailure.SignatureFailure"},
		"token": {NewCredential("AKIDnew", "CANARYnew", "old"), "AuthFailure.TokenFailure"},
	} {
		_, err := client(t, s.URL, Static(wrong.c)).SetKey(t.Context(), tg, key)
		check(t, "wrong "+name, err, refused, wrong.code)
	}
}

// TestRoleCredential gives another credential each time it is asked, as a role does: Tencent's
// refusal is told after one more try.
func TestRoleCredential(t *testing.T) {
	t.Parallel()
	s, _ := start(t, tiwtest.Options{})
	var fetches atomic.Int32
	c := client(t, s.URL, &source{name: "sts", fetch: func(context.Context) (Credential, error) {
		return NewCredential(fmt.Sprint("AKID", fetches.Add(1)), secretKey, "t"), nil
	}})
	_, err := c.SetKey(t.Context(), target(secrets.WhiteboardPush), secrets.NewKey("id", canaryKey))
	check(t, "unknown role", err, refused, "AuthFailure.SecretIdNotFound")
	if n := fetches.Load(); n != 2 {
		t.Errorf("the source was asked %d times", n)
	}
}

// provider is one of the SDK's that gives what it is told to, when it is told to.
type provider struct {
	err   error
	calls atomic.Int32
	hold  chan struct{}
}

func (p *provider) GetCredential() (common.CredentialIface, error) {
	p.calls.Add(1)
	if p.hold != nil {
		<-p.hold
	}
	if p.err != nil {
		return nil, p.err
	}
	return common.NewTokenCredential("pid", "CANARYkey", "tok"), nil
}

func TestProvider(t *testing.T) {
	t.Parallel()
	quoting := tcerr.NewTencentCloudSDKError("ClientError.ParseJsonError", "Fail to parse json content: {\"TmpSecretKey\":\"CANARY\"", "")
	for name, p := range map[string]*provider{"quotes": {err: quoting}, "good": {}, "refused": {err: tcerr.NewTencentCloudSDKError("AuthFailure", "no", "r-1")}} {
		c, err := fromProvider(p)(t.Context())
		switch {
		case name == "good" && (err != nil || c.id != "pid" || c.token != "tok"):
			t.Errorf("%v, %v", c.id, err)
		case name == "quotes" && (err == nil || strings.Contains(err.Error(), "CANARY") || !strings.Contains(err.Error(), "ParseJsonError")):
			t.Errorf("%v", err)
		case name == "refused" && (err == nil || !strings.Contains(err.Error(), "AuthFailure: no; RequestId r-1")):
			t.Errorf("%v", err)
		}
	}
	// One that hangs is waited for by all, and left by whoever has no more time.
	p := &provider{hold: make(chan struct{})}
	f := fromProvider(p)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if _, err := f(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	close(p.hold)
	if c, err := f(t.Context()); err != nil || c.id != "pid" {
		t.Errorf("%v, %v", c.id, err)
	}
	if n := p.calls.Load(); n > 2 {
		t.Errorf("%d calls hung", n)
	}
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{"": "https://tiw.tencentcloudapi.com", "a.example": "https://a.example", "a.example:8443": "https://a.example:8443",
		"https://a.example/": "https://a.example", "http://127.0.0.1:80": "http://127.0.0.1:80", "http://[::1]:80": "http://[::1]:80", "http://localhost:1": "http://localhost:1"} {
		scheme, host, err := ParseEndpoint(endpoint)
		if err != nil || scheme+"://"+host != want {
			t.Errorf("%q: %s://%s, %v", endpoint, scheme, host, err)
		}
	}
	for _, endpoint := range []string{"http://a.example", "http://127.0.0.1.a.example", "http://10.0.0.1", "ftp://x", "https://", "https://a/b", "https://a?b=c", "https://u:p@a", "https://:443", "http://localhost.example"} {
		if _, _, err := ParseEndpoint(endpoint); err == nil {
			t.Errorf("%q is accepted", endpoint)
		}
	}
}

// TestSource keeps what it was given, until it is told that Tencent did not take it.
func TestSource(t *testing.T) {
	t.Parallel()
	asked := 0
	s := &source{fetch: func(context.Context) (Credential, error) {
		asked++
		return NewCredential(fmt.Sprint("id", asked), "key", ""), nil
	}}
	get := func(want string) Credential {
		t.Helper()
		c, err := s.Get(t.Context())
		if err != nil || c.id != want {
			t.Errorf("%s, %v, want %s", c.id, err, want)
		}
		return c
	}
	first := get("id1")
	get("id1")
	s.Forget(first)
	get("id2")
	s.Forget(first) // that one is gone already
	get("id2")
	s.at = time.Now().Add(-keepFor)
	get("id3")
	for _, c := range []Credential{{}, {"id", "", ""}, {"", "key", ""}} {
		if _, err := Static(c).Get(t.Context()); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("half a credential: %v", err)
		}
	}
}

// TestProviderError keeps what cannot hold a credential.
func TestProviderError(t *testing.T) {
	t.Parallel()
	if err := providerError(os.ErrPermission); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
	if err := providerError(tcerr.NewTencentCloudSDKError("ClientError.CredentialError", "no such file", "")); !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}
