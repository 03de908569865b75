package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/internal/doctor"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// clinic is a rig in which all is well, for check to find what a test plants in it.
type clinic struct {
	*rig
	v *vaulttest.Server
}

// newClinic gives the program the README's policy, and an application that has a key.
func newClinic(t *testing.T, v *vaulttest.Server) *clinic {
	t.Helper()
	c := &clinic{newRig(t), v}
	c.useVault(v)
	c.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	c.set("TIWKEYD_PROPAGATION=6m", "TIWKEYD_SCHEDULE=0 3 * * *", "TIWKEYD_GRACE=24h", "TIWKEYD_RECONCILE=10m")
	return c
}

func (c *clinic) set(env ...string) { c.env = append(c.env, env...) }

// token gives the program another token, in VAULT_TOKEN.
func (c *clinic) token(token string) {
	c.secret(token)
	c.env = without(c.env, "VAULT_TOKEN_FILE")
	c.set("VAULT_TOKEN=" + token)
}

// policy gives the program a token with a policy of its own.
func (c *clinic) policy(rules string) {
	c.v.Policy("other", rules)
	c.token(c.v.NewToken("other", "2h"))
}

// tokenInFile gives the program another token, in its VAULT_TOKEN_FILE.
func (c *clinic) tokenInFile(token string) {
	c.t.Helper()
	if err := os.WriteFile(lastOf(c.env, "VAULT_TOKEN_FILE"), []byte(token), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// serve starts a server that ends with the test, and gives its URL.
func (c *clinic) serve(h http.Handler) string {
	s := httptest.NewServer(h)
	c.t.Cleanup(s.Close)
	return s.URL
}

// datedProxy stands before a server and stamps its answers with a time that is off.
func (c *clinic) datedProxy(to string, off time.Duration) string {
	u, err := url.Parse(to)
	if err != nil {
		c.t.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(u)
	p.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		return nil
	}
	return c.serve(p)
}

// wrongTencent has the program ask a Tencent whose clock is off.
func (c *clinic) wrongTencent(off time.Duration) {
	s, err := tiwtest.Start(tiwtest.Options{Now: func() time.Time { return time.Now().Add(off) }})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(s.Close)
	s.AddCredential(testID, testKey, "")
	s.AddApp(testTarget.SdkAppID)
	c.server = s
	c.set("TIWKEYD_TENCENT_ENDPOINT=" + s.URL)
}

// hanging takes connections and never answers, until the test ends.
func (c *clinic) hanging() string {
	over := make(chan struct{})
	address := c.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	c.t.Cleanup(func() { close(over) }) // before the server is closed, which waits for its requests
	return address
}

// findings runs `check --json`.
func (c *clinic) findings() ([]doctor.Finding, int) {
	c.t.Helper()
	p := c.start([]string{"check", "--json"})
	<-p.done
	text, _, _ := strings.Cut(p.String(), "\ntiwkeyd: ") // what failed is said on standard error
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		c.t.Fatalf("check --json: %v\n%s", err, p)
	}
	return all, p.code
}

// metadata gives the metadata of all that is in Vault's mount: whoever writes changes it.
func (c *clinic) metadata() string {
	c.t.Helper()
	root := c.v.Client(c.v.Token)
	var b strings.Builder
	var walk func(path string)
	walk = func(path string) {
		got, err := root.Logical().List("secret/metadata/" + path)
		if err != nil {
			c.t.Fatal(err)
		}
		if got == nil {
			return
		}
		for _, key := range got.Data["keys"].([]any) {
			name := path + key.(string)
			if strings.HasSuffix(name, "/") {
				walk(name)
				continue
			}
			meta, err := root.KVv2("secret").GetMetadata(c.t.Context(), name)
			if err != nil {
				c.t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %d %d %s\n", name, meta.CurrentVersion, len(meta.Versions), meta.UpdatedTime)
		}
	}
	walk("")
	return b.String()
}

// allSetCalls counts the calls that would have changed a key, of all services.
func (c *clinic) allSetCalls() int {
	n := 0
	for _, api := range []string{"SetWhiteboardPushCallbackKey", "SetOnlineRecordCallbackKey", "SetTranscodeCallbackKey", "SetVideoGenerationTaskCallbackKey"} {
		n += c.server.Calls(api)
	}
	return n
}

// TestCheckWell has nothing wrong, before the first rotation and after it, whose every finding is ok.
func TestCheckWell(t *testing.T) {
	t.Parallel()
	c := newClinic(t, vaulttest.Start(t))
	token := c.v.NewToken("tiwkeyd", "2h")
	c.token(token) // one that the daemon would renew at once
	for _, when := range []string{"before the first rotation", "after it"} {
		before, sets := c.metadata(), c.allSetCalls()
		all, code := c.findings()
		if code != 0 {
			t.Errorf("%s: exit status %d", when, code)
		}
		checks := map[doctor.Check]bool{}
		for _, f := range all {
			checks[f.Check] = true
			if f.Status != doctor.OK || f.Mend != "" {
				t.Errorf("%s: %+v", when, f)
			}
		}
		for _, want := range []doctor.Check{doctor.Configuration, doctor.Schedule, doctor.Receivers, doctor.Vault, doctor.VaultClock, doctor.VaultToken, doctor.VaultMount,
			doctor.VaultPolicy, doctor.Tencent, doctor.TencentClock, doctor.Credential, doctor.Region, doctor.Permission, doctor.Application, doctor.Keyring} {
			if !checks[want] {
				t.Errorf("%s: %q was not made", when, want)
			}
		}
		out, code := c.run([]string{"check"})
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "ok    ") {
				t.Errorf("%s: %d, a line that is not ok: %s", when, code, line)
			}
		}
		if strings.Count(out, "\n") != len(all) {
			t.Errorf("%s: %d findings in these lines:\n%s", when, len(all), out)
		}
		if c.metadata() != before || c.allSetCalls() != sets {
			t.Errorf("%s: check changed something: %d calls of Set, before it\n%s\nafter it\n%s", when, c.allSetCalls()-sets, before, c.metadata())
		}
		if when == "after it" {
			return
		}
		if got, err := c.v.Client(token).Auth().Token().LookupSelf(); err != nil || got.Data["last_renewal"] != nil {
			t.Errorf("the token was renewed: %v", err)
		}
		if out, code := c.run([]string{"rotate"}, "TIWKEYD_PROPAGATION=0"); code != 0 {
			t.Fatalf("rotate: %d\n%s", code, out)
		}
	}
}

