package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent"
	"tiwkeyd/tencent/tiwtest"
)

// bareApp is another application: a key set bare is not to be taken for drift.
const bareApp = 1400000002

// counted counts the calls that a rotation makes, for the bare ones to be the same.
type counted struct {
	rotator.Store
	rotator.CallbackAPI
	calls []string
}

func (c *counted) String() string { return c.Store.String() }

func (c *counted) Read(ctx context.Context, t secrets.Target) (rotator.Snapshot, error) {
	c.calls = append(c.calls, "read")
	return c.Store.Read(ctx, t)
}

func (c *counted) Write(ctx context.Context, t secrets.Target, k *rotator.Keyring, v int64) (int64, error) {
	c.calls = append(c.calls, "write")
	return c.Store.Write(ctx, t, k, v)
}

func (c *counted) SetKey(ctx context.Context, t secrets.Target, k secrets.Key) (string, error) {
	c.calls = append(c.calls, "set")
	return c.CallbackAPI.SetKey(ctx, t, k)
}

func (c *counted) KeyInForce(ctx context.Context, t secrets.Target) (secrets.Key, error) {
	c.calls = append(c.calls, "describe")
	return c.CallbackAPI.KeyInForce(ctx, t)
}

// BenchmarkRotation compares a rotation with propagation 0 to the same requests to the same
// real Vault and TIW server made bare, with the two libraries alone.
func BenchmarkRotation(b *testing.B) {
	v := vaulttest.Start(b)
	server, err := tiwtest.Start(tiwtest.Options{Rate: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	server.AddCredential(testID, testKey, "")
	server.AddApp(testTarget.SdkAppID)
	server.AddApp(bareApp)
	first, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
	if err != nil {
		b.Fatal(err)
	}
	server.SetKey(testTarget.SdkAppID, string(testTarget.Service), first.Reveal())
	store := storeIn(b, v.Addr, v.Token)
	tiw, err := tencent.New(tencent.Options{Endpoint: server.URL, Rate: 100000, Credentials: tencent.Static(tencent.NewCredential(testID, testKey, ""))})
	if err != nil {
		b.Fatal(err)
	}
	defer tiw.Close()
	c := &counted{Store: store, CallbackAPI: tiw}
	engine, err := rotator.New(rotator.Options{Store: c, API: c, Due: func(secrets.Target, *rotator.Keyring, time.Time) time.Time { return time.Time{} },
		Policy: rotator.Policy{Grace: time.Hour, AttemptLimit: time.Hour, Reconcile: time.Hour, KeyLength: secrets.MaxKeyLength, OnDrift: rotator.Reassert, Timing: rotator.StandardTiming()}})
	if err != nil {
		b.Fatal(err)
	}
	bare := newBareClients(b, v, server)
	ctx := context.Background()
	var ours, theirs time.Duration
	for b.Loop() {
		// Each rotation starts from one key, or the keyring would grow.
		s, err := store.Read(ctx, testTarget)
		if err != nil {
			b.Fatal(err)
		}
		if k := s.Keyring; k != nil {
			k.Keys = []rotator.Entry{*k.Current()}
			if _, err := store.Write(ctx, testTarget, k, s.Version); err != nil {
				b.Fatal(err)
			}
		}
		c.calls = nil
		began := time.Now()
		if err := engine.Settle(ctx, testTarget, rotator.ByCommand); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(began)
		began = time.Now()
		bare.repeat(b, c.calls)
		theirs += time.Since(began)
	}
	b.Logf("requests of the last rotation: %v", c.calls)
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x_bare")
	b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/rotation")
}

// bareClients are the libraries without any of this program.
type bareClients struct {
	kv      *api.KVv2
	sdk     *common.Client
	version int
	data    map[string]any
}

func newBareClients(b *testing.B, v *vaulttest.Server, server *tiwtest.Server) *bareClients {
	p := profile.NewClientProfile()
	p.HttpProfile.Scheme, p.HttpProfile.Endpoint, p.HttpProfile.ReqMethod = "HTTP", strings.TrimPrefix(server.URL, "http://"), "POST"
	p.DisableRegionBreaker = true
	keys := []any{}
	for i := range 2 {
		keys = append(keys, map[string]any{"id": fmt.Sprint("0123456789", i), "value": strings.Repeat("k", 64), "state": "previous",
			"created_at": "2026-01-01T00:00:00.000000000Z", "push_after": "2026-01-01T00:00:00.000000000Z", "activated_at": "2026-01-01T00:00:00.000000000Z"})
	}
	return &bareClients{kv: v.Client(v.Token).KVv2("secret"), sdk: common.NewCommonClient(common.NewCredential(testID, testKey), tencent.DefaultRegion, p),
		data: map[string]any{"schema": 1, "callback_key": strings.Repeat("k", 64), "accept": []string{strings.Repeat("k", 64), strings.Repeat("l", 64)}, "keys": keys}}
}

// repeat makes the given requests.
func (c *bareClients) repeat(b *testing.B, calls []string) {
	ctx := context.Background()
	for _, call := range calls {
		var err error
		switch call {
		case "read":
			var got *api.KVSecret
			if got, err = c.kv.Get(ctx, "bare/1400000001/whiteboard-push"); err == nil {
				_ = got.Data
			} else if strings.Contains(err.Error(), "not found") {
				err = nil
			}
		case "write":
			_, err = c.kv.Put(ctx, "bare/1400000001/whiteboard-push", c.data, api.WithCheckAndSet(c.version))
			c.version++
		case "set":
			err = c.send("SetWhiteboardPushCallbackKey", fmt.Sprintf(`{"SdkAppId":%d,"CallbackKey":%q}`, bareApp, strings.Repeat("b", 64)))
		case "describe":
			err = c.send("DescribeWhiteboardPushCallback", fmt.Sprintf(`{"SdkAppId":%d}`, bareApp))
		}
		if err != nil {
			b.Fatalf("%s, bare: %v", call, err)
		}
	}
}

func (c *bareClients) send(action, params string) error {
	r := tchttp.NewCommonRequest("tiw", "2019-09-19", action)
	if err := r.SetActionParameters(params); err != nil {
		return err
	}
	return c.sdk.Send(r, tchttp.NewCommonResponse())
}

// BenchmarkFootprint tells how large the stripped binary is, and how much memory a daemon
// with one target in a real Vault has resident when it has nothing to do.
func BenchmarkFootprint(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "tiwkeyd")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		b.Fatal(err)
	}
	v := vaulttest.Start(b)
	r := newRig(b)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	r.env = append(r.env, "TEST_AS_TIWKEYD=", "TIWKEYD_PROPAGATION=0", "TIWKEYD_LOG_LEVEL=info")
	d := r.startProgram(binary, []string{"run"})
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	needsProc(b)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	var rss float64
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscanf(rest, "%f kB", &rss); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() { // there is nothing to repeat
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(info.Size())/1e6, "binary_MB")
	b.ReportMetric(rss/1000, "resident_MB")
}
