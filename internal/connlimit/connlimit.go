// Package connlimit bounds how many connections a server holds, so that whoever reaches its
// socket can neither stop it nor take the descriptors that the rest of the process needs.
//
// At the limit a new connection still gets in: the one that has waited longest for a whole
// request is closed for it. Who only holds connections loses them to who uses them. A request
// that is here whole is not given up for a newcomer, who waits until there is room.
package connlimit

import (
	"container/list"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limit is the most connections that one server holds. It outlives listeners: a server that
// moves to another address keeps it.
type Limit struct {
	server   string
	most     int
	patience time.Duration // how long a request in hand is safe; 0: always

	mu      sync.Mutex
	held    int
	hosts   map[netip.Addr]int // how many of them each host has
	waiting *list.List         // for a whole request; the one that has for longest is first
	proven  *list.List         // those of them that brought something genuine before
	inHand  *list.List         // whose request is here whole
	closed  uint64             // because there was no room
	freed   chan struct{}      // there may be room again

	failed   int // accepts, since that was last told
	full     rate.Sometimes
	failures rate.Sometimes
}

// held is one connection.
type held struct {
	*net.TCPConn
	reading atomic.Bool // what came is used up
	host    netip.Addr
	proven  bool
	over    bool          // its request was answered, and it is not idle yet
	since   time.Time     // when it came to its queue
	queue   *list.List    // nil: it is held no more
	place   *list.Element // in it
}

// Read notes that the server waits for the peer, and the peer not for the server: in a crowd a request may be
// here for a while before it is looked at.
func (h *held) Read(p []byte) (int, error) {
	h.reading.Store(true)
	defer h.reading.Store(false)
	return h.TCPConn.Read(p)
}

// New gives the limit of a server. A request in hand longer than patience, where that is not 0, may be
// given up for a newcomer: its sender may just not take the answer.
func New(server string, most int, patience time.Duration) *Limit {
	return &Limit{server: server, most: most, patience: patience, hosts: map[netip.Addr]int{},
		waiting: list.New(), proven: list.New(), inHand: list.New(), freed: make(chan struct{}, 1),
		full: rate.Sometimes{Interval: time.Minute}, failures: rate.Sometimes{Interval: time.Minute}}
}

// Listener gives a listener that holds no more connections than the limit. The inner one is of TCP.
func (l *Limit) Listener(inner net.Listener, log *slog.Logger) net.Listener {
	return &listener{Listener: inner, limit: l, log: log, done: make(chan struct{})}
}

type listener struct {
	net.Listener
	limit *Limit
	log   *slog.Logger
	once  sync.Once
	done  chan struct{} // closed with it
}

// Accept waits for a connection, and then for room. It logs its own errors: the library would log them as it logs the
// mistakes of strangers, and those are shown to who debugs only.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		select {
		case <-l.done:
		default:
			l.limit.fails(err, l.log)
		}
		return nil, err
	}
	h := &held{TCPConn: c.(*net.TCPConn), host: hostOf(c)}
	for !l.limit.admit(h, l.log) {
		select {
		case <-l.done:
			_ = c.Close()
			return nil, net.ErrClosed
		case <-l.limit.freed:
		case <-time.After(l.limit.notice() / 10): // one of them may have waited for long enough meanwhile
		}
	}
	return h, nil
}

// Close also ends an Accept that waits for room.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// fails tells that a connection could not be accepted. Where files are short, one is given back.
func (l *Limit) fails(err error, log *slog.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
	l.failures.Do(func() {
		log.Warn("connections cannot be accepted; where too many files are open, raise nofile (ulimit -n, LimitNOFILE=, --ulimit nofile=)",
			"server", l.server, "error", err.Error(), "times", l.failed, "held", l.held, "limit", l.most)
		l.failed = 0
	})
	if outOfFiles(err) {
		if h := l.victim(); h != nil {
			l.give(h)
		}
	}
}

