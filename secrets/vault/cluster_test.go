package vault

import (
	"errors"
	"strconv"
	"testing"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// TestCluster kills the active node of three while writes go on: no write that was
// acknowledged is lost, and the writer goes on by itself.
func TestCluster(t *testing.T) {
	c := vaulttest.StartCluster(t, 3)
	var stores []*Store
	for _, node := range c.Nodes {
		s, _ := open(t, node.Addr, withToken(node.Token))
		stores = append(stores, s)
	}
	target := storetest.Target()
	acknowledged := map[int64]string{}
	// write tries, on one node after the other, until something is acknowledged.
	next := 0
	write := func() {
		t.Helper()
		for try := 0; ; try++ {
			s := stores[try%len(stores)]
			read, err := s.Read(t.Context(), target)
			if err != nil {
				storetest.Quiet(t, err)
				continue
			}
			next++
			k := storetest.Keyring(target, next)
			v, err := s.Write(t.Context(), target, k, read.Version)
			if err == nil {
				if id, taken := acknowledged[v]; taken {
					t.Fatalf("version %d was acknowledged to %s and to %s", v, id, k.CallbackKey())
				}
				acknowledged[v] = k.CallbackKey().ID()
				return
			}
			storetest.Quiet(t, err)
			if try > 2000 {
				t.Fatalf("no write gets through: %v", err)
			}
		}
	}
	for range 3 {
		for range 10 {
			write()
		}
		killed := c.KillActive()
		for range 10 {
			write()
		}
		c.Revive(killed)
	}
	kv := c.Nodes[0].Client(c.Nodes[0].Token).KVv2("secret")
	last, err := stores[0].Read(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for v := max(1, last.Version-9); v <= last.Version; v++ {
		got, err := kv.GetVersion(t.Context(), stores[0].path(target), int(v))
		if err != nil {
			t.Fatal(err)
		}
		id, ok := acknowledged[v]
		if !ok {
			continue // written, but the answer never came
		}
		keys, _ := got.Data["keys"].([]any)
		entry, _ := keys[0].(map[string]any)
		if entry["id"] != id {
			t.Errorf("version %s was acknowledged to %s and holds %v", strconv.FormatInt(v, 10), id, entry["id"])
		}
	}
	if _, err := stores[0].Write(t.Context(), target, storetest.Keyring(target, 0), 0); !errors.Is(err, rotator.ErrConflict) {
		t.Errorf("a creation over it: %v", err)
	}
}
