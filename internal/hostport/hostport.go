// Package hostport says in words what is wrong with an address, before anything is opened or contacted.
package hostport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"tiwkeyd/internal/printable"
)

// Listen reports what makes an address none to listen at. Without a host it is all of the machine's; port 0 is any
// that is free.
func Listen(address string) error { return check(address, 0) }

// Dial reports what makes an address none to connect to.
func Dial(address string) error { return check(address, 1) }

// URL reports what makes a URL's host and port none to connect to. It quotes neither a user's name nor a password.
func URL(u *url.URL) error {
	switch {
	case u.Hostname() == "":
		return errors.New("the host is missing")
	case strings.HasSuffix(u.Host, ":"):
		return errors.New("there is no port after the colon")
	case u.Port() == "":
		return host(u.Hostname())
	}
	return both(u.Hostname(), u.Port(), 1)
}

func check(address string, least uint64) error {
	h, p, err := net.SplitHostPort(address)
	shown := printable.WithoutPassword(strconv.Quote(address)) // in case it is a URL
	if err != nil {
		return fmt.Errorf("%s is not an address of the form HOST:PORT, such as 127.0.0.1:9469", shown)
	}
	if err := both(h, p, least); err != nil {
		return fmt.Errorf("%s is not an address of the form HOST:PORT, such as 127.0.0.1:9469: %w", shown, err)
	}
	return nil
}

func both(h, p string, least uint64) error {
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n < least {
		return fmt.Errorf("its port %q is not a number from %d to 65535", p, least)
	}
	return host(h)
}

// host takes addresses and names; the empty one is for who listens.
func host(h string) error {
	if _, err := netip.ParseAddr(h); err == nil || h == "" {
		return nil
	}
	odd := strings.ContainsFunc(h, func(c rune) bool {
		return c < 0x80 && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '.' && c != '_'
	})
	if odd || strings.Trim(h, "0123456789.") == "" { // numbers alone are meant as an address
		return fmt.Errorf("its host %q is neither an IP address nor a name", h)
	}
	return nil
}
