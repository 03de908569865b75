//go:build bench

// Package bench measures tiwkeyd at the size of a platform, against a real Vault and a TIW server
// that keeps Tencent's limit, and against the script that most people have. See README.md.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

const (
	secretID, secretKey = "AKIDbench", "bench-secret-key"
	firstApp            = 1400000000
	service             = string(secrets.WhiteboardPush)
	// refresh is how often a receiver reads its keys again. Real ones take minutes; what tiwkeyd is
	// told of it, and the seconds in which the script's callbacks are refused, go with it.
	refresh = 10 * time.Second
)

// world is a Vault and a TIW server, with what counts the requests to both.
type world struct {
	t       *testing.T
	vault   *vaulttest.Server
	store   *vault.Store
	tiw     *tiwtest.Server
	tiwURL  string // through what counts
	proxy   string // Vault, through what counts
	targets []secrets.Target

	mu       sync.Mutex
	requests map[string]int // to Vault, by kind
	calls    map[string]int // to Tencent, by API
	limited  []time.Time    // when Tencent said RequestLimitExceeded
	applied  []time.Time    // when keys were set
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{t: t, vault: vaulttest.Start(t), requests: map[string]int{}, calls: map[string]int{}}
	var err error
	if w.tiw, err = tiwtest.Start(tiwtest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.tiw.Close)
	w.tiw.AddCredential(secretID, secretKey, "")
	w.tiw.OnApply(func(a tiwtest.Applied) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.applied = append(w.applied, a.At)
	})
	w.tiwURL = w.front(w.tiw.URL, w.countCall)
	w.proxy = w.front(w.vault.Addr, w.countRequest)
	if _, err := w.vault.Client(w.vault.Token).Logical().Write("secret/config", map[string]any{"max_versions": 1}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_ADDR", w.vault.Addr)
	login, err := vault.LoginFromEnv(func(name string) string { return map[string]string{"VAULT_TOKEN": w.vault.Token}[name] })
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = vault.New(vault.Options{Mount: "secret", Prefix: "tiw", Login: login}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.store.Close)
	for i := range n {
		w.targets = append(w.targets, secrets.Target{SdkAppID: firstApp + int64(i), Service: secrets.WhiteboardPush})
	}
	return w
}

// front is a reverse proxy that has count see every answer.
func (w *world) front(to string, count func(*http.Response)) string {
	u, err := url.Parse(to)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256}, ModifyResponse: func(r *http.Response) error { count(r); return nil }}
	s := httptest.NewServer(p)
	w.t.Cleanup(s.Close)
	return s.URL
}

