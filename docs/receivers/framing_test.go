//go:build receivers

package receivers_test

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestFraming sends requests whose length is a lie, none of which may be taken for genuine or
// put the server out of service.
func TestFraming(t *testing.T) {
	body := string(callback(current))
	const post = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
	requests := map[string]string{
		"no length, no body":        post + "\r\n",
		"no length":                 post + "\r\n" + body,
		"a word for a length":       post + "Content-Length: many\r\n\r\n" + body,
		"an empty length":           post + "Content-Length: \r\n\r\n" + body,
		"a negative length":         post + "Content-Length: -1\r\n\r\n" + body,
		"a very negative length":    post + "Content-Length: -1000000\r\n\r\n" + body,
		"a huge length":             post + "Content-Length: 99999999999999999999\r\n\r\n" + body,
		"broken off":                post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body[:len(body)-1],
		"broken off at once":        post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)),
		"longer than told":          post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)-1) + body,
		"a chunk of no size":        post + "Transfer-Encoding: chunked\r\n\r\nsize\r\n" + body + "\r\n0\r\n\r\n",
		"a chunk of negative size":  post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + body + "\r\n0\r\n\r\n",
		"a chunk of huge size":      post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + body + "\r\n0\r\n\r\n",
		"chunks broken off":         post + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(body)) + body[:len(body)-1],
		"no last chunk":             post + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(body)) + body + "\r\n",
		"chunks in no chunk":        post + "Transfer-Encoding: chunked\r\n\r\n" + body,
		"an encoding that is none":  post + "Transfer-Encoding: compressed\r\n\r\n" + body,
		"no HTTP":                   "hello\r\n\r\n",
		"only the beginning":        "POST / HTTP/1.1\r\nHost: local",
		"nothing":                   "",
		"a huge body, not all sent": post + "Content-Length: 1000000000\r\n\r\n" + body,
	}
	ok := regexp.MustCompile(`HTTP/1\.[01] 200`)
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, pending))
		for name, request := range requests {
			if r.file == "receiver.php" && strings.Contains(name, "huge") {
				continue // php -S itself, which is for trying only, runs out of memory
			}
			if answer := s.raw(t, request, false); ok.MatchString(answer) {
				t.Errorf("%s: answered %q", name, answer)
			}
			s.accepts(t, current)
		}
		if answer := s.raw(t, post+fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n%x\r\n", len(body)-1)+body[1:]+"\r\n0\r\n\r\n", true); !ok.MatchString(answer) {
			t.Errorf("a genuine callback in two chunks is answered %q", answer)
		}
	})
}

// raw sends a text and gives what comes back; unless it is whole, the server is told that
// nothing follows. That the server then breaks the connection is an answer, too.
func (s *server) raw(t *testing.T, request string, whole bool) string {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, request)
	if !whole {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	answer, err := io.ReadAll(c)
	if e, timeout := err.(net.Error); timeout && e.Timeout() {
		t.Errorf("%.60q keeps the server waiting", request)
	}
	return string(answer)
}

// TestStalledClients shows that clients which never send what they promised do not keep the
// server from the others.
func TestStalledClients(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		s := serve(t, r, keyring(t, previous, current, pending))
		for range 32 {
			c, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
				t.Fatal(err)
			}
		}
		s.accepts(t, current)
	})
}

// TestKeepAlive shows that a second callback may come over the same connection.
func TestKeepAlive(t *testing.T) {
	eachServer(t, func(t *testing.T, r recipe) {
		if r.file == "receiver.php" {
			return // php -S closes every connection
		}
		s := serve(t, r, keyring(t, previous, current, pending))
		body := string(callback(current))
		first := fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(body)) + body
		second := fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", len(body)) + body + "\r\n0\r\n\r\n"
		last := fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(body)) + body
		answer := s.raw(t, first+second+last, true)
		if n := len(regexp.MustCompile(`HTTP/1\.1 200`).FindAllString(answer, -1)); n != 3 {
			t.Errorf("%d of three callbacks over one connection are accepted: %q", n, answer)
		}
	})
}
