package vault

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestConnectionsAreKept: as many requests as an engine makes at a time use the same connections again
// and again.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	to, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var made atomic.Int32
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	front.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	front.Start()
	defer front.Close()
	s, _ := open(t, front.URL, map[string]string{"VAULT_TOKEN": v.Token})
	for range 10 {
		var group sync.WaitGroup
		for range idleConnections {
			group.Go(func() {
				if _, err := s.Read(t.Context(), storetest.Target()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	// A connection that comes back a moment after the next request was sent is made once more.
	if n := made.Load(); n > 2*idleConnections {
		t.Errorf("%d connections for %d requests", n, 10*idleConnections)
	}
}

// TestConnectionsAreFew: while Vault does not answer, requests wait for each other and open no more connections.
func TestConnectionsAreFew(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	to, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	slow, full := make(chan struct{}), make(chan struct{})
	var asked, held, most atomic.Int32
	pass := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/data/") {
			if asked.Add(1) == mostConnections {
				close(full)
			}
			<-slow
		}
		pass.ServeHTTP(w, r)
	}))
	front.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			most.Store(max(most.Load(), held.Add(1)))
		case http.StateClosed:
			held.Add(-1)
		}
	}
	front.Start()
	defer front.Close()
	s, _ := open(t, front.URL, map[string]string{"VAULT_TOKEN": v.Token})
	var group sync.WaitGroup
	for range mostConnections + 5 {
		group.Go(func() {
			if _, err := s.Read(t.Context(), storetest.Target()); err != nil {
				t.Error(err)
			}
		})
	}
	<-full
	close(slow)
	group.Wait()
	if n := most.Load(); n > mostConnections {
		t.Errorf("%d connections at a time", n)
	}
}
