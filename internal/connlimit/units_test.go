package connlimit

import (
	"container/list"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestHosts: a network of IPv6 addresses is one host.
func TestHosts(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::", "fe80::1%eth0": "fe80::", "2001:db8:0:1::1": "2001:db8:0:1::"} {
		c := fake{at: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 1))}
		if got := hostOf(c); got != netip.MustParseAddr(want) {
			t.Errorf("%s is of %s", from, got)
		}
	}
	if got := hostOf(fake{at: &net.UnixAddr{}}); got.IsValid() {
		t.Error(got)
	}
}

type fake struct {
	net.Conn
	at net.Addr
}

func (f fake) RemoteAddr() net.Addr { return f.at }

// TestCollect has the metrics of two servers in one registry.
func TestCollect(t *testing.T) {
	t.Parallel()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(New("a", 5, 0), New("b", 6, 0))
	families, err := r.Gather()
	if err != nil || len(families) != 3 || len(families[0].GetMetric()) != 2 {
		t.Fatalf("%v, %v", families, err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestShares: all of them together, with what goes to the receiver, leave files to the rest.
func TestShares(t *testing.T) {
	t.Parallel()
	for files, want := range map[int][3]int{32: {8, 4, 8}, 256: {64, 16, 96}, 1024: {256, 64, 384}, 20000: {256, 64, 9872}, 1 << 20: {256, 64, 16384}} {
		if got := [3]int{Page(files), Metrics(files), Callbacks(files)}; got != want {
			t.Errorf("%d files: %v", files, got)
		}
		if left := files - 2*Callbacks(files) - Metrics(files); left < min(files/3, 48) && files > 32 {
			t.Errorf("%d files: %d are left", files, left)
		}
	}
	if n := Files(slog.New(slog.DiscardHandler)); n < 32 {
		t.Errorf("%d files", n)
	}
}

// TestVictim has the classes of connections, each as old as it says, in a full house.
func TestVictim(t *testing.T) {
	t.Parallel()
	young, old, ancient := 50*time.Millisecond, 200*time.Millisecond, 2*stuck
	for _, c := range []struct {
		name    string
		age     time.Duration
		reading bool
		queue   func(*Limit) *list.List
		goes    bool
	}{
		{"came just now", young, true, (*Limit).toWait, false},
		{"waits for its peer", old, true, (*Limit).toWait, true},
		{"was not looked at yet", old, false, (*Limit).toWait, false},
		{"is not looked at for long", ancient, false, (*Limit).toWait, true},
		{"is proven, and few are", old, true, (*Limit).toProve, true},
		{"is in hand", ancient, true, (*Limit).toHand, false},
	} {
		l := New("house", 4, 0)
		h := &held{}
		l.hosts[h.host] = 1
		l.move(h, c.queue(l))
		h.since = time.Now().Add(-c.age)
		h.reading.Store(c.reading)
		if goes := l.victim() == h; goes != c.goes {
			t.Errorf("a connection that %s goes: %t", c.name, goes)
		}
	}
}

// TestAnswered: a connection whose request was answered, and that the library still keeps, goes like one that waits for
// its peer; one that takes no answer goes though others came just now.
func TestAnswered(t *testing.T) {
	t.Parallel()
	l := New("house", 4, time.Second)
	answered, young := &held{}, &held{}
	l.hosts[answered.host] = 2
	l.move(answered, l.inHand)
	l.move(young, l.waiting)
	if l.victim() != nil {
		t.Error("a request in hand is given up, or one that came just now")
	}
	answered.since = time.Now().Add(-2 * time.Second)
	if l.victim() != answered {
		t.Error("one that takes no answer keeps others out")
	}
	(&of{l, answered}).answered()
	if answered.since = time.Now().Add(-2 * l.notice()); answered.queue != l.waiting || l.victim() != answered {
		t.Error("one that was answered is kept")
	}
	l.state(answered, http.StateIdle)
	if answered.since = time.Now().Add(-2 * l.notice()); l.victim() != nil {
		t.Error("one that is idle, and was not looked at, goes")
	}
	(&of{l, &held{}}).answered() // it was closed meanwhile

	genuine := &held{proven: true}
	l.move(genuine, l.inHand)
	if (&of{l, genuine}).answered(); genuine.queue != l.proven {
		t.Error("one that brought something genuine goes like a stranger's while its answer is written")
	}
}

// TestNotice: the more connections there may be, the more time each one has, because senders may be far away. Health
// checks come from nearby, and get little.
func TestNotice(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]time.Duration{16: 100 * time.Millisecond, 384: 384 * time.Millisecond, 16384: 500 * time.Millisecond} {
		if got := New("callbacks", most, 0).notice(); got != want || got >= stuck {
			t.Errorf("%d: %s", most, got)
		}
		if got := New("metrics", most, time.Second).notice(); got != 30*time.Millisecond {
			t.Errorf("%d, of health: %s", most, got)
		}
	}
	if (&held{}).stuckFor() != stuck || (&held{proven: true}).stuckFor() <= 2*stuck {
		t.Error("whoever brought something genuine has no longer than others")
	}
}

func (l *Limit) toWait() *list.List  { return l.waiting }
func (l *Limit) toProve() *list.List { return l.proven }
func (l *Limit) toHand() *list.List  { return l.inHand }

// TestBodyOfClosed: a body that came whole on a connection which was closed before has no end.
func TestBodyOfClosed(t *testing.T) {
	t.Parallel()
	l := New("house", 4, 0)
	h := &held{}
	b := &body{io.NopCloser(strings.NewReader("x")), &of{l, h}}
	if text, err := io.ReadAll(b); string(text) != "x" || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%q, %v", text, err)
	}
}
