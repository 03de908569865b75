package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tiwkeyd/secrets/vault/vaulttest"
)

// putBacks is when a daemon put its key back, as its log tells.
func putBacks(t *testing.T, d *process) (all []time.Time) {
	t.Helper()
	for line := range strings.Lines(d.String()) {
		var l struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "reassert done" {
			all = append(all, l.Time)
		}
	}
	return all
}

// TestContested: two daemons serve one application, one from Vault and one from files. Each finds the
// other's key and puts its own back. Both come to tell so, and do it more and more rarely.
func TestContested(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	p := r.pages()
	env := []string{"TIWKEYD_HTTP_ADDR=127.0.0.1:0", "TIWKEYD_RECONCILE=10s"} // which is a sixth of a second here
	daemons := []*process{r.daemon(env...), r.daemon(append(env, "TIWKEYD_STORE=file://"+filepath.Join(t.TempDir(), "theirs"))...)}
	defer func() {
		for i, d := range daemons {
			t.Logf("daemon %d put its key back %d times; %d calls to set a key", i, len(putBacks(t, d)), r.setCalls())
		}
	}()
	for _, d := range daemons {
		r.awaitOutput(d, `"msg":"the target is contested:`)
		r.await("the metric of a contested target", func() bool {
			return p.value(p.at(d), `tiwkeyd_target_contested{target="`+testTarget.String()+`"}`) == "1" && p.value(p.at(d), "tiwkeyd_targets_contested") == "1"
		})
	}
	r.await("the page tells it", func() bool {
		_, body, _ := p.get(p.at(daemons[0]), "/?state=contested")
		return strings.Contains(body, "/target/"+testTarget.String())
	})
	// The pause doubles from 33 ms to 5 s. Before, a fraction of a second lay between.
	for i, d := range daemons {
		var before, pause time.Duration
		r.await("a key is put back rarely", func() bool {
			all := putBacks(t, d)
			for n := 1; n < len(all); n++ {
				if pause = all[n].Sub(all[n-1]); n == 1 {
					before = pause
				}
			}
			return pause >= 4*time.Second
		})
		t.Logf("daemon %d: %s between the first two times, %s between the last two", i, before, pause)
		if n := strings.Count(d.String(), "the target is contested:"); n != 1 {
			t.Errorf("daemon %d tells of it %d times", i, n)
		}
	}
	for _, d := range daemons {
		d.signal(syscall.SIGTERM)
		<-d.done
	}
}
