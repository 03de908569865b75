// Package testport gives tests an address for a program that cannot be told to choose its own.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// lowest is the first port that is given out.
const lowest = 10240

// Free gives an address on loopback where nobody listens. The port is none that the system gives away by
// itself: one of those could be the end of somebody's connection by the time that the program listens.
func Free(tb testing.TB) (address, port string) {
	tb.Helper()
	for tries := 0; ; tries++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", draw(givenAway())))
		if err != nil {
			if tries < 100 {
				continue
			}
			tb.Fatalf("no free port on loopback: %v", err)
		}
		_, port, err = net.SplitHostPort(l.Addr().String())
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		if err != nil {
			tb.Fatal(err)
		}
		return l.Addr().String(), port
	}
}

// draw gives a port below the first that the system gives away; 0 leaves it to the system, where there are
// too few.
func draw(first int) int {
	if first < lowest+1000 {
		return 0
	}
	return lowest + rand.IntN(first-lowest)
}

// givenAway is the first port that the system gives to who asks for any (proc(5), ip_local_port_range).
func givenAway() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 49152 // RFC 6335, section 6
	}
	var first int
	if _, err := fmt.Sscan(string(text), &first); err != nil {
		return 49152
	}
	return first
}
