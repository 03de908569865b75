// Package sdnotify tells systemd how a daemon is: ready, reloading, stopping, a line for
// `systemctl status`, and, as long as it gets on, that it is alive. Without NOTIFY_SOCKET it
// does nothing.
package sdnotify

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often the line is told anew where no watchdog sets the pace.
const statusEvery = 30 * time.Second

// Notifier tells systemd. Status and Alive are asked from other goroutines.
type Notifier struct {
	Status func() string // how things are, in one line, without secrets
	Alive  func() error  // what is wrong that a restart would mend, if anything
	Log    *slog.Logger

	owed atomic.Bool // that the daemon is ready
}

// Ready says that the daemon serves, after a start or a reload.
func (n *Notifier) Ready() { n.owed.Store(!n.send(daemon.SdNotifyReady + "\nSTATUS=" + n.Status())) }

// Reloading says that a reload begins, as Type=notify-reload wants to have it said. Ready
// ends it.
func (n *Notifier) Reloading() {
	n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + "STATUS=reloading")
}

// Stopping says that the daemon is about to end.
func (n *Notifier) Stopping() {
	n.send(daemon.SdNotifyStopping + "\nSTATUS=the step in hand is finished first")
}

// Run feeds the watchdog, if there is one and nothing is stuck, and keeps the line up to date,
// until ctx ends.
func (n *Notifier) Run(ctx context.Context) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	every := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.Log.Warn("systemd's watchdog is not fed", "error", err.Error())
	}
	if watchdog > 0 {
		every = watchdog / 2 // as sd_watchdog_enabled(3) advises
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		alive := n.Alive()
		message := "STATUS=" + n.Status()
		switch {
		case alive != nil:
			n.Log.Error("systemd's watchdog is not fed", "because", alive.Error())
		case watchdog > 0:
			message += "\n" + daemon.SdNotifyWatchdog
		}
		if n.owed.Load() { // it was not taken: a start, or a reload, would end in a time-out
			message = daemon.SdNotifyReady + "\n" + message
		}
		if n.send(message) {
			n.owed.Store(false)
		}
	}
}

// patience is for how long systemd may leave a message unread. The library would wait for ever, and
// with it the daemon's stop and reload.
const patience = 500 * time.Millisecond

// send leaves it at that if systemd cannot be reached: it will see by itself what is missing.
func (n *Notifier) send(message string) (sent bool) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return true
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		_, err = conn.Write([]byte(message))
		_ = conn.Close()
	}
	if err != nil {
		n.Log.Warn("systemd could not be told", "error", err.Error())
	}
	return err == nil
}
