package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tiwkeyd/internal/testport"
	"tiwkeyd/rotator"
)

// logEnd is what a program's standard error leads to: a pipe, or a socket as journald's. It is read
// when the test says so, and not on and on.
type logEnd struct {
	t     testing.TB
	ours  *os.File
	child *os.File
	pipe  bool
}

func newLogEnd(t testing.TB, pipe bool) *logEnd {
	t.Helper()
	l := &logEnd{t: t, pipe: pipe}
	var err error
	if pipe {
		l.ours, l.child, err = os.Pipe()
	} else {
		var fds [2]int
		if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			unix.CloseOnExec(fds[0])
			unix.CloseOnExec(fds[1])
			err = unix.SetNonblock(fds[0], true)
			l.ours, l.child = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "child")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.ours.Close(), l.child.Close() })
	return l
}

// stuff fills it until not one more line goes in, as nobody reads it. The program's next write waits
// for ever.
func (l *logEnd) stuff() {
	l.t.Helper()
	write := func(b []byte) error {
		return unix.Sendmsg(int(l.child.Fd()), b, nil, nil, unix.MSG_DONTWAIT)
	}
	if l.pipe { // its own way in, or the program's would not wait either
		needsProc(l.t)
		way, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", l.child.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			l.t.Fatal(err)
		}
		defer func() { _ = unix.Close(way) }()
		write = func(b []byte) error { _, err := unix.Write(way, b); return err }
	}
	for _, size := range []int{1 << 10, 1} {
		for {
			if err := write(bytes.Repeat([]byte("\n"), size)); errors.Is(err, unix.EAGAIN) {
				break
			} else if err != nil {
				l.t.Fatal(err)
			}
		}
	}
}

// read reads all from now on.
func (l *logEnd) read(to *output) {
	go func() { _, _ = io.Copy(to, l.ours) }()
}

// readUntil reads no further than to a text.
func (l *logEnd) readUntil(text string) {
	l.t.Helper()
	var all []byte
	b := make([]byte, 1)
	for !strings.Contains(string(all), text) {
		if _, err := l.ours.Read(b); err != nil {
			l.t.Fatalf("%v after %s", err, all)
		}
		all = append(all, b[0])
	}
}

var lostLines = regexp.MustCompile(`"level":"WARN","msg":"lines of this log were lost[^"]*","lost":(\d+),"since":"`)

// within has something be over in a time that only somebody who hangs needs.
func (r *rig) within(p *process, what string, do func()) {
	r.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		_ = p.cmd.Process.Kill()
		<-done
		r.t.Fatalf("%s: it hung", what)
	}
}

func lostBy(t testing.TB, metrics, why string) int {
	t.Helper()
	_, text := get(t, metrics+"/metrics")
	_, rest, _ := strings.Cut(text, `tiwkeyd_log_lines_lost_total{why="`+why+`"} `)
	n, _, _ := strings.Cut(rest, "\n")
	lost, err := strconv.Atoi(n)
	if err != nil {
		t.Error(err)
	}
	return lost
}

// logFates are what becomes of who reads the log.
var logFates = []struct {
	name         string
	pipe, closed bool
}{{"a pipe that nobody reads", true, false}, {"a socket that nobody reads", false, false}, {"a pipe whose reader is gone", true, true}, {"a socket whose reader is gone", false, true}}

// TestProxyLogUnread: a proxy whose log is not read goes on to verify, to read new keys and to tell
// how it is; what was lost is counted, and told of when the log is read.
func TestProxyLogUnread(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, fate := range logFates {
		t.Run(fate.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			first, second := r.newKey(), r.newKey()
			r.put(testTarget, entry(first, rotator.Current))
			l := newLogEnd(t, fate.pipe)
			r.stderr = l.child
			at, _ := testport.Free(t)
			metrics, _ := testport.Free(t)
			p := r.start([]string{"proxy", "--listen", at, "--metrics", metrics, "--upstream", r.standing(nil)}, "TEST_LOG_ROOM=2000")
			url, metrics := "http://"+at, "http://"+metrics
			l.readUntil("hands genuine callbacks on")
			r.await("it is ready", func() bool { status, _ := get(t, metrics+"/readyz"); return status == http.StatusOK })
			why := "unread"
			if fate.closed {
				why = "failed"
				_ = l.ours.Close()
			} else {
				l.stuff()
			}
			r.within(p, "forged callbacks", func() {
				var group sync.WaitGroup
				for range 4 {
					group.Go(func() {
						for n := range 25 {
							if status, text := send(t, url, "{"); status != http.StatusBadRequest {
								t.Errorf("a forged callback: %d %s", status, text)
							}
							if n >= 3 { // each waits for the keys to be read again, which is done once a second
								continue
							}
							if status, text := send(t, url, r.fresh(1400009999, first)); status != http.StatusUnauthorized {
								t.Errorf("a forged callback: %d %s", status, text)
							}
						}
					})
				}
				group.Wait()
			})
			r.put(testTarget, entry(first, rotator.Previous), entry(second, rotator.Current))
			r.within(p, "a callback with a new key", func() {
				if status, text := send(t, url, r.fresh(testTarget.SdkAppID, second)); status != http.StatusOK {
					t.Errorf("a callback with a new key: %d %s", status, text)
				}
			})
			r.within(p, "readiness", func() {
				if status, text := get(t, metrics+"/readyz"); status != http.StatusOK {
					t.Errorf("readyz: %d %s", status, text)
				}
			})
			r.await("lines are lost", func() bool { return lostBy(t, metrics, why) > 0 })
			if p.exited() {
				t.Fatalf("it ended with %d", p.code)
			}
			if !fate.closed {
				l.read(p.output)
				r.await("all that were lost are told of", func() bool { // some may have been lost since they were counted
					told := 0
					for _, m := range lostLines.FindAllStringSubmatch(p.String(), -1) {
						n, _ := strconv.Atoi(m[1])
						told += n
					}
					return told > 0 && told == lostBy(t, metrics, why)
				})
				if lostBy(t, metrics, "failed") != 0 {
					t.Error("lines could not be written")
				}
			}
			p.signal(syscall.SIGTERM)
			r.within(p, "its end", func() { <-p.done })
			if p.code != 0 {
				t.Errorf("exit status %d", p.code)
			}
			if !fate.closed {
				r.awaitOutput(p, `"msg":"stopped"`)
			}
		})
	}
}

