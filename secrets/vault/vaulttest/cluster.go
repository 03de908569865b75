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
	c := &Cluster{tb: tb}
	dir := tb.TempDir()
	for i := range n {
		storage := fmt.Sprintf("storage \"raft\" {\n  path = %%q\n  node_id = \"node%d\"\n  performance_multiplier = 1\n}", i)
		c.Nodes = append(c.Nodes, newServer(tb, filepath.Join(dir, fmt.Sprint(i)), storage))
	}
	first := c.Nodes[0]
	first.launch()
	first.initialise()
	for _, node := range c.Nodes[1:] {
		node.unseal, node.Token = first.unseal, first.Token
		node.launch()
		node.Await("joined", func(cl *api.Client) bool {
			got, err := cl.Sys().RaftJoin(&api.RaftJoinRequest{LeaderAPIAddr: first.Addr})
			return err == nil && got.Joined
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
		node.Await("can spare a node", func(cl *api.Client) bool {
			st, err := cl.Sys().RaftAutopilotState()
			return err == nil && st != nil && st.Healthy && st.FailureTolerance > 0 && len(st.Voters) == len(c.Nodes)
		})
	}
}

// unseal unseals a node and waits until it knows the active one.
func (c *Cluster) unseal(node *Server) {
	c.tb.Helper()
	node.Await("is unsealed", func(cl *api.Client) bool {
		_, _ = cl.Sys().Unseal(node.unseal)
		st, err := cl.Sys().SealStatus()
		return err == nil && !st.Sealed
	})
	node.Await("knows its leader", func(cl *api.Client) bool {
		l, err := cl.Sys().Leader()
		return err == nil && l.LeaderAddress != ""
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
	node.launch()
	c.unseal(node)
	c.settle()
}
