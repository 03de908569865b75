package connlimit

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"tiwkeyd/internal/logs"
)

// Server gives a server whose connections the limit holds, if it serves at the limit's
// Listener. The times are those of short requests and answers: whoever needs others sets them.
func (l *Limit) Server(h http.Handler, log *slog.Logger) *http.Server {
	// HTTP/1 alone: HTTP/2 has hundreds of requests at a time on one connection, each of which
	// may need a connection to somebody else, and no sender of callbacks asks for it.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{Handler: l.follow(h), Protocols: &protocols, ConnState: l.state, ConnContext: l.context,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: logs.ErrorLog(log, slog.LevelDebug, l.server+": a connection failed")}
}

// Proven says that the connection of a request brought something genuine: while it is idle it
// goes after those that never did. The context is the request's.
func Proven(ctx context.Context) {
	if of, ok := ctx.Value(key{}).(*of); ok && of.held != nil {
		of.limit.mu.Lock()
		defer of.limit.mu.Unlock()
		of.held.proven = true
	}
}

// of is a connection and its limit, in the contexts of its requests.
type of struct {
	limit *Limit
	held  *held
}

type key struct{}

// accepted is the connection that the listener gave; nil: another one did.
func accepted(c net.Conn) *held {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	h, _ := c.(*held)
	return h
}

func (l *Limit) context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, key{}, &of{l, accepted(c)})
}

// state follows a connection from one request to the next. One that is active stays where it
// is: a byte now and then is no request.
func (l *Limit) state(c net.Conn, s http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := accepted(c)
	if h == nil || h.queue == nil {
		return // it is held no more
	}
	switch s {
	case http.StateClosed, http.StateHijacked:
		l.forget(h)
	case http.StateIdle:
		h.over = false
		l.rest(h)
	}
}

// follow notices when a request is here whole.
func (l *Limit) follow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if of, ok := r.Context().Value(key{}).(*of); ok && of.held != nil {
			defer of.answered()
			if r.Body != nil && r.Body != http.NoBody {
				r = r.WithContext(r.Context()) // the library looks at its own one's body
				r.Body = &body{r.Body, of}
			} else if !of.whole() {
				return // nobody is there any more
			}
		}
		next.ServeHTTP(w, r)
	})
}

// whole says that a request is here whole. It reports false if its connection was closed before.
func (o *of) whole() bool {
	o.limit.mu.Lock()
	defer o.limit.mu.Unlock()
	if o.held.queue == nil {
		return false
	}
	if o.held.queue != o.limit.inHand {
		o.limit.move(o.held, o.limit.inHand)
	}
	return true
}

// answered says that a request was answered. Where its body was not read, or the connection is to end, the library
// waits for half a second: nobody who is not here yet has to.
func (o *of) answered() {
	o.limit.mu.Lock()
	defer o.limit.mu.Unlock()
	if o.held.queue == nil {
		return
	}
	if o.held.over = true; o.held.queue == o.limit.inHand {
		o.limit.rest(o.held)
		return
	}
	o.limit.room()
}

// rest puts a connection whose request was answered where it waits for the next one.
func (l *Limit) rest(h *held) {
	queue := l.waiting
	if h.proven {
		queue = l.proven
	}
	l.move(h, queue)
	l.room()
}

// body is a request's, whose end says that it is here whole.
type body struct {
	io.ReadCloser
	of *of
}

// Read gives no end if the connection was closed for want of room: nobody would hear the answer
// to what came on it, and its sender repeats it.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.of.whole() {
		err = net.ErrClosed
	}
	return n, err
}
