package main

import (
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// ended runs a proxy that should end by itself, and ends it if it serves.
func (r *rig) ended(args []string, env ...string) (string, int) {
	r.t.Helper()
	p := r.start(args, append(env, noRaceSleep)...)
	r.await("it ends, or serves", func() bool { return p.exited() || strings.Contains(p.String(), "hands genuine callbacks on") })
	_ = p.cmd.Process.Kill()
	<-p.done
	return p.String(), p.code
}

// TestProxyWrongUsage: all that is wrong is told at once, and nothing is contacted or served.
func TestProxyWrongUsage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var contacts atomic.Int32
	here := r.standing(func(http.ResponseWriter, *http.Request) { contacts.Add(1) })
	good := []string{"--listen", "127.0.0.1:0", "--metrics", "", "--upstream", here}
	missing := t.TempDir() + "/none"
	keys := writeFile(t, r.newKey().Reveal())
	for _, c := range []struct {
		args []string
		env  string
		want string
	}{
		{[]string{"--upstream", ""}, "", "--upstream is missing"}, {[]string{"--upstream", "localhost:3000"}, "", "--upstream is not a URL"}, {[]string{"--upstream", "ftp://x"}, "", "--upstream is not a URL"},
		{[]string{"--upstream", "http://"}, "", "--upstream is not a URL"}, {[]string{"--upstream", "http://u:p@x"}, "", "--upstream is not a URL"}, {[]string{"--upstream", "http://x/?a"}, "", "--upstream is not a URL"},
		{[]string{"--upstream", "http://x/#a"}, "", "--upstream is not a URL"}, {[]string{"--upstream", "http://%zz"}, "", "--upstream is not a URL"},
		{[]string{"--listen", "nowhere"}, "", `--listen "nowhere" is not an address`}, {[]string{"--listen", ""}, "", "--listen"}, {[]string{"--metrics", "9470"}, "", `--metrics "9470" is not an address`},
		{[]string{"--upstream", "http://h:99999"}, "", `--upstream is not a URL of the form http://HOST:PORT[/PATH]: its port "99999" is not a number from 1 to 65535`}, {[]string{"--upstream", "http://h:0"}, "", "--upstream"}, {[]string{"--upstream", "http://h:"}, "", "no port after the colon"},
		{[]string{"--upstream", "http://:80"}, "", "--upstream is not a URL of the form http://HOST:PORT[/PATH]: the host is missing"}, {[]string{"--upstream", "http://h:-1"}, "", "--upstream is not a URL"}, {[]string{"--upstream", "unix:/x"}, "", "--upstream is not a URL"},
		{[]string{"--listen", "unix:/x"}, "", `--listen "unix:/x" is not an address of the form HOST:PORT`}, {[]string{"--listen", "127.0.0.1:99999"}, "", "65535"}, {[]string{"--listen", "127.0.0.1:0/hooks"}, "", "--listen"}, {[]string{"--listen", "http://127.0.0.1:0"}, "", "--listen"}, {[]string{"--listen", "127.0.0.1:"}, "", "--listen"},
		{[]string{"--metrics", "127.0.0.1:-1"}, "", "--metrics"}, {[]string{"--metrics", "300.0.0.1:0"}, "", "neither an IP address nor a name"},
		{[]string{"--tls-cert", "x"}, "", "--tls-cert and --tls-key go together"}, {[]string{"--tls-key", "x"}, "", "--tls-cert and --tls-key go together"},
		{[]string{"--tls-cert", missing, "--tls-key", missing}, "", "read the TLS certificate"}, {[]string{"--tls-cert", keys, "--tls-key", keys}, "", "read the TLS certificate"},
		{[]string{"--max-body", "0"}, "", "--max-body 0 is not positive"}, {[]string{"--body-timeout", "0"}, "", "--body-timeout 0s is too short"}, {[]string{"--upstream-timeout", "0s"}, "", "--upstream-timeout 0s is too short"},
		{[]string{"--stop-timeout", "-1s"}, "", "--stop-timeout -1s is too short"}, {[]string{"--upstream-wait", "-1ns"}, "", "--upstream-wait -1ns is too short"}, {[]string{"--leeway", "-1s"}, "", "--leeway -1s is too short"},
		{[]string{"--leeway", "soon"}, "", "--leeway"}, {[]string{"--odd"}, "", "--odd"}, {[]string{"extra"}, "", "extra"},
		{[]string{"--key-file", "x=" + keys}, "", "--key-file: target"}, {[]string{"--key-file", "7="}, "", "--key-file: the path is missing"}, {[]string{"--key-file", "7=" + keys, "--key-file", "7/whiteboard-push=" + keys}, "TIWKEYD_TARGETS=", "--key-file: there are two for 7/whiteboard-push"},
		{[]string{"--key-file", keys}, "TIWKEYD_TARGETS=7,8", "say which target it is for"}, {[]string{"--key-file", "7=" + keys}, "TIWKEYD_TARGETS=7,8", "there is none for 8/whiteboard-push"}, {[]string{"--key-file", keys}, "TIWKEYD_TARGETS=", "TIWKEYD_TARGETS"},
		{[]string{"--key-file", ""}, "TIWKEYD_TARGETS=7", "the path is missing"}, {[]string{"--key-file", "7=" + keys, "--key-file", keys}, "TIWKEYD_TARGETS=", "TIWKEYD_TARGETS"},
		{nil, "TIWKEYD_TARGETS=", "TIWKEYD_TARGETS"}, {nil, "TIWKEYD_STORE=ftp://x", "TIWKEYD_STORE"}, {nil, "TIWKEYD_STORE=vault", "log in to Vault"}, {nil, "TIWKEYD_LOG_LEVEL=x", "TIWKEYD_LOG_LEVEL"},
	} {
		out, code := r.ended(append(append([]string{"proxy"}, good...), c.args...), c.env, "VAULT_ADDR="+here)
		if code != exitUsage || !strings.Contains(out, c.want) || strings.Contains(out, "hands genuine") {
			t.Errorf("%v %s: %d\n%s", c.args, c.env, code, out)
		}
		if n := strings.Count(out, "tiwkeyd: "); n != 1 && c.args != nil {
			t.Errorf("%v %s: %d mistakes are told of\n%s", c.args, c.env, n, out)
		}
	}
	out, code := r.ended([]string{"proxy", "--upstream", "x", "--listen", "x", "--metrics", "x", "--max-body", "-1", "--body-timeout", "0", "--leeway", "-1s", "--tls-cert", missing, "--tls-key", missing, "--key-file", "7="}, "TIWKEYD_TARGETS=7")
	if n := strings.Count(out, "tiwkeyd: "); code != exitUsage || n != 8 {
		t.Errorf("%d mistakes told of 8, %d\n%s", n, code, out)
	}
	if out, code := r.ended([]string{"proxy", "--upstream", "x"}, "TIWKEYD_TARGETS=0", "TIWKEYD_LOG_LEVEL=x"); code != exitUsage || strings.Count(out, "tiwkeyd: ") != 3 {
		t.Errorf("%d\n%s", code, out)
	}
	if n := contacts.Load(); n != 0 {
		t.Errorf("something was contacted %d times", n)
	}
	// What is taken by somebody else is no mistake in the flags.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, name := range []string{"--listen", "--metrics"} {
		if out, code := r.ended(append(append([]string{"proxy"}, good...), name, l.Addr().String())); code != exitInternal || !strings.Contains(out, "listen at "+name) {
			t.Errorf("%s: %d\n%s", name, code, out)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it made a file")
	}
}
