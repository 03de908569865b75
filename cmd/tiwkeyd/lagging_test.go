package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// lagging is a way to Vault over a node that tells what the keyring was: an old version until a write was
// refused, then once the one after it, then the truth.
type lagging struct {
	http.Handler
	mu     sync.Mutex
	old    [][]byte // answers that are left
	writes int      // that were refused meanwhile
}

func (l *lagging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/data/"+secretPath) {
		l.Handler.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodGet {
		l.mu.Lock()
		var answer []byte
		if len(l.old) > 0 {
			answer = l.old[0]
			if l.writes > 0 {
				answer, l.old = l.old[1], nil
			}
		}
		l.mu.Unlock()
		if answer != nil {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
			return
		}
	}
	seen := &withCode{ResponseWriter: w}
	l.Handler.ServeHTTP(seen, r)
	if seen.code == http.StatusBadRequest { // the check-and-set did not match
		l.mu.Lock()
		defer l.mu.Unlock()
		l.writes++
	}
}

type withCode struct {
	http.ResponseWriter
	code int
}

func (s *withCode) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// TestLaggingNode: a node of Vault tells two successive old versions, of which the second is the
// write that confirmed the first before a key was set. A daemon reads the first, its write is
// refused, and it finds the second. It must not take that for its own write: it would set a key
// that was retired since.
func TestLaggingNode(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	env := []string{"TIWKEYD_PROPAGATION=0s", "TIWKEYD_VAULT_KEEP_VERSIONS=true"}
	r.finishes(env, "rotate", testTarget.String())
	r.finishes(env, "rotate", testTarget.String())
	d := r.daemon(env...)
	r.await("the older keys are retired", func() bool { return r.settled() && len(r.keyring().Keys) == 1 })
	d.signal(syscall.SIGTERM)
	<-d.done

	of := func(version string) []byte {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, v.Addr+"/v1/secret/data/"+secretPath+"?version="+version, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", v.Token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(b), `"state":"pending"`) || !strings.Contains(string(b), oldKey) {
			t.Fatalf("version %s is not one in which the first key is to be replaced: %v, %s", version, err, res.Status)
		}
		return b
	}
	node, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	l := &lagging{Handler: httputil.NewSingleHostReverseProxy(node), old: [][]byte{of("2"), of("3")}}
	web := httptest.NewServer(l)
	t.Cleanup(web.Close)
	inForce, sets := r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)), r.setCalls()
	// While receivers come to know the pending key of the old version, the daemon puts right what is in force.
	late := r.daemon("VAULT_ADDR="+web.URL, "TIWKEYD_PROPAGATION=2s")
	r.await("the daemon has met the truth", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.old == nil
	})
	r.awaitOutput(late, `"why":"settled"`)
	if n := r.setCalls() - sets; n > 0 || r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service)) != inForce {
		t.Errorf("%d Set calls: a key that was retired is in force again", n)
	}
	before := r.currentID()
	late.signal(syscall.SIGUSR1)
	r.await("the daemon goes on", func() bool { return r.settled() && r.currentID() != before })
}