// admit takes a connection in. It reports false if there is no room for it.
func (l *Limit) admit(h *held, log *slog.Logger) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held >= l.most {
		victim := l.victim()
		if victim != nil {
			l.give(victim)
		}
		l.full.Do(func() {
			log.Warn("all connections are taken; those that have waited longest for a request are closed for new ones",
				"server", l.server, "limit", l.most, "in_hand", l.inHand.Len(), "closed", l.closed)
		})
		if victim == nil {
			return false
		}
	}
	l.held++
	l.hosts[h.host]++
	l.move(h, l.waiting)
	return true
}

// notice is the least time that a connection gets to send a request. Pages and health are asked for from nearby, by
// senders that send at once. Callbacks may come from far away and by TLS, which takes several round trips, so they get
// more time: the higher the limit, the more, and always so that a thousand new connections a second get in.
func (l *Limit) notice() time.Duration {
	if l.patience > 0 {
		return 30 * time.Millisecond
	}
	return min(max(time.Duration(l.most)*time.Millisecond, 100*time.Millisecond), 500*time.Millisecond)
}

// stuckFor is when a connection is given up whose request is not here whole although nothing is read from it. One that
// brought something genuine before has longer: on a busy machine it may be here and not looked at yet.
func (h *held) stuckFor() time.Duration {
	if h.proven {
		return 5 * stuck
	}
	return stuck
}

const (
	// gone is when an answer is on its way, after its handler has ended.
	gone = 20 * time.Millisecond

	// stuck is when a connection whose request is not here whole is given up although nothing is read from it:
	// its body waits for memory, or its refusal to be taken.
	stuck = time.Second

	// looked is how many of those that have waited longest are compared. Among them the one goes
	// whose host holds the most connections: a host that opens thousands a second closes its own.
	looked = 256
)

// victim is the connection that is closed if another one is to get in; nil: none may be.
func (l *Limit) victim() *held {
	queue := l.waiting
	// Proven ones go last, but they must not take all the room: whoever saw a callback can
	// repeat it until it expires.
	if queue.Len() == 0 || l.proven.Len() > l.most/2 {
		queue = l.proven
	}
	var victim *held
	crowd := 0 // the most connections of one host
	for e, n := queue.Front(), 0; e != nil && n < looked; e, n = e.Next(), n+1 {
		h := e.Value.(*held)
		if l.hosts[h.host] > crowd {
			victim, crowd = nil, l.hosts[h.host]
		}
		age := time.Since(h.since)
		if victim == nil && l.hosts[h.host] == crowd && (age > h.stuckFor() || age > l.notice() && h.reading.Load() || age > gone && h.over) {
			victim = h
		}
	}
	if e := l.inHand.Front(); victim == nil && e != nil && l.patience > 0 {
		if h := e.Value.(*held); time.Since(h.since) > l.patience {
			victim = h
		}
	}
	return victim
}

// give closes a connection for want of room.
func (l *Limit) give(h *held) {
	l.closed++
	l.forget(h)
	_ = h.Close()
}

// move puts a connection last into a queue.
func (l *Limit) move(h *held, queue *list.List) {
	if h.queue != nil {
		h.queue.Remove(h.place)
	}
	h.queue, h.place, h.since = queue, queue.PushBack(h), time.Now()
}

// forget holds a connection no more.
func (l *Limit) forget(h *held) {
	h.queue.Remove(h.place)
	h.queue = nil
	l.held--
	if l.hosts[h.host]--; l.hosts[h.host] == 0 {
		delete(l.hosts, h.host)
	}
	l.room()
}

// room wakes an Accept that waits.
func (l *Limit) room() {
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// hostOf is where a connection comes from: an IPv6 host has a whole /64 of addresses.
func hostOf(c net.Conn) netip.Addr {
	at, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	host := at.AddrPort().Addr().Unmap().WithZone("")
	if host.Is6() {
		prefix, _ := host.Prefix(64)
		host = prefix.Addr()
	}
	return host
}
