package testport

import (
	"net"
	"strconv"
	"testing"
)

// TestFree: the port is free, and none of those that the system gives away.
func TestFree(t *testing.T) {
	first := givenAway()
	for range 200 {
		address, port := Free(t)
		n, err := strconv.Atoi(port)
		if err != nil || n < lowest || n >= first {
			t.Fatalf("port %s, where the system gives away those from %d", port, first)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

func TestDraw(t *testing.T) {
	for first, any := range map[int]bool{1024: true, lowest + 999: true, lowest + 1000: false, 32768: false} {
		if p := draw(first); any != (p == 0) || p >= first {
			t.Errorf("below %d: port %d", first, p)
		}
	}
}
