package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"tiwkeyd/internal/testport"
	"tiwkeyd/secrets/vault/vaulttest"
	"tiwkeyd/tencent/tiwtest"
)

var served = regexp.MustCompile(`"http":"([0-9.:]+)"`)

// pages is a daemon's HTTP server as seen from outside. All that it says is searched for
// secrets at the end.
type pages struct {
	r    *rig
	said *output
}

func (r *rig) pages() *pages {
	p := &pages{r, &output{}}
	r.outputs = append(r.outputs, p.said)
	return p
}

// at gives the address that a daemon said last.
func (p *pages) at(d *process) string {
	all := served.FindAllStringSubmatch(d.String(), -1)
	if len(all) == 0 {
		p.r.t.Fatalf("it does not say where it serves:\n%s", d)
	}
	return all[len(all)-1][1]
}

func (p *pages) get(addr, path string) (int, string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	_, _ = p.said.Write(body)
	return resp.StatusCode, string(body), err
}

// value is that of a series, or "".
func (p *pages) value(addr, series string) string {
	_, body, _ := p.get(addr, "/metrics")
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (p *pages) await(addr, path string, code int, text string) {
	p.r.t.Helper()
	p.r.await(fmt.Sprintf("%s answers %d %s", path, code, text), func() bool {
		got, body, err := p.get(addr, path)
		return err == nil && got == code && strings.Contains(body, text)
	})
}

// TestPagesOverReloads polls the health of a daemon while it is reloaded, with good and bad
// configurations: no request fails, an open connection stays, what was counted stays, and
// the address changes when it is told to.
func TestPagesOverReloads(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	env := filepath.Join(t.TempDir(), "env")
	r.env = without(r.env, "TIWKEYD_HTTP_ADDR")
	p := r.pages()
	addr, _ := testport.Free(t)
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(env, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("TIWKEYD_HTTP_ADDR=" + addr + "\n")
	// While somebody else has the address, the daemon does not start, and says why.
	if out, code := r.run([]string{"run", "--env-file", env}); code != exitUsage || !strings.Contains(out, "TIWKEYD_HTTP_ADDR") {
		t.Errorf("an address that is taken: %d\n%s", code, out)
	}
	_ = taken.Close()
	d := r.start([]string{"run", "--env-file", env})
	r.awaitOutput(d, "serves these targets")
	if at := p.at(d); at != addr {
		t.Fatalf("it serves at %s", at)
	}
	r.await("a rotation", r.settled)
	p.await(addr, "/readyz", 200, "ok")
	rotations := `tiwkeyd_rotations_total{reason="adopt",result="committed",target="` + testTarget.String() + `"}`
	r.await("it is counted", func() bool { return p.value(addr, rotations) == "1" })

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	open := func() string {
		if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err.Error()
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return fmt.Sprint(string(body), err)
	}
	if got := open(); got != "ok\n<nil>" {
		t.Fatal(got)
	}
	var asked, lost atomic.Int32
	stop := make(chan struct{})
	var polling sync.WaitGroup
	polling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if code, _, err := p.get(addr, "/healthz"); code != 200 || err != nil {
				lost.Add(1)
			}
			asked.Add(1)
		}
	})
	reload := func(text, says string) {
		t.Helper()
		write(text)
		n, polled := strings.Count(d.String(), says), asked.Load()
		d.signal(syscall.SIGHUP)
		r.await(says, func() bool { return strings.Count(d.String(), says) > n && asked.Load() > polled+5 })
	}
	reload("TIWKEYD_HTTP_ADDR="+addr+"\nTIWKEYD_KEY_LENGTH=48\n", "serves these targets")
	if p.value(addr, "tiwkeyd_config_last_reload_successful") != "1" || p.value(addr, `tiwkeyd_config_reloads_total{result="done"}`) != "1" {
		t.Error("a good reload is not counted")
	}
	for n, bad := range []string{"TIWKEYD_HTTP_ADDR=" + addr + "\nTIWKEYD_KEY_LENGTH=7\n", "TIWKEYD_HTTP_ADDR=nowhere\n", "TIWKEYD_HTTP_ADDR=192.0.2.1:9469\n"} {
		reload(bad, "the old one goes on")
		if p.value(addr, "tiwkeyd_config_last_reload_successful") != "0" || p.value(addr, `tiwkeyd_config_reloads_total{result="failed"}`) != strconv.Itoa(n+1) {
			t.Errorf("%q is not counted as a reload that failed", bad)
		}
	}
	d.signal(syscall.SIGUSR1)
	r.await("a rotation with the old configuration", func() bool {
		return p.value(addr, strings.Replace(rotations, "adopt", "signal", 1)) == "1"
	})
	if n := len(r.server.KeyInForce(testTarget.SdkAppID, string(testTarget.Service))); n != 48 {
		t.Errorf("a key of %d characters", n)
	}
	close(stop)
	polling.Wait()
	if lost.Load() != 0 || open() != "ok\n<nil>" {
		t.Errorf("%d of %d requests failed, and on the open connection %s", lost.Load(), asked.Load(), open())
	}
	if v := p.value(addr, rotations); v != "1" {
		t.Errorf("what was counted before: %q", v)
	}

	write("TIWKEYD_HTTP_ADDR=127.0.0.1:0\n")
	d.signal(syscall.SIGHUP)
	r.await("it serves elsewhere", func() bool { return p.at(d) != addr })
	if v := p.value(p.at(d), rotations); v != "1" {
		t.Errorf("at the new address: %q", v)
	}
	r.await("the old address is closed", func() bool { _, _, err := p.get(addr, "/healthz"); return err != nil })
	last := p.at(d)
	write("TIWKEYD_HTTP_ADDR=\n")
	d.signal(syscall.SIGHUP)
	r.await("it serves nowhere", func() bool { _, _, err := p.get(last, "/healthz"); return err != nil })
	d.signal(syscall.SIGTERM)
	if <-d.done; d.code != 0 {
		t.Errorf("%d", d.code)
	}
}

