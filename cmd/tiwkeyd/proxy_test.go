package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

// front is a running `tiwkeyd proxy`.
type front struct {
	*process
	url, metrics string
}

// noRaceSleep keeps the race detector from waiting for a second at every exit.
const noRaceSleep = "GORACE=halt_on_error=1 atexit_sleep_ms=0"

// proxy starts one on free ports and waits until it serves.
func (r *rig) proxy(upstream string, args []string, env ...string) *front {
	r.t.Helper()
	p := r.start(append([]string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--upstream", upstream}, args...), append(env, noRaceSleep)...)
	r.awaitOutput(p, "hands genuine callbacks on")
	var said struct {
		Msg, Listen, Metrics string
		TLS                  bool
	}
	for line := range strings.Lines(p.String()) {
		if strings.Contains(line, "hands genuine callbacks on") {
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	f := &front{process: p, url: "http://" + said.Listen, metrics: "http://" + said.Metrics}
	if said.TLS {
		f.url = "https://" + said.Listen
	}
	return f
}

// standing is what stands behind a proxy: it answers with the key's id and the application.
func (r *rig) standing(handle http.HandlerFunc) string {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if handle != nil {
			handle(w, q)
		}
		_, _ = fmt.Fprint(w, q.Header.Get("X-Tiwkeyd-Sdk-App-Id"), " ", q.Header.Get("X-Tiwkeyd-Key-Id"))
	}))
	r.t.Cleanup(web.Close)
	return web.URL
}

// newKey makes a key, which must not show anywhere.
func (r *rig) newKey() secrets.Key {
	r.t.Helper()
	k, err := secrets.GenerateKey(nil, secrets.DefaultKeyLength)
	if err != nil {
		r.t.Fatal(err)
	}
	r.secret(k.Reveal())
	return k
}

// entry is a key in a state.
func entry(k secrets.Key, s rotator.State) rotator.Entry {
	e := rotator.Entry{Key: k, State: s, CreatedAt: time.Now()}
	switch s {
	case rotator.Previous:
		e.AcceptUntil = time.Now().Add(time.Hour)
	case rotator.Pending:
		e.PushAfter = time.Now()
	}
	return e
}

// put writes a keyring to the store.
func (r *rig) put(t secrets.Target, entries ...rotator.Entry) *rotator.Keyring {
	r.t.Helper()
	k := &rotator.Keyring{Target: t, Keys: entries, RotatedAt: time.Now()}
	for _, e := range entries {
		if e.State == rotator.Pending {
			k.Rotation = &rotator.Rotation{ID: "r", Reason: rotator.ByCommand, StartedAt: time.Now()}
		}
	}
	s, err := r.store.Read(r.t.Context(), t)
	if err == nil {
		_, err = r.store.Write(r.t.Context(), t, k, s.Version)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// signed is a callback, whose signature must not show anywhere either.
func (r *rig) signed(app int64, k secrets.Key, expire time.Time) string {
	if !k.IsZero() {
		r.secret(tiwtest.Sign(k.Reveal(), expire.Unix()))
	}
	return string(tiwtest.Callback(app, "WhiteboardPushStarted", 1, k.Reveal(), expire))
}

// fresh is one that has not expired.
func (r *rig) fresh(app int64, k secrets.Key) string {
	return r.signed(app, k, time.Now().Add(time.Hour))
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	return answerOf(t, res, err)
}

func send(t testing.TB, url, body string) (int, string) {
	t.Helper()
	res, err := http.Post(url, "application/json", strings.NewReader(body))
	return answerOf(t, res, err)
}

func answerOf(t testing.TB, res *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(text)
}

func writeFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readOnly is all that the proxy's token may do in Vault.
const readOnly = `path "secret/data/tiw/*" { capabilities = ["read"] }`

// TestProxyKeys has the keys come from each of the places where they can be.
func TestProxyKeys(t *testing.T) {
	t.Parallel()
	other := secrets.Target{SdkAppID: 1400000002, Service: secrets.OnlineRecord}
	sameApp := secrets.Target{SdkAppID: testTarget.SdkAppID, Service: secrets.Transcode}
	v := vaulttest.Start(t)
	for _, c := range []struct {
		name  string
		from  string // keys_from in the log begins so
		setUp func(r *rig, k, second secrets.Key) (args, env []string)
	}{
		{"file store", "file store /", func(r *rig, k, second secrets.Key) (args, env []string) {
			r.put(testTarget, entry(k, rotator.Current))
			r.put(sameApp, entry(r.newKey(), rotator.Current))
			r.put(other, entry(second, rotator.Current))
			return nil, []string{"TIWKEYD_TARGETS=" + testTarget.String() + "," + sameApp.String() + "," + other.String()}
		}},
		{"Vault, with a token that may only read", "vault " + v.Addr, func(r *rig, k, second secrets.Key) (args, env []string) {
			r.useVault(v)
			r.put(testTarget, entry(k, rotator.Current))
			r.put(other, entry(second, rotator.Current))
			v.Policy("proxy", readOnly)
			token := v.NewToken("proxy", "2h")
			r.secret(token)
			return nil, []string{"TIWKEYD_TARGETS=" + testTarget.String() + "," + other.String(), "VAULT_TOKEN=" + token, "VAULT_TOKEN_FILE=", "TENCENTCLOUD_SECRET_ID=", "TENCENTCLOUD_SECRET_KEY="}
		}},
		{"named key files", "2 files", func(r *rig, k, second secrets.Key) (args, env []string) {
			keyring, err := r.put(testTarget, entry(k, rotator.Current), entry(r.newKey(), rotator.Pending)).Encode()
			if err != nil {
				t.Fatal(err)
			}
			args = []string{"--key-file", testTarget.String() + "=" + writeFile(r.t, string(keyring)), "--key-file=1400000002/online-record=" + writeFile(r.t, r.newKey().Reveal()+"\n"+second.Reveal()+"\n")}
			return args, []string{"TIWKEYD_TARGETS=", "TIWKEYD_STORE=nonsense"}
		}},
		{"a key file for the only target", "1 files", func(r *rig, k, _ secrets.Key) (args, env []string) {
			return []string{"--key-file", writeFile(r.t, k.Reveal()+"\n")}, []string{"TIWKEYD_STORE="}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			k, second := r.newKey(), r.newKey()
			args, env := c.setUp(r, k, second)
			p := r.proxy(r.standing(nil), args, env...)
			r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
			id := k.ID()
			if strings.HasPrefix(c.name, "a key file") {
				id = "line-1"
			}
			if status, text := send(t, p.url, r.fresh(testTarget.SdkAppID, k)); status != 200 || text != "1400000001 "+id {
				t.Errorf("a genuine one: %d %s", status, text)
			}
			if c.from != "1 files" {
				if status, text := send(t, p.url, r.fresh(other.SdkAppID, second)); status != 200 || !strings.HasPrefix(text, "1400000002 ") {
					t.Errorf("another application's: %d %s", status, text)
				}
			}
			for what, body := range map[string]string{"signed with another's key": r.fresh(other.SdkAppID, k), "never ours": r.fresh(testTarget.SdkAppID, r.newKey()), "unsigned": r.fresh(testTarget.SdkAppID, secrets.Key{}),
				"not served": r.fresh(7, k), "expired": r.signed(testTarget.SdkAppID, k, time.Now().Add(-time.Hour))} {
				if status, text := send(t, p.url, body); status != http.StatusUnauthorized {
					t.Errorf("%s: %d %s", what, status, text)
				}
			}
			if !strings.Contains(p.String(), `"keys_from":"`+c.from) || !strings.Contains(p.String(), testTarget.String()) {
				t.Errorf("it does not say where the keys are from:\n%s", p)
			}
		})
	}
}

// TestProxyRotation replaces keys without any time for receivers to learn of them, under a
// load of callbacks: none is refused.
func TestProxyRotation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	service := string(testTarget.Service)
	r.server.SetKey(testTarget.SdkAppID, service, oldKey)
	if out, code := r.run([]string{"rotate"}, "TIWKEYD_PROPAGATION=0", noRaceSleep); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	v.Policy("proxy", readOnly)
	token := v.NewToken("proxy", "2h")
	r.secret(token)
	p := r.proxy(r.standing(nil), nil, "VAULT_TOKEN="+token, "VAULT_TOKEN_FILE=")
	r.sender = tiwtest.NewSender(r.server, p.url, tiwtest.Source{App: testTarget.SdkAppID, Service: service})
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { r.sender.Run(ctx, 100) })
	for range 4 {
		before, sent := r.currentID(), r.sender.Counts().Sent
		if out, code := r.run([]string{"rotate"}, "TIWKEYD_PROPAGATION=0", noRaceSleep); code != 0 || r.currentID() == before {
			t.Errorf("%d\n%s", code, out)
		}
		r.await("callbacks with the new key", func() bool { return r.sender.Counts().Sent > sent+50 })
	}
	cancel()
	group.Wait()
	r.noneRefused()
	if _, text := get(t, p.metrics+"/metrics"); !strings.Contains(text, `tiwkeyd_proxy_requests_total{result="bad signature"} 0`) || strings.Contains(text, "tiwkeyd_proxy_rereads_total 0\n") {
		t.Errorf("it never had to read the keys once more, or refused one:\n%s", text)
	}
}

// TestProxyVaultAway: nobody is told that a callback is not genuine by a proxy that cannot
// know. Keys that it holds stay in use whatever becomes of Vault.
func TestProxyVaultAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	body, unknown := r.fresh(testTarget.SdkAppID, k), r.fresh(testTarget.SdkAppID, r.newKey())
	v.Stop()
	p := r.proxy(r.standing(nil), nil)
	res, err := http.Post(p.url, "application/json", strings.NewReader(body))
	if status, text := answerOf(t, res, err); status != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("Vault is away: %d %s", status, text)
	}
	if status, _ := get(t, p.metrics+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("ready without keys: %d", status)
	}
	r.awaitOutput(p.process, "check VAULT_ADDR")
	r.awaitOutput(p.process, `"status":503`)
	v.Restart()
	r.await("it is ready", func() bool { status, _ := get(t, p.metrics+"/readyz"); return status == http.StatusOK })
	for _, trouble := range []struct {
		name        string
		begin, mend func()
	}{{"none", func() {}, func() {}}, {"frozen", v.Freeze, v.Thaw}, {"sealed", v.Seal, v.Unseal}} {
		seen := strings.Count(p.String(), "the keys cannot be read")
		trouble.begin()
		if trouble.name == "sealed" { // and it has noticed
			r.await("it notices", func() bool { return strings.Count(p.String(), "the keys cannot be read") > seen })
		}
		for range 10 {
			if status, text := send(t, p.url, body); status != http.StatusOK {
				t.Errorf("%s: %d %s", trouble.name, status, text)
			}
		}
		trouble.mend()
	}
	r.await("what is not genuine is refused again", func() bool { status, _ := send(t, p.url, unknown); return status == http.StatusUnauthorized })
}
