package peerlimit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A partition that somebody has filled on purpose, in nodes.

// A request about a partition that something is being done to waits, and none behind it on the connection does.
func TestAPartitionInWorkHoldsUpNoOther(t *testing.T) {
	n := &Node{table: store.New(store.Config{MaxKeys: 1 << 20}), rules: rule.New(1000), began: time.Now()}
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	ask := func(key string) (reply []byte, later func(context.Context) []byte) {
		m := wire.Message{Kind: wire.KindTake, Rule: r.Encoded, Key: key, Cost: 1}
		return server{n}.handle("other", wire.AppendMessage(nil, &m), nil)
	}
	part := r.Hash.Partition("busy")
	answered := make(chan []byte)
	steps := 0
	n.table.InSteps(part, func(*store.Partition) (more bool) {
		if steps++; steps == 1 {
			return true
		}
		reply, later := ask("busy") // with the lock held
		assert.Nil(t, reply)
		assert.NotNil(t, later)
		go func() { answered <- later(t.Context()) }()
		reply, none := ask("other")
		assert.NotEmpty(t, reply)
		assert.Nil(t, none)
		return false
	})
	ans, err := wire.DecodeResponse(<-answered)
	require.NoError(t, err)
	require.True(t, ans.Decision.Allowed)
	reply, _ := ask("busy")
	require.NotEmpty(t, reply, "nothing is being done any more")
	require.False(t, n.table.IsInWork(part))
}

// fullCluster starts nodes on loopback and fills one partition of the first one's, whose keys then have one token each. It
// returns the nodes and the partition.
func fullCluster(t testing.TB, size, keys int) (nodes []*Node, part uint16, r *rule.Rule) {
	for range size {
		nodes = append(nodes, addTo(t, nodes))
	}
	for part = range uint16(ring.Partitions) {
		if nodes[0].table.Holds(part) {
			break
		}
	}
	r, err := nodes[0].rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1)}))
	require.NoError(t, err)
	for i := range keys {
		id := r.Bucket(fmt.Sprintf("user-%08d", i))
		var d limit.Decision
		held := nodes[0].table.Decide(&d, part, id, &limit.Request{Set: r.Set, Cost: 1}, nodes[0].now())
		require.True(t, held && d.Allowed)
	}
	return nodes, part, r
}

func addTo(t testing.TB, nodes []*Node) *Node {
	c := Config{Logger: slog.New(slog.DiscardHandler), MaxKeys: 4_000_000}
	for _, n := range nodes {
		c.Join = append(c.Join, n.Self().Addr)
	}
	node, err := Start(c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	for _, n := range append(nodes, node) {
		require.NoError(t, n.WaitReady(t.Context(), len(nodes)+1))
	}
	return node
}

// remembered returns how many keys of a full partition are exhausted at the node that holds it.
func remembered(t testing.TB, nodes []*Node, part uint16, r *rule.Rule, keys int) (exhausted int) {
	for _, n := range nodes {
		if !n.table.Holds(part) {
			continue
		}
		there, err := n.rules.Find(r.Encoded)
		require.NoError(t, err)
		for i := range keys {
			if d, ok := n.table.Peek(part, there.Bucket(fmt.Sprintf("user-%08d", i)), there.Set, n.now()); ok && !d.Allowed {
				exhausted++
			}
		}
		return exhausted
	}
	require.Fail(t, "nobody holds it")
	return 0
}

// A node that holds a full partition can leave, and the one that gets it as well; no key is forgotten.
func TestAFullPartitionIsHandedOver(t *testing.T) {
	const keys = 50_000
	nodes, part, r := fullCluster(t, 3, keys)
	for len(nodes) > 1 {
		for i, n := range nodes {
			if n.table.Holds(part) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				require.NoError(t, n.Leave(ctx))
				cancel()
				nodes = append(nodes[:i], nodes[i+1:]...)
				break
			}
		}
		require.NoError(t, nodes[0].WaitReady(t.Context(), len(nodes)))
		require.Equal(t, keys, remembered(t, nodes, part, r, keys))
	}
}
