package main

import (
	"strings"
	"testing"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestHealth asks a daemon that is well, one that cannot read its store, none, and nobody.
func TestHealth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon("TIWKEYD_HTTP_ADDR=127.0.0.1:0")
	p := r.pages()
	addr := p.at(d)
	p.await(addr, "/readyz", 200, "ok")
	_, port, _ := strings.Cut(addr, ":")
	ask := func(code int, says string, env string, args ...string) {
		t.Helper()
		if out, got := r.run(append([]string{"health"}, args...), "TIWKEYD_TARGETS=", env); got != code || !strings.Contains(out, says) {
			t.Errorf("health %q with %s: %d, %s", args, env, got, out)
		}
	}
	ask(0, "ok", "TIWKEYD_HTTP_ADDR="+addr)
	ask(0, "ok", "TIWKEYD_HTTP_ADDR=0.0.0.0:"+port)
	ask(0, "ok", "TIWKEYD_HTTP_ADDR=", "--address", addr, "--ready")
	ask(exitUsage, "TIWKEYD_HTTP_ADDR is empty", "TIWKEYD_HTTP_ADDR=")
	ask(exitUsage, "not an address", "TIWKEYD_HTTP_ADDR=here")
	ask(exitUsage, "not an address", "TIWKEYD_HTTP_ADDR=", "--address", "here")
	ask(exitUsage, "from 1 to 65535", "TIWKEYD_HTTP_ADDR=", "--address", "127.0.0.1:0")
	v.Seal()
	p.await(addr, "/readyz", 503, "store")
	ask(exitInternal, "503", "TIWKEYD_HTTP_ADDR="+addr, "--ready")
	ask(0, "ok", "TIWKEYD_HTTP_ADDR="+addr) // a restart would not mend it
	_ = d.cmd.Process.Kill()
	<-d.done
	ask(exitInternal, "is it running", "TIWKEYD_HTTP_ADDR="+addr)
}