func (w *world) countRequest(r *http.Response) {
	kind, path := "other", r.Request.URL.Path
	switch {
	case strings.HasPrefix(path, "/v1/secret/data/") && r.Request.Method == http.MethodGet:
		kind = "read"
	case strings.HasPrefix(path, "/v1/secret/data/"):
		kind = "write"
	case strings.HasPrefix(path, "/v1/secret/destroy/"):
		kind = "destroy"
	case strings.HasPrefix(path, "/v1/secret/metadata"):
		kind = "list"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests[kind]++
}

func (w *world) countCall(r *http.Response) {
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	w.mu.Lock()
	defer w.mu.Unlock()
	action := "set"
	if strings.HasPrefix(r.Request.Header.Get("X-TC-Action"), "Describe") {
		action = "describe"
	}
	w.calls[action]++
	if strings.Contains(string(body), "RequestLimitExceeded") {
		w.limited = append(w.limited, time.Now())
	}
}

// seed gives every target a key in force, and a settled keyring.
func (w *world) seed() {
	w.t.Helper()
	at := time.Now().Add(-time.Hour)
	var group sync.WaitGroup
	next := make(chan secrets.Target)
	for range 16 {
		group.Go(func() {
			for t := range next {
				w.tiw.AddApp(t.SdkAppID)
				key, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
				if err != nil {
					w.t.Error(err)
				}
				w.tiw.SetKey(t.SdkAppID, service, key.Reveal())
				// As a keyring is after some rotations.
				k := &rotator.Keyring{Target: t, RotatedAt: at, Overrides: &rotator.Overrides{Propagation: new(propagation)},
					Keys: []rotator.Entry{{Key: key, State: rotator.Current, CreatedAt: at, PushAfter: at, ActivatedAt: at, Confirmed: true}}}
				for range 16 {
					gone, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
					if err != nil {
						w.t.Error(err)
					}
					k.Retired = append(k.Retired, gone.Fingerprint())
				}
				if _, err := w.store.Write(context.Background(), t, k, 0); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for _, t := range w.targets {
		next <- t
	}
	close(next)
	group.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = nil // what counts is what is set from now on
}

// propagation is how late receivers may be here.
const propagation = 15 * time.Second

// counts is a picture of the counters.
type counts struct {
	requests, calls map[string]int
	limited         []time.Time
	sets            int
}

func (w *world) counts() counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := counts{requests: map[string]int{}, calls: map[string]int{}, limited: slices.Clone(w.limited), sets: len(w.applied)}
	for k, v := range w.requests {
		c.requests[k] = v
	}
	for k, v := range w.calls {
		c.calls[k] = v
	}
	return c
}

// reader is a receiver: it knows the keys as they were when it last read them.
type reader struct {
	w    *world
	keys func(context.Context, secrets.Target) ([]string, error)

	mu   sync.Mutex
	view map[int64]seen

	sent, refused atomic.Int64
	bySecond      map[int64]int64 // refused, guarded by mu
}

type seen struct {
	keys []string
	at   time.Time
}

// keyringKeys are the keys that tiwkeyd's receivers accept; scriptKeys the one that the script's know.
func (w *world) keyringKeys(ctx context.Context, t secrets.Target) ([]string, error) {
	v, err := w.store.Secret(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	var secret struct{ Accept []string }
	return secret.Accept, json.Unmarshal(v.Content, &struct {
		Accept *[]string `json:"accept"`
	}{&secret.Accept})
}

func (w *world) scriptKeys(ctx context.Context, t secrets.Target) ([]string, error) {
	got, err := w.vault.Client(w.vault.Token).KVv2("secret").Get(ctx, fmt.Sprintf("script/%d", t.SdkAppID))
	if err != nil {
		return nil, err
	}
	key, _ := got.Data["callback_key"].(string)
	return []string{key}, nil
}

// callbacks sends callbacks for all targets in turn, so many a second, until ctx ends.
func (w *world) callbacks(ctx context.Context, rate int, keys func(context.Context, secrets.Target) ([]string, error)) (*reader, func()) {
	r := &reader{w: w, keys: keys, view: map[int64]seen{}, bySecond: map[int64]int64{}}
	ctx, end := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				t := w.targets[n%len(w.targets)]
				group.Go(func() { r.receive(ctx, t) })
			}
		}
	})
	return r, func() { end(); group.Wait() }
}

func (r *reader) receive(ctx context.Context, t secrets.Target) {
	expire := time.Now().Add(10 * time.Minute).Unix()
	r.mu.Lock()
	v := r.view[t.SdkAppID]
	r.mu.Unlock()
	if time.Since(v.at) > refresh {
		began := time.Now()
		keys, err := r.keys(ctx, t)
		if err != nil {
			if ctx.Err() == nil {
				r.w.t.Errorf("a receiver cannot read: %v", err)
			}
			return
		}
		r.mu.Lock()
		v = seen{keys, began}
		r.view[t.SdkAppID] = v
		r.mu.Unlock()
	}
	sign := tiwtest.Sign(r.w.tiw.KeyInForce(t.SdkAppID, service), expire)
	r.sent.Add(1)
	for _, k := range v.keys {
		if tiwtest.Sign(k, expire) == sign {
			return
		}
	}
	r.refused.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bySecond[time.Now().Unix()]++
}

// build gives the program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tiwkeyd")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "../cmd/tiwkeyd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func environment(w *world, more ...string) []string {
	return append([]string{"HOME=" + w.t.TempDir(), "PATH=" + os.Getenv("PATH"), "TZ=UTC", "VAULT_ADDR=" + w.proxy, "VAULT_TOKEN=" + w.vault.Token,
		"TENCENTCLOUD_SECRET_ID=" + secretID, "TENCENTCLOUD_SECRET_KEY=" + secretKey, "ENDPOINT=" + w.tiwURL, "TIWKEYD_TENCENT_ENDPOINT=" + w.tiwURL,
		"TIWKEYD_DISCOVER=true", "TIWKEYD_PROPAGATION=" + propagation.String(), "TIWKEYD_GRACE=10m"}, more...)
}
