// Package proxyenv checks the variables that name a proxy on the way out. net/http goes without one that it cannot
// read, which nobody notices; and an error of net/url quotes it, password and all. Here none is quoted.
package proxyenv

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Check gives an error for each of net/http's variables that it would not go by. There is no ALL_PROXY among them.
func Check(env func(string) string) (errs []error) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY"} {
		if env(name) == "" { // the other is not looked at
			name = strings.ToLower(name)
		}
		v := env(name)
		if v != "" && !strings.Contains(v, "://") {
			v = "http://" + v // as net/http does
		}
		if err := CheckURL(v); v != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s %w", name, err))
		}
	}
	return errs
}

// CheckURL reports what makes a proxy's URL unusable.
func CheckURL(v string) error {
	u, err := url.Parse(v)
	if err == nil && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) && u.Hostname() != "" {
		if _, err := strconv.ParseUint(u.Port(), 10, 16); err == nil || u.Port() == "" {
			return nil
		}
	}
	return errors.New("is not a URL of the form http://HOST:PORT: in its password, % is written %25, / is %2F, and a space is %20")
}
