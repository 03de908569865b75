package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/tencent/tiwtest"
)

// guarded is a proxy with a key of its own, and what it takes to send it a genuine callback.
func guarded(t *testing.T, args ...string) (p *process, address string, genuine []byte) {
	t.Helper()
	r := newRig(t)
	key, err := secrets.GenerateKey(nil, secrets.MaxKeyLength)
	if err != nil {
		t.Fatal(err)
	}
	r.secret(key.Reveal())
	k := &rotator.Keyring{Target: testTarget, RotatedAt: time.Now(), Keys: []rotator.Entry{{Key: key, State: rotator.Current, CreatedAt: time.Now(), ActivatedAt: time.Now()}}}
	if _, err := r.store.Write(t.Context(), testTarget, k, 0); err != nil {
		t.Fatal(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	t.Cleanup(receiver.Close)
	p = r.start(append([]string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "", "--upstream", receiver.URL}, args...), "TIWKEYD_LOG_LEVEL=info")
	r.awaitOutput(p, "hands genuine callbacks on")
	address = announced(p.String(), "listen")
	genuine = tiwtest.Callback(testTarget.SdkAppID, "WhiteboardPushStarted", 1, key.Reveal(), time.Now().Add(time.Hour))
	mustPass(t, address, genuine)
	return p, address, genuine
}

func mustPass(t *testing.T, address string, genuine []byte) {
	t.Helper()
	res, err := http.Post("http://"+address, "application/json", strings.NewReader(string(genuine)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("a genuine callback was answered %d", res.StatusCode)
	}
}

// highWater is the most memory that a process had resident, in kB.
func highWater(t *testing.T, p *process) (kB int) {
	t.Helper()
	needsProc(t)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(rest, "%d kB", &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}

// zeros is a body of a gigabyte, and counts what was taken of it: also after the answer has
// come, by the goroutine that sends it.
type zeros struct{ taken atomic.Int64 }

const gigabyte = 1 << 30

func (z *zeros) Read(p []byte) (int, error) {
	if z.taken.Add(int64(len(p))) > gigabyte {
		return 0, io.EOF
	}
	return len(p), nil
}

// TestHugeBody: of a gigabyte the proxy takes no more than the limit, and what the kernel has
// on the way.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	p, address, genuine := guarded(t)
	before := highWater(t, p)
	for _, announced := range []int64{gigabyte, -1} {
		body := &zeros{}
		req, err := http.NewRequest(http.MethodPost, "http://"+address, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = announced
		res, err := http.DefaultTransport.RoundTrip(req)
		// The connection is closed: the answer may come through or not.
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("a gigabyte was answered %d", res.StatusCode)
			}
		}
		if n := body.taken.Load(); n > 64<<20 {
			t.Errorf("%d bytes of it were taken", n)
		}
		mustPass(t, address, genuine)
	}
	(&rig{t: t}).awaitOutput(p, "too large")
	grown := highWater(t, p) - before
	t.Logf("resident memory grew by %d kB", grown)
	if !raceEnabled && grown > 32<<10 {
		t.Errorf("resident memory grew by %d kB", grown)
	}
}

// TestIdleConnections: ten thousand connections on which nothing comes, or half a request, are
// held while they may be, and genuine callbacks pass.
func TestIdleConnections(t *testing.T) {
	slow(t)
	t.Parallel()
	p, address, genuine := guarded(t)
	const connections = 10_000
	before := highWater(t, p)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range connections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v (the limit of open files must be above %d: ulimit -n)", i, err, connections)
		}
		conns = append(conns, c)
		if i%2 == 0 {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n")
		}
		if i%1000 == 0 {
			mustPass(t, address, genuine)
		}
	}
	mustPass(t, address, genuine)
	t.Logf("%d idle connections; resident memory grew by %d kB", connections, highWater(t, p)-before)
}

// TestSlowBodies: who sends a byte now and then is sent away.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	_, address, genuine := guarded(t, "--body-timeout", "300ms")
	var conns []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					_, _ = io.WriteString(c, "x")
				}
			}
		}()
		answer, err := io.ReadAll(c)
		close(stop)
		// Bytes that come after the end make the system reset the connection.
		var reset *net.OpError
		if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") && (err == nil || !errors.As(err, &reset)) {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	mustPass(t, address, genuine)
}
