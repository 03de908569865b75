package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tiwkeyd/internal/config"
	"tiwkeyd/rotator"
	"tiwkeyd/secrets/file"
	"tiwkeyd/secrets/vault"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestReloadFlood: reloads as often as a daemon can, while receivers come to know a key. It is set in
// time nevertheless, and the connections of before each reload are closed.
func TestReloadFlood(t *testing.T) {
	slow(t)
	t.Parallel()
	r := newRig(t)
	r.useVault(vaulttest.Start(t))
	r.server.SetKey(testTarget.SdkAppID, string(testTarget.Service), oldKey)
	d := r.daemon("TIWKEYD_PROPAGATION=10s")
	r.await("a key is pending", func() bool { k := r.keyring(); return k != nil && k.Pending() != nil })
	before, sent := d.sockets(t), 0
	const enough = 30
	r.await("the rotation ends", func() bool {
		if done := strings.Count(d.String(), `"msg":"reloaded"`); done == sent {
			d.signal(syscall.SIGHUP)
			sent++
		}
		k := r.keyring()
		return sent > enough && r.settled() && !k.RotatedAt.IsZero()
	})
	after := d.sockets(t)
	cur := r.keyring().Current()
	t.Logf("%d reloads; the key was in force %s after it was written; %d sockets before, %d after", sent, cur.ActivatedAt.Sub(cur.CreatedAt), before, after)
	if after > before+enough/2 {
		t.Errorf("of %d reloads %d sockets are left; before there were %d", sent, after, before)
	}
	if n := r.setCalls(); n != 1 {
		t.Errorf("%d Set calls", n)
	}
	d.signal(syscall.SIGTERM)
	<-d.done
}

// sockets counts those that a process has open.
func (p *process) sockets(t *testing.T) (n int) {
	t.Helper()
	needsProc(t)
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// TestDemandBeforeReload: a demand for all comes before the store was listed, and then a reload. It
// used to be lost.
func TestDemandBeforeReload(t *testing.T) {
	t.Parallel()
	const app = 1500000001
	r := discovering(t, app)
	v := vaulttest.Start(t)
	r.useVault(v)
	r.finishes(nil, "enroll", fmt.Sprint(app))
	r.finishes(nil, "rotate", fmt.Sprint(app))
	id := r.keyringOf(app).CallbackKey().ID()
	v.Policy("tiwkeyd", strings.ReplaceAll(readmePolicy(t), `"list"`, `"deny"`))
	d := r.daemon()
	r.awaitOutput(d, "the keyrings could not be listed")
	d.signal(syscall.SIGUSR1)
	r.awaitOutput(d, "rotating all targets now")
	d.signal(syscall.SIGHUP)
	r.await("it serves again", func() bool { return strings.Count(d.String(), "serves these targets") == 2 })
	v.Policy("tiwkeyd", readmePolicy(t))
	d.signal(syscall.SIGHUP) // else it lists within minutes
	r.await("another key is in force", func() bool { k := r.keyringOf(app); return k.Pending() == nil && k.CallbackKey().ID() != id })
	d.signal(syscall.SIGTERM)
	<-d.done
}

// TestPlaces: which settings make another store or another Tencent of it, for a reload.
func TestPlaces(t *testing.T) {
	at := func(c config.Config) [5]string {
		t.Helper()
		var s rotator.Store
		if c.FileStore != "" {
			s = file.At(c.FileStore)
		} else {
			v, err := vault.New(vault.Options{Mount: c.VaultMount, Prefix: c.VaultPrefix})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			s = v
		}
		return (&parts{config: &c, store: s}).places()
	}
	t.Setenv("VAULT_ADDR", "https://vault.example:8200")
	c := config.Config{VaultMount: "secret", VaultPrefix: "tiw/a", Endpoint: "tiw.example", Region: "ap-singapore"}
	was := at(c)
	if c.Credentials = "env"; at(c) != was {
		t.Error("other credentials are another place")
	}
	for what, change := range map[string]func(*config.Config){
		"kind":     func(c *config.Config) { c.FileStore = "/var/lib/tiwkeyd" },
		"mount":    func(c *config.Config) { c.VaultMount = "kv" },
		"prefix":   func(c *config.Config) { c.VaultPrefix = "tiw/b" },
		"both":     func(c *config.Config) { c.VaultMount, c.VaultPrefix = "secret/tiw", "a" },
		"endpoint": func(c *config.Config) { c.Endpoint = "tiw2.example" },
		"region":   func(c *config.Config) { c.Region = "ap-elsewhere" },
	} {
		other := c
		if change(&other); at(other) == was {
			t.Errorf("another %s is the same place", what)
		}
	}
	for name, value := range map[string]string{"VAULT_NAMESPACE": "team", "VAULT_ADDR": "https://other.example:8200"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if at(c) == was {
				t.Error("it is the same place")
			}
		})
	}
}
