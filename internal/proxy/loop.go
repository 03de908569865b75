package proxy

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// pseudonym begins what RFC 9110 calls a proxy's name in Via. Each process has its own: a proxy
// behind another one is no loop, a request that comes back is, over however many.
const pseudonym = "tiwkeyd-"

// mostHops is how many of our kind may stand behind one another: replicas behind one address
// may lead to each other without meeting the same one soon.
const mostHops = 8

// loops refuses what this proxy sent itself.
type loops struct {
	o     Options
	self  string
	often rate.Sometimes
}

func newLoops(o Options) *loops {
	return &loops{o: o, self: pseudonym + strings.ToLower(rand.Text()), often: rate.Sometimes{Interval: time.Minute}}
}

// refuse answers a request that came back, before its body is read. Whoever makes one up gets
// this in place of 401.
func (l *loops) refuse(w http.ResponseWriter, r *http.Request) bool {
	passed := strings.Join(r.Header.Values("Via"), ",")
	back := strings.Contains(passed, l.self)
	if !back && strings.Count(passed, pseudonym) < mostHops {
		return false
	}
	l.often.Do(func() {
		if back {
			l.o.Log.Error("a request came back to this proxy: --upstream leads to it again, by itself or over others; give the receiver's own address",
				"upstream", l.o.Upstream.Redacted())
		} else { // which anybody can make up
			l.o.Log.Warn("a request says that it came through many proxies like this one: if no stranger sent it, their upstreams lead to each other", "proxies", mostHops)
		}
	})
	l.o.Metrics.requests.WithLabelValues(loop).Inc()
	w.Header().Set("Connection", "close")
	http.Error(w, "the proxy's upstream leads to the proxy", http.StatusLoopDetected)
	return true
}

// resolveWait bounds the look for where the receiver is. It is made only if the ports are the same.
const resolveWait = 2 * time.Second

// LeadsTo gives the name of the listener that an upstream leads to as far as can be seen from here; "":
// none.
func LeadsTo(ctx context.Context, upstream *url.URL, listeners map[string]string) string {
	port := upstream.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[upstream.Scheme]
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWait)
	defer cancel()
	for name, address := range listeners {
		at, err := netip.ParseAddrPort(address)
		if err != nil || port != strconv.Itoa(int(at.Port())) {
			continue
		}
		hosts, err := net.DefaultResolver.LookupNetIP(ctx, "ip", upstream.Hostname())
		if err == nil && slices.ContainsFunc(hosts, func(host netip.Addr) bool { return reaches(host.Unmap(), at.Addr().Unmap()) }) {
			return name
		}
	}
	return ""
}

// reaches reports whether what is sent to a host comes to who listens at an address of this
// machine.
func reaches(host, listening netip.Addr) bool {
	if host.IsUnspecified() { // which is another name of the loopback address
		return listening.IsUnspecified() || listening.IsLoopback()
	}
	return host == listening || listening.IsUnspecified() && ofThisMachine(host)
}

func ofThisMachine(host netip.Addr) bool {
	if host.IsLoopback() {
		return true
	}
	own, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(host.AsSlice())
	})
}