// TestHealthWithVault: what the pages of a daemon tell while Vault is sealed, and while Tencent
// refuses. None of them shows a key.
func TestHealthWithVault(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	r := newRig(t)
	r.useVault(v)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	p := r.pages()
	d := r.daemon("TIWKEYD_HTTP_ADDR=127.0.0.1:0")
	addr := p.at(d)
	r.await("a first rotation", func() bool { return r.settled() && !r.keyring().RotatedAt.IsZero() })
	p.await(addr, "/readyz", 200, "ok")
	r.await("the token's end is known", func() bool {
		d.signal(syscall.SIGUSR1) // a call to the store looks it up
		ttl, err := strconv.ParseFloat(p.value(addr, "tiwkeyd_vault_token_ttl_seconds"), 64)
		return err == nil && ttl > 3600 && ttl <= 7200
	})
	for _, s := range []string{`tiwkeyd_store_requests_total{operation="read",result="ok"}`, `tiwkeyd_store_requests_total{operation="write",result="ok"}`,
		`tiwkeyd_tencent_requests_total{api="SetWhiteboardPushCallbackKey",class="ok"}`, `tiwkeyd_tencent_requests_total{api="DescribeWhiteboardPushCallback",class="ok"}`} {
		if n, err := strconv.Atoi(p.value(addr, s)); err != nil || n < 1 {
			t.Errorf("%s: %d, %v", s, n, err)
		}
	}
	r.await("the key is put in force, and nothing is in hand", r.settled)
	v.Seal()
	d.signal(syscall.SIGUSR1)
	p.await(addr, "/readyz", 503, "unseal it")
	p.await(addr, "/healthz", 200, "ok")
	if _, body, _ := p.get(addr, "/readyz"); strings.Count(body, "\n") != 1 {
		t.Errorf("not one line: %q", body)
	}
	v.Unseal()
	p.await(addr, "/readyz", 200, "ok")
	// A refusal for now, again and again.
	r.await("nothing is in hand", r.settled)
	for range 50 {
		r.server.Plan("Set", 0, tiwtest.Refuse("LimitExceeded"))
	}
	d.signal(syscall.SIGUSR1)
	p.await(addr, "/metrics", 200, `tiwkeyd_tencent_requests_total{api="SetWhiteboardPushCallbackKey",class="refused_for_now"} 2`)
	if phase := p.value(addr, `tiwkeyd_target_phase{phase="pushing",target="`+testTarget.String()+`"}`); phase != "1" {
		t.Errorf("while it is refused: pushing is %q", phase)
	}
	r.server.ForgetPlans()
	r.keyring() // its keys are secrets, too
	r.await("it settles", func() bool { return r.settled() })
	r.keyring()
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestModest: the daemon takes one processor and, once it has read all, little memory, unless the environment says otherwise.
func TestModest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	p := r.pages()
	for _, c := range []struct {
		env            []string
		processors, gc string
	}{{nil, "1", fmt.Sprint(modestGC)}, {[]string{"GOMAXPROCS=3", "GOGC=90"}, "3", "90"}} {
		d := r.start([]string{"run"}, append(c.env, "TIWKEYD_HTTP_ADDR=127.0.0.1:0")...)
		r.awaitOutput(d, "serves these targets")
		addr := p.at(d)
		p.await(addr, "/metrics", 200, "go_gc_gogc_percent "+c.gc+"\n")
		if processors := p.value(addr, "go_sched_gomaxprocs_threads"); processors != c.processors {
			t.Errorf("with %v: %s processors", c.env, processors)
		}
		d.signal(syscall.SIGTERM)
		<-d.done
	}
	r.keyring()
}
