//go:build torture

package vault

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"tiwkeyd/secrets/vault/vaulttest"
)

// TestPausedLeaders pauses the active node of three until another one is elected, as a virtual machine may be paused. In
// every second round or so it then does not learn that it was deposed: two nodes say that they are active, and where the
// one that was paused is elected again it writes as if it had never been gone. With a cache it would write over what
// was acknowledged meanwhile. Without one, no version is lost.
func TestPausedLeaders(t *testing.T) {
	length := time.Minute
	if text := os.Getenv("TIWKEYD_PAUSES_TIME"); text != "" { // as `make torture PAUSES=` has it
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	c := vaulttest.StartCluster(t, 3)
	var nodes []*api.Client
	for _, node := range c.Nodes {
		client := node.Client(node.Token)
		client.SetMaxRetries(0)
		client.SetClientTimeout(500 * time.Millisecond)
		nodes = append(nodes, client)
	}
	if _, err := nodes[0].Logical().Write("secret/config", map[string]any{"max_versions": 100_000}); err != nil {
		t.Fatal(err)
	}
	l, store, target, end := written(t, c)
	defer end()
	running := l.drain()
	active := func(but int) map[int]bool { // those that say so of themselves
		all := map[int]bool{}
		for i, n := range nodes {
			if i == but {
				continue
			}
			if l, err := n.Sys().Leader(); err == nil && l.IsSelf {
				all[i] = true
			}
		}
		return all
	}
	pauses, unaware := 0, 0
	for began := time.Now(); time.Since(began) < length; time.Sleep(time.Second) {
		was := active(-1)
		if len(was) != 1 {
			for i := range was {
				_ = nodes[i].Sys().StepDown()
			}
			time.Sleep(time.Second)
			continue
		}
		paused := slices.Collect(maps.Keys(was))[0]
		c.Nodes[paused].Freeze()
		pauses++
		for len(active(paused)) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		c.Nodes[paused].Thaw()
		time.Sleep(2 * time.Second)
		if now := active(-1); len(now) > 1 && now[paused] {
			unaware++
			for range 3 {
				for i := range now {
					if i != paused {
						_ = nodes[i].Sys().StepDown() // so that the one that was paused is elected again
					}
				}
				time.Sleep(2 * time.Second)
			}
		}
	}
	end()
	running()
	l.check(t, c, store, target)
	t.Logf("%d pauses; after %d of them the node did not know that it was deposed", pauses, unaware)
}
