package config

import (
	"fmt"
	"math"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"tiwkeyd/internal/hostport"
	"tiwkeyd/internal/printable"
	"tiwkeyd/internal/proxyenv"
)

// checker gathers what is wrong.
type checker struct{ errs []error }

func (k *checker) fail(name, format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("%s: %s", name, printable.WithoutPassword(fmt.Sprintf(format, args...))))
}

// check takes an error of another package's parser. Without a name, the error has it.
func (k *checker) check(name string, err error) {
	switch {
	case err == nil:
	case name == "":
		k.errs = append(k.errs, err)
	default:
		k.errs = append(k.errs, fmt.Errorf("%s: %w", name, err))
	}
}

func (k *checker) duration(name, v string, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(v)
	switch {
	case err != nil:
		k.fail(name, "%q is not a duration, such as 90s, 6m or 24h", v)
	case d < least || d > most:
		k.fail(name, "%s is outside %s to %s", v, least, most)
		return 0
	}
	return d
}

func (k *checker) number(name, v string, least, most float64, whole bool) float64 {
	n, err := strconv.ParseFloat(v, 64)
	kind := "number"
	if whole {
		kind = "whole number"
	}
	if err != nil || math.IsNaN(n) || (whole && n != math.Trunc(n)) {
		k.fail(name, "%q is not a %s", v, kind)
		return 0
	}
	if n < least || n > most {
		k.fail(name, "%s is outside %v to %v", v, least, most)
	}
	return n
}

func (k *checker) oneOf(name, v string, allowed ...string) string {
	if !slices.Contains(allowed, v) {
		k.fail(name, "%q is none of %s", v, strings.Join(allowed, ", "))
		return ""
	}
	return v
}

// address checks HOST:PORT; the empty text is none.
func (k *checker) address(name, v string) string {
	if v != "" {
		k.check(name, hostport.Listen(v))
	}
	return v
}

// minToken is how long a token is at least: too long to be guessed, if it is random.
const minToken = 24

// token checks a secret that people type or paste into a form. It is not quoted.
func (k *checker) token(name, v string) string {
	switch {
	case v == "":
	case len(v) < minToken || len(v) > 1000:
		k.fail(name, "it has %d characters, and must have %d to 1000; openssl rand -hex 32 makes a good one", len(v), minToken)
	case strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }):
		k.fail(name, "it has a character in it that is neither an ASCII letter, nor a digit, nor a sign; openssl rand -hex 32 makes a good one")
	}
	return v
}

// site checks the URL of a web site; the empty text is none. It is not quoted: there may
// be a password in it.
func (k *checker) site(name, v string) *url.URL {
	if v == "" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || *u != (url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}) {
		k.fail(name, "it is not a URL of the form https://HOST or https://HOST/PATH/")
		return nil
	}
	k.check(name, hostport.URL(u))
	return u
}

// pasted refuses a credential that nobody means, which was pasted, or read from a file by a shell: with a space or a line break in it, whoever it is sent to says that it is
// wrong, or the network library that the request is. It is not quoted.
func (k *checker) pasted(name, v string) {
	if strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }) {
		k.fail(name, "there is a space, a line break or a character in it that is not ASCII, at the end most likely; set it without")
	}
}

// proxies refuses what net/http would take no notice of.
func (k *checker) proxies(env func(string) string) { k.errs = append(k.errs, proxyenv.Check(env)...) }

// folder checks a path in Vault.
func (k *checker) folder(name, v string) {
	if v == "" || path.Clean(v) != v || strings.HasPrefix(v, "..") || strings.ContainsAny(v, " \t\r\n?#%*+\\") {
		k.fail(name, "%q is not a path in Vault, such as tiw or apps/tiw", v)
	}
}

// Unknown lists variables of the environment, given as NAME=VALUE, with our prefix that have no
// meaning: misspelt, most likely. Kubernetes makes some of its own for a service that is named
// like the program.
func Unknown(environ []string) []string {
	known := map[string]bool{}
	for _, v := range Variables() {
		known[v.Name] = true
	}
	var names []string
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		ours := strings.HasPrefix(name, "TIWKEYD_") && !known[name]
		if ours && !strings.HasPrefix(name, "TIWKEYD_SERVICE_") && !strings.HasPrefix(name, "TIWKEYD_PORT") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// traces lists variables that are meant for who sends OpenTelemetry traces.
func traces(environ []string) []string {
	var names []string
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "OTEL_") && value != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
