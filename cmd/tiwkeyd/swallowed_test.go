package main

import (
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets/vault/vaulttest"
)

// forwarder passes TCP connections on, or swallows what comes on those that stand.
type forwarder struct {
	net.Listener
	mu    sync.Mutex
	stand []net.Conn // towards the server
}

func forward(t *testing.T, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{Listener: l}
	var group sync.WaitGroup
	var all []net.Conn
	group.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			f.stand = append(f.stand, out)
			all = append(all, in)
			f.mu.Unlock()
			group.Go(func() { _, _ = io.Copy(in, out) })
			group.Go(func() {
				_, _ = io.Copy(out, in)
				_, _ = io.Copy(io.Discard, in) // it is out that has gone
				_ = in.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.swallow()
		f.mu.Lock()
		for _, c := range all {
			_ = c.Close()
		}
		f.mu.Unlock()
		group.Wait()
	})
	return f
}

// swallow leaves the connections that stand as they are for who made them, but nothing passes there any more.
func (f *forwarder) swallow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.stand {
		_ = c.Close()
	}
	f.stand = nil
}

// TestSwallowedConnection: what stands between the daemon and Vault forgets the connection over which they speak
// HTTP/2. The daemon finds that out by itself, and goes on over a new one.
func TestSwallowedConnection(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	to, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	roots := filepath.Join(t.TempDir(), "roots")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	f := forward(t, front.Listener.Addr().String())
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon("VAULT_ADDR=https://"+f.Addr().String(), "VAULT_CACERT="+roots, "TIWKEYD_RECONCILE=10s")
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	before := r.currentID()
	f.swallow()
	began := time.Now()
	d.signal(syscall.SIGUSR1)
	r.await("a rotation over a new connection", func() bool { return r.settled() && r.currentID() != before })
	t.Logf("over it after %s", time.Since(began))
}
