//go:build receivers

package receivers_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/internal/testport"
)

// limit bounds each wait; nothing is measured with it.
const limit = 60 * time.Second

// process is a command that runs until the test's end.
type process struct {
	cmd    *exec.Cmd
	output lockedBuffer
	exited chan struct{}
}

// launch starts a command in a process group of its own, which does not outlive the test.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.WaitDelay = limit
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal at the parent's death is bound to this thread
		defer close(p.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
		refuseCanaries(t, "the output of "+filepath.Base(cmd.Path), p.output.String())
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(cmd.Path), p.output.String())
		}
	})
	return p
}

// await polls a condition until it holds or the process ends.
func (p *process) await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-p.exited:
			t.Fatalf("%s ended before %s", filepath.Base(p.cmd.Path), what)
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// server is a recipe that runs.
type server struct {
	*process
	place
	address string
	keyring string
	client  *http.Client
}

// serve starts a recipe with a keyring file of the given content; nil leaves it away.
func serve(t *testing.T, r recipe, keyring []byte) *server {
	t.Helper()
	address, port := testport.Free(t)
	s := &server{place: place{dir: t.TempDir(), port: port, application: newApplication(t)}, address: address}
	s.keyring = filepath.Join(s.dir, "keyring.json")
	if keyring != nil {
		replace(t, s.keyring, keyring)
	}
	s.client = &http.Client{Timeout: limit, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	t.Cleanup(s.client.CloseIdleConnections)
	cmd := r.command(t, s.place)
	cmd.Env = append(environment(), "KEYRING="+s.keyring, "SDK_APP_ID="+appText, "PORT="+port, "LAST_GOOD="+filepath.Join(s.dir, "last-good.json"))
	s.process = launch(t, cmd)
	s.await(t, "it listens", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return s
}

// environment is what a process gets beside its own variables.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
}

// post sends a callback and gives the answer; chunked hides its length.
func (s *server) post(t *testing.T, body []byte, chunked bool) (int, string) {
	t.Helper()
	var reader io.Reader = bytes.NewReader(body)
	if chunked {
		reader = io.MultiReader(reader)
	}
	return s.send(t, http.MethodPost, reader)
}

func (s *server) send(t *testing.T, method string, body io.Reader) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.address+"/any/path?q=1", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	refuseCanaries(t, "an answer", string(answer))
	return res.StatusCode, strings.TrimSpace(string(answer))
}

// accepts and refuses are what a test of fresh keys asks.
func (s *server) accepts(t *testing.T, key string) {
	t.Helper()
	if code, answer := s.post(t, callback(key), false); code != http.StatusOK || answer != `{"error_code":0}` {
		t.Fatalf("a genuine callback is answered %d %s", code, answer)
	}
}

func (s *server) refuses(t *testing.T, key string, want int) {
	t.Helper()
	if code, _ := s.post(t, callback(key), false); code != want {
		t.Fatalf("a callback is answered %d, where it must be %d", code, want)
	}
}

// application answers whatever it is sent, as one that leaves verification to its proxy.
type application struct {
	server *httptest.Server
	mu     sync.Mutex
	got    []string // method, path and body of each request
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.got = append(a.got, r.Method+" "+r.URL.String()+"\n"+string(body))
		a.mu.Unlock()
		_, _ = io.WriteString(w, `{"error_code":0}`)
	}))
	t.Cleanup(a.server.Close)
	return a
}

func (a *application) address() string { return a.server.Listener.Addr().String() }

func (a *application) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.got...)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
