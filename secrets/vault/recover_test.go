package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// sealedAtFirst starts with a Vault that is sealed: the token, which could not be renewed
// then, is renewed once Vault serves again, or it would run out for good.
func sealedAtFirst(t *testing.T, v *vaulttest.Server) {
	token := v.NewToken("tiwkeyd", "1h")
	v.Seal()
	s, log := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	_, err := s.Read(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "unseal") {
		t.Errorf("sealed: %v", err)
	}
	shows(t, log, token, err)
	v.Unseal()
	if _, err := s.Read(t.Context(), target); err != nil {
		t.Errorf("unsealed: %v", err)
	}
	root := v.Client(v.Token)
	await(t, "a renewed token", func() bool {
		got, err := root.Auth().Token().Lookup(token)
		if err != nil {
			t.Fatal(err)
		}
		return got.Data["last_renewal"] != nil
	})
}

// proxysPage has a proxy before Vault answer with a page that quotes the request.
func proxysPage(t *testing.T, v *vaulttest.Server, token string) {
	for _, status := range []int{403, 404, 400, 502} {
		var wrote atomic.Bool
		u := proxy(t, v, func(*http.Request) bool { return true })
		page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if isWrite(r) {
				wrote.Store(true)
			}
			if !isWrite(r) && !wrote.Load() {
				req, err := http.NewRequestWithContext(r.Context(), r.Method, u+r.URL.RequestURI(), nil)
				if err != nil {
					panic(err)
				}
				req.Header = r.Header
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				defer func() { _ = res.Body.Close() }()
				w.WriteHeader(res.StatusCode)
				_, _ = io.Copy(w, res.Body)
				return
			}
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, "<html>refused: %s %s %s</html>", r.URL, r.Header, body)
		})
		server := httptest.NewServer(page)
		s, log := open(t, server.URL, withToken(token))
		target := storetest.Target()
		if _, err := s.Read(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		_, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
		if err == nil || (status != 404 && !strings.Contains(err.Error(), "not Vault's")) {
			t.Errorf("%d: %v", status, err)
		}
		storetest.Quiet(t, err)
		shows(t, log, token, err)
		server.Close()
	}
}

// proxyDeniesAll has a proxy before Vault answer every request with a page of its own for a
// while. That says nothing about the token, which may be the last that the secret id was good for.
func proxyDeniesAll(t *testing.T, v *vaulttest.Server) {
	role, secret := v.AppRole("once", "tiwkeyd", "1h", "1h")
	var deny atomic.Bool
	to, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if deny.Load() {
			http.Error(w, "<html>not for you</html>", http.StatusForbidden)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	defer server.Close()
	s, log := open(t, server.URL, map[string]string{"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret})
	target := storetest.Target()
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	token := s.client.Token()
	deny.Store(true)
	_, err = s.Read(t.Context(), target)
	if err == nil || !strings.Contains(err.Error(), "HTTP status 403, with an answer that is not Vault's") {
		t.Errorf("%v", err)
	}
	deny.Store(false)
	if _, err := s.Read(t.Context(), target); err != nil || s.client.Token() != token {
		t.Errorf("the token was given up for a proxy's word: %v", err)
	}
	shows(t, log, token, err)
}

// deletedBySettings has a mount that deletes its secrets after a while: it is told.
func deletedBySettings(t *testing.T, v *vaulttest.Server, token string) {
	root := v.Client(v.Token)
	set := func(after string) {
		t.Helper()
		if _, err := root.Logical().Write("secret/config", map[string]any{"delete_version_after": after}); err != nil {
			t.Fatal(err)
		}
	}
	set("1h")
	defer set("0s")
	s, log := open(t, v.Addr, withToken(token))
	target := storetest.Target()
	if _, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(t.Context(), target); err != nil || got.Keyring == nil || !strings.Contains(log.String(), "set delete_version_after to 0") {
		t.Errorf("%v, %v, %s", got.Keyring, err, log)
	}
}

// TestCloseWithVaultHanging: nothing that Vault holds up holds up the end of the program.
func TestCloseWithVaultHanging(t *testing.T) {
	var hang atomic.Bool
	reached := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hang.Load() {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"auth": {"client_token": "t", "renewable": true, "lease_duration": 1}, "data": {}}`)
			return
		}
		reached <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	s, _ := open(t, server.URL, map[string]string{"VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"})
	if _, err := s.session.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { awaitNoRenewal(t) })
	hang.Store(true)
	<-reached // a renewal is under way
	if s.session.acquireLock(t.Context()) != nil {
		t.Fatal("no lock")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.session.ready(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a call waits for the login of another one: %v", err)
	}
	s.session.releaseLock()
	s.Close() // or the test hangs
}

// awaitNoRenewal waits for the library's last retry of a renewal, which takes no context.
func awaitNoRenewal(t *testing.T) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for stacks := make([]byte, 1<<20); ; {
		n := runtime.Stack(stacks, true)
		if !bytes.Contains(stacks[:n], []byte("api.(*LifetimeWatcher)")) {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-limit.C:
			t.Fatalf("a renewal never ends:\n%s", stacks[:n])
		}
	}
}

// ownWriteRespelt loses the answer to a write whose unknown members Vault gives back in
// another order and spelling.
func ownWriteRespelt(t *testing.T, v *vaulttest.Server, token string) {
	var lose atomic.Bool
	s, _ := open(t, proxy(t, v, func(r *http.Request) bool { return !isWrite(r) || !lose.Load() }), withToken(token))
	target := storetest.Target()
	k, err := rotator.DecodeKeyring(target, fmt.Appendf(nil, `{"schema":1,"sdk_app_id":%d,"service":"whiteboard-push",
		"future":{"z":1e2,"a":[1.50,"<b>"]},"keys":[{"id":"a","value":"%sx","state":"current"}]}`, target.SdkAppID, storetest.Canary))
	if err != nil {
		t.Fatal(err)
	}
	lose.Store(true)
	if got, err := s.Write(t.Context(), target, k, 0); err != nil || got != 1 {
		t.Errorf("an own write whose answer was lost: %d, %v", got, err)
	}
}

// numberTooLarge has an SdkAppId that Vault would round: it is refused before it is there
// and can never be read again.
func numberTooLarge(t *testing.T, v *vaulttest.Server, token string) {
	s, _ := open(t, v.Addr, withToken(token))
	for id, fits := range map[int64]bool{maxExact: true, maxExact + 1: false} {
		target := secrets.Target{SdkAppID: id, Service: secrets.WhiteboardPush}
		_, err := s.Write(t.Context(), target, storetest.Keyring(target, 1), 0)
		if fits != (err == nil) {
			t.Errorf("SdkAppId %d: write: %v", id, err)
		}
		got, err := s.Read(t.Context(), target)
		if err != nil || fits != (got.Keyring != nil) {
			t.Errorf("SdkAppId %d: reads as %+v, %v", id, got, err)
		}
	}
}
