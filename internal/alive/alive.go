// Package alive gives up connections that are dead without saying so. A forwarder or a firewall on the way may
// swallow what is sent on those that stand while new ones work; the kernel hears of that late, or never.
package alive

import (
	"errors"
	"net"
	"net/http"
	"time"
)

const (
	quiet  = 10 * time.Second // on HTTP/2, who was silent for so long is asked for a sign of life,
	answer = 5 * time.Second  // and gets so long to give it
	unused = 15 * time.Second // on HTTP/1.1 nobody can be asked: a connection that was not used for so long is closed
)

// Watch has t give up dead connections. It comes before t's first request.
func Watch(t *http.Transport) {
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: quiet, PingTimeout: answer}
	t.IdleConnTimeout = unused
}

// Heed hears how a request ended. After one that was not answered in time, the next one goes out on a new connection:
// those that are idle may be as dead, and each would cost a request.
func Heed(t *http.Transport, err error) {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		t.CloseIdleConnections()
	}
}
