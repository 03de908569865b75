package sdnotify

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestUnread: a systemd that reads nothing holds the daemon up for a moment, and not for ever.
func TestUnread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	var log bytes.Buffer
	n := &Notifier{Status: func() string { return "well" }, Alive: func() error { return nil }, Log: slog.New(slog.NewTextHandler(&log, nil))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !strings.Contains(log.String(), "systemd could not be told") { // its queue is a few messages long
			n.Ready()
		}
	}()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		t.Fatal("it waits for ever")
	}
	b := make([]byte, 100)
	if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1\nSTATUS=well" {
		t.Errorf("%q, %v", b[:n], err)
	}

	// What could not be told is told when it is read again: a start would end in a time-out.
	n.Status = func() string { return "later" }
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { n.Run(ctx) })
	defer group.Wait()
	defer stop()
	ready := 0
	for told := 0; told < 3; {
		size, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		switch text := string(b[:size]); {
		case text == "READY=1\nSTATUS=later\nWATCHDOG=1":
			ready++
			told++
		case strings.HasPrefix(text, "STATUS=later"):
			told++
		}
	}
	if ready != 1 {
		t.Errorf("told %d times that it is ready", ready)
	}
}
