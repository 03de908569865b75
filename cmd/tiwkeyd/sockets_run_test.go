package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// limited starts the program with no more open files than nofile.
func (r *rig) limited(nofile int, args []string, env ...string) *process {
	r.t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.startProgram(shell, append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, nofile), self}, args...), env...)
}

// siege is connections that hold what they get, and come again when they are sent away.
type siege struct {
	times atomic.Int64 // that one of them got in
	group sync.WaitGroup
	stop  context.CancelFunc
}

// elsewhere is where those come from who besiege, as they mostly do: not from where callbacks do.
var elsewhere = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}

// besiege opens n connections to an address, each of which says what it is given and then, if drip is
// not "", that again and again. It returns when each has connected once.
func besiege(t testing.TB, n int, address, says, drip string) *siege {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &siege{stop: stop}
	t.Cleanup(s.end)
	var first sync.WaitGroup
	first.Add(n)
	for range n {
		s.group.Go(func() {
			arrived := sync.OnceFunc(first.Done)
			defer arrived()
			pause := time.NewTimer(0)
			defer pause.Stop()
			for ctx.Err() == nil {
				c, err := (&net.Dialer{Timeout: hang, LocalAddr: elsewhere}).DialContext(ctx, "tcp", address)
				if err != nil {
					continue
				}
				leave := context.AfterFunc(ctx, func() { _ = c.Close() })
				_, _ = io.WriteString(c, says)
				s.times.Add(1)
				arrived()
				if drip != "" {
					tick := time.NewTicker(100 * time.Millisecond)
					for err == nil && ctx.Err() == nil {
						<-tick.C
						_, err = io.WriteString(c, drip)
					}
					tick.Stop()
				}
				_, _ = io.Copy(io.Discard, c)
				leave()
				_ = c.Close()
				pause.Reset(time.Second)
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	first.Wait()
	return s
}

func (s *siege) end() { s.stop(); s.group.Wait() }

// impatient gives up in the end, so that a server that is silent fails the test.
func impatient(keepAlives bool) *http.Client {
	return &http.Client{Timeout: hang / 4, Transport: &http.Transport{DisableKeepAlives: !keepAlives}}
}

// ask asks n times, each time on a new connection, and has every answer be 200.
func ask(t testing.TB, n int, url string) {
	t.Helper()
	c := impatient(false)
	c.Timeout = 2 * time.Minute // with the race detector a thousand requests take their time; only a hang is not waited for
	for i := range n {
		res, err := c.Get(url)
		if err != nil {
			t.Fatalf("%s, time %d of %d: %v", url, i+1, n, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d", url, res.StatusCode)
		}
	}
}

// open is how many files a process has open, and kB how much memory is resident.
func open(t testing.TB, p *process) (files, kB int) {
	t.Helper()
	needsProc(t)
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	_, _ = fmt.Sscanf(rest, "%d kB", &kB)
	return len(all), kB
}

// spread says what the median and the longest of some times are.
func spread(times []time.Duration) string {
	slices.Sort(times)
	return fmt.Sprintf("median %s, longest %s of %d", times[len(times)/2].Round(10*time.Microsecond), times[len(times)-1].Round(10*time.Microsecond), len(times))
}

// promised announces a body of which nothing comes.
func promised(method, path string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
}

// TestSocketsOfRun: connections that promise a request, more than there may be files, keep neither health
// nor a rotation from anybody.
func TestSocketsOfRun(t *testing.T) {
	slow(t)
	t.Parallel()
	for nofile, connections := range map[int]int{256: 300, 1024: 1500} {
		t.Run(strconv.Itoa(nofile), func(t *testing.T) {
			r := newRig(t)
			r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
			d := r.limited(nofile, []string{"run"}, "TIWKEYD_HTTP_ADDR=127.0.0.1:0", "TIWKEYD_LOG_LEVEL=info")
			r.awaitOutput(d, "serves these targets")
			r.await("a first rotation", r.settled)
			p := r.pages()
			addr := p.at(d)
			ask(t, 1, "http://"+addr+"/healthz")
			_, memory := open(t, d)

			s := besiege(t, connections, addr, promised("GET", "/healthz"), "")
			before := r.currentID()
			ask(t, 10, "http://"+addr+"/healthz")
			d.signal(syscall.SIGUSR1)
			r.await("a rotation", func() bool { return r.currentID() != before && r.settled() })
			ask(t, 10, "http://"+addr+"/healthz")
			files, grown := open(t, d)
			if files >= nofile {
				t.Errorf("%d files are open", files)
			}
			if n, _ := strconv.Atoi(p.value(addr, `tiwkeyd_connections_closed_total{server="page"}`)); n < connections/4 {
				t.Errorf("%d connections were closed", n)
			}
			held := p.value(addr, `tiwkeyd_connections{server="page"}`)
			if held == "" || p.value(addr, `tiwkeyd_connections_limit{server="page"}`) != strconv.Itoa(nofile/4) {
				t.Errorf("%s connections are held", held)
			}
			if n := strings.Count(d.String(), "all connections are taken"); n < 1 || n > 5 {
				t.Errorf("it is told %d times:\n%s", n, tail(d.String()))
			}
			t.Logf("nofile %d: %d connections came %d times; %s held, %d files; memory %d → %d kB", nofile, connections, s.times.Load(), held, files, memory, grown)
			s.end()
			ask(t, 1, "http://"+addr+"/readyz")
		})
	}
}

// TestTakersOfNothing: who asks for the metrics and does not take them keeps health from nobody.
func TestTakersOfNothing(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.limited(256, []string{"run"}, "TIWKEYD_HTTP_ADDR=127.0.0.1:0", "TIWKEYD_LOG_LEVEL=info")
	r.awaitOutput(d, "serves these targets")
	addr := r.pages().at(d)
	request := "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	for range 100 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		_, _ = io.WriteString(c, strings.Repeat(request, 500)) // answers of megabytes, none of which is read
	}
	ask(t, 10, "http://"+addr+"/healthz")
}
