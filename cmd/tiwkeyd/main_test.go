package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/rotator"
)

// The test program is tiwkeyd itself when it is told so. It then runs so many times as fast
// as the real one, and can send itself a signal at a given point of a step, which is how
// tests kill or stop it there.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_TIWKEYD") == "" {
		os.Exit(m.Run())
	}
	stderr := &listener{heard: make(chan struct{}), marked: make(chan struct{})}
	p := &program{stdout: os.Stdout, stderr: stderr, adjust: faster}
	p.events = signalSelf(p, stderr)
	p.stall, _ = time.ParseDuration(os.Getenv("TEST_STALL"))
	p.room, _ = strconv.Atoi(os.Getenv("TEST_LOG_ROOM"))
	os.Exit(p.main(os.Args[1:]))
}

// listener is standard error, and tells when the program says that it is to end, and when a test's own mark was written.
type listener struct {
	once, mark    sync.Once
	heard, marked chan struct{}
}

func (l *listener) Write(b []byte) (int, error) {
	n, err := os.Stderr.Write(b)
	if bytes.Contains(b, []byte(`"msg":"stopping`)) {
		l.once.Do(func() { close(l.heard) })
	}
	if bytes.Contains(b, []byte("test: ")) {
		l.mark.Do(func() { close(l.marked) })
	}
	return n, err
}

const speed = 60

// faster scales all but Propagation, which tests set outright: in TIWKEYD_PROPAGATION, or in
// TEST_PROPAGATION where the program is to be told of another.
func faster(p *rotator.Policy) {
	n, err := strconv.ParseInt(os.Getenv("TEST_SPEED"), 10, 64)
	if err != nil {
		n = speed
	}
	p.Timing = scaled(p.Timing, n)
	for _, d := range []*time.Duration{&p.Grace, &p.AttemptLimit, &p.Reconcile} {
		*d /= time.Duration(n)
	}
	if d, err := time.ParseDuration(os.Getenv("TEST_PROPAGATION")); err == nil {
		p.Propagation = d
	}
}

// signalSelf reads TEST_SIGNAL_AT, "STEP:PHASE:SIGNAL", and sends the signal the first time.
// After TERM the step goes on when the program knows that it is to end; after HANG it never does.
func signalSelf(p *program, stderr *listener) func(rotator.Event) {
	parts := strings.Split(os.Getenv("TEST_SIGNAL_AT"), ":")
	if len(parts) != 3 {
		return nil
	}
	sig := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "TERM": syscall.SIGTERM}[parts[2]]
	done := false
	return func(ev rotator.Event) {
		if string(ev.Step) == parts[0] && string(ev.Kind) == parts[1] && !done {
			done = true
			// Behind the lines that wait to be written, which a kill would cost.
			fmt.Fprintf(p.stderr, "test: %s at %s:%s\n", parts[2], parts[0], parts[1])
			<-stderr.marked
			if parts[2] == "HANG" {
				select {}
			}
			strike(sig)
			if sig == syscall.SIGTERM {
				<-stderr.heard
			}
		}
	}
}