// TestRunLogUnread: a daemon whose log is not read, at level debug, rotates and tells how it is.
func TestRunLogUnread(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, fate := range logFates {
		t.Run(fate.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
			l := newLogEnd(t, fate.pipe)
			r.stderr = l.child
			at, _ := testport.Free(t)
			d := r.start([]string{"run"}, "TEST_LOG_ROOM=2000", "TIWKEYD_HTTP_ADDR="+at)
			l.readUntil("serves these targets")
			why := "unread"
			if fate.closed {
				why = "failed"
				_ = l.ours.Close()
			} else {
				l.stuff()
			}
			r.await("its key is taken over", func() bool { return r.settled() })
			for range 2 {
				before := r.currentID()
				d.signal(syscall.SIGUSR1)
				r.await("a rotation", func() bool { return r.currentID() != before && r.settled() })
			}
			r.within(d, "readiness", func() {
				if status, text := get(t, "http://"+at+"/readyz"); status != http.StatusOK {
					t.Errorf("readyz: %d %s", status, text)
				}
			})
			r.await("lines are lost", func() bool { return lostBy(t, "http://"+at, why) > 0 })
			d.signal(syscall.SIGHUP)
			r.await("a reload", func() bool {
				_, text := get(t, "http://"+at+"/metrics")
				return strings.Contains(text, `tiwkeyd_config_reloads_total{result="done"} 1`)
			})
			if d.exited() {
				t.Fatalf("it ended with %d", d.code)
			}
			if fate.name == logFates[0].name { // its end does not wait for who reads nothing
				d.signal(syscall.SIGTERM)
				r.within(d, "its end", func() { <-d.done })
			} else {
				if !fate.closed {
					l.read(d.output)
					r.await("it is told of", func() bool { return lostLines.MatchString(d.String()) })
				}
				d.signal(syscall.SIGTERM)
				<-d.done
			}
			if d.code != 0 {
				t.Errorf("exit status %d", d.code)
			}
		})
	}
}

// TestLibraryLine: what a library says by itself is a line of the log as any other.
func TestLibraryLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	p := r.proxy(r.standing(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokand what nobody asked for")
	}), nil)
	send(t, p.url, r.fresh(testTarget.SdkAppID, k))
	r.awaitOutput(p.process, `"msg":"Unsolicited response received on idle HTTP channel`)
}

// TestLastWords: who ends with an error says it, and all before it, to who reads.
func TestLastWords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at, _ := testport.Free(t)
	taken, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	out, code := r.run([]string{"run"}, "TIWKEYD_HTTP_ADDR="+at, "TIWKEYD_ODD=1")
	if code != exitUsage || !strings.Contains(out, "variables that mean nothing") || !strings.HasSuffix(out, "address already in use\n") {
		t.Errorf("%d\n%s", code, out)
	}
}

// TestHead: in a shell, what only tells ends when nobody reads on; what changes something does not.
func TestHead(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	l := newLogEnd(t, true)
	_ = l.ours.Close()
	r.stdout, r.stderr = l.child, l.child
	rotate := r.start([]string{"rotate"})
	<-rotate.done
	if rotate.code != 0 || !r.settled() {
		t.Errorf("rotate ended with %d", rotate.code)
	}
	status := r.start([]string{"status"})
	<-status.done
	if s, ok := status.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGPIPE {
		t.Errorf("status ended with %v", status.cmd.ProcessState)
	}
	r.stdout, r.stderr = nil, nil
	if out, code := r.run([]string{"version"}); code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
}
