package observe

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"tiwkeyd/internal/connlimit"
	"tiwkeyd/internal/testport"
)

var quiet = slog.New(slog.DiscardHandler)

func get(t *testing.T, addr string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + "/healthz")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// TestMove serves at one address after the other.
func TestMove(t *testing.T) {
	t.Parallel()
	s := &Server{Handler: New(Build{}).Handler(), Limit: connlimit.New("page", 64, 0)}
	defer s.Close()
	if s.Addr() != "" {
		t.Error(s.Addr())
	}
	listen := func(addr string) error { t.Helper(); return s.Listen(addr, quiet) }
	a, port := testport.Free(t)
	if err := listen(a); err != nil || get(t, a) != "ok\n" || s.Addr() != a {
		t.Fatalf("%v, %s at %s", err, get(t, a), s.Addr())
	}
	// A connection that is open stays open where nothing changes: it is the same socket.
	conn, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	before := s.front
	if err := listen(a); err != nil || s.front != before {
		t.Errorf("the same address: %v, and another socket", err)
	}
	if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("%s, %v", line, err)
	}
	// Where it cannot listen, everything stays.
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := listen(other.Addr().String()); err == nil || !strings.Contains(err.Error(), "TIWKEYD_HTTP_ADDR") || s.front != before || get(t, a) != "ok\n" {
		t.Errorf("an address that is taken: %v, %s", err, get(t, a))
	}
	b, _ := testport.Free(t)
	if err := listen(b); err != nil || get(t, b) != "ok\n" || get(t, a) == "ok\n" {
		t.Errorf("another address: %v, there %s, here %s", err, get(t, b), get(t, a))
	}
	// The same port at all addresses excludes the port at one of them.
	if err := listen(a); err != nil {
		t.Error(err)
	}
	if err := listen("0.0.0.0:" + port); err != nil || get(t, a) != "ok\n" {
		t.Errorf("all addresses: %v", err)
	}
	// And an address that this machine does not have leaves the old one.
	if err := listen("192.0.2.1:" + port); err == nil || get(t, a) != "ok\n" {
		t.Errorf("not an address of ours: %v, %s", err, get(t, a))
	}
	if err := listen(""); err != nil || s.Addr() != "" || get(t, a) == "ok\n" {
		t.Errorf("none: %v, %s", err, get(t, a))
	}
	if err := listen(a); err != nil || get(t, a) != "ok\n" {
		t.Errorf("again: %v", err)
	}
}

// TestTakenBack: the port is ours at one address and somebody else's at another.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	s := &Server{Handler: New(Build{}).Handler(), Limit: connlimit.New("page", 64, 0)}
	defer s.Close()
	a, port := testport.Free(t)
	if err := s.Listen(a, quiet); err != nil {
		t.Fatal(err)
	}
	foreign, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Close() }()
	if err := s.Listen("0.0.0.0:"+port, quiet); err == nil || get(t, a) != "ok\n" || s.Addr() != a {
		t.Errorf("%v, %s at %s", err, get(t, a), s.Addr())
	}
	if err := s.Listen(a, quiet); err != nil || get(t, a) != "ok\n" {
		t.Errorf("the old address again: %v", err)
	}
}
