package vault

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"tiwkeyd/rotator"
	"tiwkeyd/secrets"
	"tiwkeyd/secrets/storetest"
	"tiwkeyd/secrets/vault/vaulttest"
)

// ledger is what the writers were told by the store.
type ledger struct {
	mu           sync.Mutex
	acknowledged map[int64]string // version → id of the key in it
	drawn        int
	more         chan struct{} // gets one for every acknowledged write
}

// writer replaces the keyring over and over until ctx ends. It stays with a store as long as
// that one answers.
func (l *ledger) writer(ctx context.Context, t *testing.T, stores []*Store, first int, target secrets.Target) {
	for i := first; ctx.Err() == nil; {
		s := stores[i%len(stores)]
		read, err := s.Read(ctx, target)
		if err != nil {
			storetest.Quiet(t, err)
			i++
			continue
		}
		l.mu.Lock()
		l.drawn++
		k := storetest.Keyring(target, l.drawn)
		l.mu.Unlock()
		version, err := s.Write(ctx, target, k, read.Version)
		storetest.Quiet(t, err)
		switch {
		case err == nil:
			l.take(ctx, t, version, k.CallbackKey().ID())
		case !errors.Is(err, rotator.ErrConflict):
			i++
		}
	}
}

func (l *ledger) take(ctx context.Context, t *testing.T, version int64, id string) {
	l.mu.Lock()
	if other, taken := l.acknowledged[version]; taken {
		t.Errorf("version %d was acknowledged to %s and to %s", version, other, id)
	}
	l.acknowledged[version] = id
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	case <-ctx.Done():
	}
}

// await waits for n more writes to be acknowledged; the limit only ends a test that hangs.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	limit := time.NewTimer(3 * time.Minute)
	defer limit.Stop()
	for range n {
		select {
		case <-l.more:
		case <-limit.C:
			t.Fatal("no write gets through any more")
		}
	}
}

// TestCluster kills the active node of three while two writers write without a pause: no
// write that was acknowledged is lost, no version has two winners, and the writers go on by
// themselves.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := vaulttest.StartCluster(t, 3)
	root := c.Nodes[0].Client(c.Nodes[0].Token)
	if _, err := root.Logical().Write("secret/config", map[string]any{"max_versions": 100_000}); err != nil {
		t.Fatal(err)
	}
	l, store, target, end := written(t, c)
	defer end()
	for range 3 {
		l.await(t, 20)
		// A writer is held up until its last write is heard of: hear them all while the node
		// is killed, so that the kill meets writes on their way.
		running := l.drain()
		killed := c.KillActive()
		running()
		l.await(t, 20)
		running = l.drain()
		c.Revive(killed)
		running()
	}
	running := l.drain()
	end()
	running()
	l.check(t, c, store, target)
}

// written has two writers replace a keyring, each through one node after the other, until end.
func written(t *testing.T, c *vaulttest.Cluster) (l *ledger, first *Store, target secrets.Target, end func()) {
	t.Helper()
	var stores []*Store
	for _, node := range c.Nodes {
		s, _ := open(t, node.Addr, withToken(node.Token))
		stores = append(stores, s)
	}
	target = storetest.Target()
	l = &ledger{acknowledged: map[int64]string{}, more: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for at := range 2 {
		writers.Go(func() { l.writer(ctx, t, stores, at, target) })
	}
	return l, stores[0], target, func() { stop(); writers.Wait() }
}

// drain takes what the writers report, until the function it gives is called.
func (l *ledger) drain() (end func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-l.more:
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// check compares every version that Vault holds with what was acknowledged.
func (l *ledger) check(t *testing.T, c *vaulttest.Cluster, s *Store, target secrets.Target) {
	t.Helper()
	last, err := s.Read(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if newest := slices.Max(slices.Collect(maps.Keys(l.acknowledged))); last.Version < newest {
		t.Errorf("version %d was acknowledged, but the last one is %d", newest, last.Version)
	}
	kv := c.Nodes[0].Client(c.Nodes[0].Token).KVv2("secret")
	for version, id := range l.acknowledged {
		got, err := kv.GetVersion(t.Context(), s.path(target), int(version))
		if err != nil {
			t.Errorf("version %d, acknowledged to %s: %v", version, id, err)
			continue
		}
		keys, _ := got.Data["keys"].([]any)
		if len(keys) != 1 {
			t.Fatalf("version %d holds %d keys", version, len(keys))
		}
		if entry, _ := keys[0].(map[string]any); entry["id"] != id {
			t.Errorf("version %d was acknowledged to %s and holds %v", version, id, entry["id"])
		}
	}
	t.Logf("%d writes acknowledged in %d versions", len(l.acknowledged), last.Version)
}
