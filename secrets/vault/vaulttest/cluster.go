package vaulttest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/vault/api"
)

// Cluster is a raft cluster on loopback.
type Cluster struct {
	Nodes []*Server

	tb testing.TB
}

// StartCluster gives a running cluster of n nodes, unsealed, with a KV version 2 mount at
// "secret". It ends with the test.
func StartCluster(tb testing.TB, n int) *Cluster {
	tb.Helper()
	dir := tb.TempDir()
	var dirs []string
	for i := range n {
		dirs = append(dirs, filepath.Join(dir, fmt.Sprint(i)))
	}
	return StartClusterIn(tb, dirs...)
}

// StartClusterIn is StartCluster with a directory for each node.
func StartClusterIn(tb testing.TB, dirs ...string) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	for i, dir := range dirs {
		// Without its cache, as docs/operations.md has it: a node that was paused would keep what it knew before.
		storage := fmt.Sprintf("disable_cache = true\nstorage \"raft\" {\n  path = %%q\n  node_id = \"node%d\"\n  performance_multiplier = 1\n}", i)
		c.Nodes = append(c.Nodes, newServer(tb, dir, storage))
	}
	first := c.Nodes[0]
	first.Launch()
	first.initialise()
	for _, node := range c.Nodes[1:] {
		node.unseal, node.Token = first.unseal, first.Token
		node.Launch()
		node.Await("joined", func(cl *api.Client) error {
			got, err := cl.Sys().RaftJoin(&api.RaftJoinRequest{LeaderAPIAddr: first.Addr})
			if err != nil {
				return err
			}
			return holds(got.Joined)
		})
		c.unseal(node)
	}
	first.MountKV2("secret")
	c.settle()
	return c
}

// settle waits until the cluster can lose a node: those that joined have no vote at first.
func (c *Cluster) settle() {
	c.tb.Helper()
	for _, node := range c.Nodes {
		node.Await("can spare a node", func(cl *api.Client) error {
			st, err := cl.Sys().RaftAutopilotState()
			if err != nil {
				return err
			}
			return holds(st != nil && st.Healthy && st.FailureTolerance > 0 && len(st.Voters) == len(c.Nodes))
		})
	}
}

// unseal unseals a node and waits until it knows the active one.
func (c *Cluster) unseal(node *Server) {
	c.tb.Helper()
	node.Open()
	node.Await("knows its leader", func(cl *api.Client) error {
		l, err := cl.Sys().Leader()
		if err != nil {
			return err
		}
		return holds(l.LeaderAddress != "")
	})
}

// KillActive kills the active node and gives it; Revive brings it back.
func (c *Cluster) KillActive() *Server {
	c.tb.Helper()
	for {
		for _, node := range c.Nodes {
			if l, err := node.Client(node.Token).Sys().Leader(); err == nil && l.IsSelf {
				node.Stop()
				return node
			}
		}
	}
}

// Revive starts a killed node again.
func (c *Cluster) Revive(node *Server) {
	c.tb.Helper()
	node.Launch()
	c.unseal(node)
	c.settle()
}