// planted is a fault and what check has to make of it.
type planted struct {
	name   string
	plant  func(*clinic)
	check  doctor.Check
	status doctor.Status
	what   string // in the finding
	mend   string // in what mends it
	code   int
}

// TestCheckFinds plants one fault after the other. Whatever the fault, nothing is written and
// no secret shows.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	for _, p := range slices.Concat(configurationFaults(), vaultFaults(), tencentFaults(), storeFaults()) {
		t.Run(p.name, func(t *testing.T) {
			c := newClinic(t, v)
			before := c.metadata()
			p.plant(c)
			planted := c.metadataOf(before)
			all, code := c.findings()
			c.found(p, all, code)
			if after := c.metadataOf(planted); after != planted {
				t.Errorf("check wrote in Vault: before it\n%s\nafter it\n%s", planted, after)
			}
			if n := c.allSetCalls(); n != 0 {
				t.Errorf("check set a key at Tencent, %d times", n)
			}
		})
	}
}

// metadataOf is metadata, or what it was before where a fault keeps Vault from telling.
func (c *clinic) metadataOf(before string) string {
	h, err := c.v.Client("").Sys().Health()
	if err != nil || h.Sealed {
		return before
	}
	return c.metadata()
}

func (c *clinic) found(p planted, all []doctor.Finding, code int) {
	c.t.Helper()
	if code != p.code {
		c.t.Errorf("exit status %d, not %d", code, p.code)
	}
	failed := false
	for _, f := range all {
		failed = failed || f.Status == doctor.Fail
		if (f.Status == doctor.Fail || f.Status == doctor.Warn) == (f.Mend == "") {
			c.t.Errorf("a finding with its mend missing, or with one for nothing: %+v", f)
		}
		// One fault is one failure: all that rests on it is skipped.
		if f.Status == doctor.Fail && f.Check != p.check {
			c.t.Errorf("another failure: %+v", f)
		}
	}
	if failed != (p.code == exitUsage) {
		c.t.Errorf("exit status %d, and failed: %v", code, failed)
	}
	matches := func(f doctor.Finding) bool {
		return f.Check == p.check && f.Status == p.status && strings.Contains(f.Target+": "+f.What, p.what) && strings.Contains(f.Mend, p.mend)
	}
	if i := slices.IndexFunc(all, matches); i >= 0 {
		c.t.Log(findingLine(all[i]))
	} else {
		text, err := json.MarshalIndent(all, "", "  ")
		c.t.Errorf("%q %s with %q, mended by %q, is not in %s %v", p.check, p.status, p.what, p.mend, text, err)
	}
}

// keyringOf writes a secret where the keyring of the target is.
func (c *clinic) keyringOf(t secrets.Target, data map[string]any, settings ...api.KVMetadataPutInput) {
	c.t.Helper()
	path := "tiw/" + t.String()
	kv := c.v.Client(c.v.Token).KVv2("secret")
	for _, s := range settings {
		if err := kv.PutMetadata(c.t.Context(), path, s); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := kv.Put(c.t.Context(), path, data); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := kv.DeleteMetadata(context.Background(), path); err != nil {
			c.t.Error(err)
		}
	})
}
