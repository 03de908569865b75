package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"tiwkeyd/internal/testport"
	"tiwkeyd/rotator"
)

// limitedProxy is a proxy that may have no more open files than nofile.
func (r *rig) limitedProxy(nofile int, upstream string, args ...string) (p *process, url, metrics string) {
	r.t.Helper()
	p = r.limited(nofile, append([]string{"proxy", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--upstream", upstream}, args...), "TIWKEYD_LOG_LEVEL=info")
	r.awaitOutput(p, "hands genuine callbacks on")
	return p, "http://" + announced(p.String(), "listen"), "http://" + announced(p.String(), "metrics")
}

// genuine sends n callbacks one after the other, each on a connection of its own or all on one, and has all be
// accepted.
func genuine(t testing.TB, n int, keepAlives bool, url, body string) (took []time.Duration) {
	t.Helper()
	c := impatient(keepAlives)
	defer c.CloseIdleConnections()
	for i := range n {
		began := time.Now()
		res, err := c.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatalf("a genuine callback, %d of %d: %v", i+1, n, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		took = append(took, time.Since(began))
		if res.StatusCode != http.StatusOK {
			t.Errorf("a genuine callback was answered %d", res.StatusCode)
		}
	}
	return took
}

// TestSocketsOfProxy: connections of every kind that waits, at both ports, more than there may be files, keep no
// genuine callback out, not even one that is signed with a new key, and health answers.
func TestSocketsOfProxy(t *testing.T) {
	slow(t)
	t.Parallel()
	for nofile, connections := range map[int]int{256: 300, 1024: 1500} {
		t.Run(strconv.Itoa(nofile), func(t *testing.T) {
			r := newRig(t)
			k, next := r.newKey(), r.newKey()
			r.put(testTarget, entry(k, rotator.Current))
			p, url, metrics := r.limitedProxy(nofile, r.standing(nil))
			body := r.fresh(testTarget.SdkAppID, k)
			quiet := genuine(t, 50, false, url, body)
			ask(t, 1, metrics+"/readyz")
			_, memory := open(t, p)

			address := strings.TrimPrefix(url, "http://")
			sieges := []*siege{
				besiege(t, connections, strings.TrimPrefix(metrics, "http://"), promised("GET", "/healthz"), ""),
				besiege(t, connections, address, "", ""),
				besiege(t, connections/2, address, promised("POST", "/")+"{", ""),
				besiege(t, connections/5, address, promised("POST", "/"), "{"),
				besiege(t, connections/5, address, "POST / HTTP/1.1\r\nHost: x\r\nX-A: ", "x"),
			}
			times := genuine(t, 50, false, url, body)
			kept := genuine(t, 50, true, url, body)
			r.put(testTarget, entry(next, rotator.Current), entry(k, rotator.Previous))
			anew := genuine(t, 1, false, url, r.fresh(testTarget.SdkAppID, next))
			ask(t, 10, metrics+"/healthz")
			ask(t, 1, metrics+"/readyz")
			files, grown := open(t, p)
			if files >= nofile {
				t.Errorf("%d files are open", files)
			}
			_, text := get(t, metrics+"/metrics")
			held := strings.Join(strings.Fields(strings.Join(linesWith(text, "tiwkeyd_connections"), " ")), " ")
			for _, server := range []string{"callbacks", "metrics"} {
				if !strings.Contains(held, `tiwkeyd_connections_closed_total{server="`+server+`"} `) || strings.Contains(held, `closed_total{server="`+server+`"} 0`) {
					t.Errorf("no connections were closed: %s", held)
				}
			}
			if n := strings.Count(p.String(), "all connections are taken"); n < 2 || n > 10 {
				t.Errorf("it is told %d times:\n%s", n, tail(p.String()))
			}
			came := int64(0)
			for _, s := range sieges {
				came += s.times.Load()
				s.end()
			}
			t.Logf("nofile %d: %d connections came %d times; %s; %d files; memory %d → %d kB", nofile, connections*29/10, came, held, files, memory, grown)
			t.Logf("nofile %d: genuine callbacks before: %s; during, each on a new connection: %s; on one: %s; with a new key: %s", nofile, spread(quiet), spread(times), spread(kept), spread(anew))
			genuine(t, 1, false, url, body)
		})
	}
}

func linesWith(text, begin string) (found []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begin) {
			found = append(found, line)
		}
	}
	return found
}

// TestBusySockets: while every connection has a genuine callback in hand that the receiver is slow with, none of
// them is given up, and the next ones wait and pass.
func TestBusySockets(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	release := make(chan struct{})
	p, url, metrics := r.limitedProxy(256, r.standing(func(http.ResponseWriter, *http.Request) { <-release }))
	body := r.fresh(testTarget.SdkAppID, k)
	const callbacks = 150 // the limit is 96
	done := make(chan int, callbacks)
	for range callbacks {
		go func() {
			// On a busy machine it may be slow to send after it has connected, and is closed: Tencent sends again, five times.
			status := 0
			for try := 0; status == 0 && try < 6; try++ {
				if res, err := http.Post(url, "application/json", strings.NewReader(body)); err == nil {
					status = res.StatusCode
					_ = res.Body.Close()
				}
			}
			done <- status
		}()
	}
	r.awaitOutput(p, "all connections are taken")
	ask(t, 5, metrics+"/healthz")
	close(release)
	for range callbacks {
		if status := <-done; status != http.StatusOK {
			t.Errorf("a genuine callback was answered %d", status)
		}
	}
}

// TestVeryFewFiles: with next to none a proxy says so, and does what it can.
func TestVeryFewFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	p, url, metrics := r.limitedProxy(32, r.standing(nil))
	if !strings.Contains(p.String(), "very few files may be open") {
		t.Errorf("it does not say so:\n%s", p)
	}
	besiege(t, 40, strings.TrimPrefix(url, "http://"), "", "")
	genuine(t, 20, false, url, r.fresh(testTarget.SdkAppID, k))
	ask(t, 5, metrics+"/healthz")
}

// TestOwnUpstream: a proxy that leads to itself does not start where that can be seen.
func TestOwnUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(testTarget, entry(r.newKey(), rotator.Current))
	address, port := testport.Free(t)
	other, _ := testport.Free(t)
	for _, c := range []struct{ upstream, listen, metrics, flag string }{
		{"http://" + address, address, "", "--listen"},
		{"http://localhost:" + port, "0.0.0.0:" + port, other, "--listen"},
		{"http://" + address + "/metrics", other, address, "--metrics"},
	} {
		out, code := r.run([]string{"proxy", "--listen", c.listen, "--metrics", c.metrics, "--upstream", c.upstream})
		if code != exitUsage || !strings.Contains(out, "leads to this proxy itself, to its "+c.flag) {
			t.Errorf("%+v: %d\n%s", c, code, out)
		}
	}
}

// TestRefusedGoes: a connection that brought what is no callback is closed.
func TestRefusedGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.newKey()
	r.put(testTarget, entry(k, rotator.Current))
	p := r.proxy(r.standing(nil), nil)
	for body, want := range map[string]int{r.fresh(testTarget.SdkAppID, k): 200, r.fresh(testTarget.SdkAppID, r.newKey()): 401, "{": 400} {
		res, err := http.Post(p.url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || res.Close != (want != 200) {
			t.Errorf("%d, and the connection is closed: %t", res.StatusCode, res.Close)
		}
	}
}
