package peerlimit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A partition that somebody has filled on purpose: which one a key belongs to is no secret.

// mostUnderOneHold is how many buckets may be gone over while a partition's lock is held: twice the largest piece, because
// to take one in can split chunks.
const mostUnderOneHold = 2 * pieceBuckets

// countHolds has what is gone over under partitions' locks counted until the test ends.
func countHolds(t *testing.T) {
	holds.now.Store(0)
	holds.greatest.Store(0)
	holds.on.Store(true)
	t.Cleanup(func() { holds.on.Store(false) })
}

// requireShort fails if more was gone over under one hold than may be, and ends the hold of the operation before.
func requireShort(t *testing.T, what string) {
	t.Helper()
	holds.released()
	require.LessOrEqual(t, holds.greatest.Load(), int64(mostUnderOneHold), what)
}

// Whatever is done to a partition, its lock is never held for all of its keys.
func TestNoHoldGoesOverAWholePartition(t *testing.T) {
	const keys = 20_000
	countHolds(t)
	r := newReplicaRig(t, "a")
	for i := range keys {
		r.take(t, fmt.Sprint(i))
		requireShort(t, "inserting")
	}
	standby := r.standbys["a"].table
	r.holder.sweep(rigPart, 0)
	requireShort(t, "looking at what has not drained")
	r.finish(t, "a")
	requireShort(t, "sending everything")
	require.Equal(t, r.taken, levels(standby, r.rules))
	requireCounted(t, standby)
	requireShort(t, "")

	sent := len(r.standbys["a"].wire)
	for i := range keys {
		r.take(t, fmt.Sprint(i))
		holds.released()
	}
	r.finish(t, "a")
	requireShort(t, "sending changes of every key")
	require.Equal(t, r.taken, levels(standby, r.rules))
	require.Less(t, len(r.standbys["a"].wire), sent+keys/900, "once")
	require.Empty(t, r.part().dirty)

	for i := range keys {
		r.take(t, fmt.Sprint(i))
		holds.released()
	}
	r.part().forgetChanges()
	requireShort(t, "giving up a list of changes")
	r.part().holding.Replication.ResendAll = true
	r.holder.markChanged(rigPart)
	r.take(t, "while none is listed")
	r.finish(t, "a")
	requireShort(t, "sending everything once more")
	require.Equal(t, r.taken, levels(standby, r.rules))
	requireCounted(t, standby)
	r.take(t, "7")
	require.Len(t, r.part().dirty, 1, "changes are listed again")

	for from, more := uint32(0), true; more; {
		_, from, more = r.holder.collect(rigPart, from, wire.AcquireBudget, r.rules, 0)
	}
	requireShort(t, "answering")
	idle, any := standby.idleCopy(rigPart)
	require.True(t, any)
	require.True(t, standby.dropCopy(idle))
	standby.tidyAll(func() int64 { return 0 })
	requireShort(t, "dropping a copy")
	requireCounted(t, standby)
	require.Zero(t, standby.keys.Load())
	r.holder.sweep(rigPart, int64(2*time.Hour))
	requireShort(t, "sweeping")
	require.Zero(t, r.holder.keys.Load())
	requireCounted(t, r.holder)
}

// What arrives all at once is more than there may be: the bound is kept again afterwards, and what was there before goes.
func TestAFullPartitionArrivesAtASmallTable(t *testing.T) {
	countHolds(t)
	r := newReplicaRig(t, "a")
	standby := r.standbys["a"].table
	standby.maxKeys = 5000
	for i := range 4000 {
		set := r.rule.Set
		standby.insert(&standby.partitions[rigPart], rule.BucketKey{Key: fmt.Sprint("old-", i), Limiter: r.rule.ID}.Hash(standby.seed), rule.BucketKey{Key: fmt.Sprint("old-", i), Limiter: r.rule.ID}, set, 0)
		holds.released()
	}
	for i := range 30_000 {
		r.take(t, fmt.Sprint(i))
		holds.released()
	}
	r.finish(t, "a")
	requireShort(t, "evicting")
	require.EqualValues(t, 5000, standby.keys.Load())
	require.EqualValues(t, 25_000, standby.evicted.Load())
	requireCounted(t, standby)
	for key := range levels(standby, r.rules) {
		require.NotContains(t, key, "old-")
	}
}

// While the buckets that were replaced are still in the order of eviction, room is made at the cost of what is there.
func TestEvictionBetweenTheStepsOfAReplacement(t *testing.T) {
	tab, rules := newTable(3000), rule.New()
	r := mustFind(t, rules, "api", []limit.Limit{perHour(1000)})
	take := func(part uint16, key string, cost float64) {
		require.True(t, allowed(tab.decide(part, rule.BucketKey{Key: key, Limiter: r.ID}, &limit.Request{Set: r.Set, Cost: cost}, 0)))
	}
	for i := range 2000 {
		take(7, fmt.Sprint("old-", i), 1)
	}
	var a arrival
	content := wire.Content{}
	for i := range 2000 {
		content.Buckets = append(content.Buckets, wire.Image{Limiter: "api", Key: fmt.Sprint("new-", i), Set: r.Set, Levels: []float64{5}})
	}
	a.add(tab.build(7, &content, rules, 0))
	p := &tab.partitions[7]
	p.replace(&a)
	require.EqualValues(t, 2000, tab.keys.Load())
	for i, more := 0, true; more; i++ {
		for j := range 100 {
			take(uint16(8+j), fmt.Sprint("other-", i), 10)
		}
		more = tab.tidyUp(p, 0)
		require.LessOrEqual(t, tab.keys.Load(), int64(3000+stepChanges))
	}
	take(8, "one more", 10)
	take(8, "and another", 10)
	require.EqualValues(t, 3000, tab.keys.Load())
	requireCounted(t, tab)
	for _, content := range allIn(&p.buckets) {
		require.Contains(t, content.bucket.key(), "new-")
	}
}

// What has to be charged before a node begins to hold is charged in steps, and each spending once, also when the copy is
// replaced half-way. As long as the node does not hold, its copy seems to be no newer than it is.
func TestManyReportsAreChargedInSteps(t *testing.T) {
	countHolds(t)
	n := reportNode("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1e6)}))
	require.NoError(t, err)
	const part, reporters, reports, charges = 7, 3, 100, 30
	p := &n.table.partitions[part]
	p.holding.Copy = wire.Version{Seq: 5}
	p.holding.Attempt = &holding.Attempt{}
	for reporter := range reporters {
		for seq := range reports {
			q := wire.Debt{Member: fmt.Sprint("other-", reporter), Part: part, Seq: uint64(seq + 1)}
			for i := range charges {
				q.Charges = append(q.Charges, wire.Charge{Rule: r.Encoded, Key: fmt.Sprint("key-", (seq*charges+i)%1000), Cost: 1})
			}
			p.holding.Attempt.KeepDebts([]wire.Debt{q})
		}
	}
	for i := range 2000 {
		n.reporter.note(part, r, fmt.Sprint("key-", i), 1)
	}
	steps := 0
	for n.chargeSome(part, p, 0) {
		requireShort(t, "charging")
		if steps++; steps == 10 { // another copy has come
			p.replace(new(arrival))
			n.table.tidy(part, 0)
			p.holding.Attempt.Charged = 0
		}
	}
	require.Greater(t, steps, 50)
	require.EqualValues(t, 5, p.holding.Copy.Seq)
	require.EqualValues(t, 2000, n.reporter.count.Load(), "it may have been for nothing")
	holds.released()
	p.holding.Hold(wire.Version{Seq: 5})
	n.chargeAll(part, p, 0)
	requireShort(t, "")
	require.Zero(t, n.reporter.count.Load())
	for i := range 2000 {
		want := 1.0
		if i < 1000 {
			want += reporters * reports * charges / 1000
		}
		require.Equal(t, want, n.levelOf(part, r, fmt.Sprint("key-", i)), "%d", i)
	}
}

// Who asks about a partition that something is being done to waits, and nobody behind it on the connection does.
func TestAPartitionInWorkHoldsUpNoOther(t *testing.T) {
	n := reportNode("self")
	r, err := n.rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(10)}))
	require.NoError(t, err)
	ask := func(key string) (reply []byte, later func(context.Context) []byte) {
		m := wire.Message{Kind: wire.KindTake, Rule: r.Encoded, Key: key, Cost: 1}
		return n.handle("other", wire.AppendMessage(nil, &m), nil)
	}
	part := r.Hash.Partition("busy")
	p := &n.table.partitions[part]
	answered := make(chan []byte)
	steps := 0
	n.table.inSteps(part, func(*partition) (more bool) {
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
	require.Nil(t, p.underway)
}

// fullCluster starts nodes on loopback and fills one partition of the first one's, whose keys then have one token each. It
// returns the nodes and the partition.
func fullCluster(t testing.TB, size, keys int) (nodes []*Node, part uint16, r *rule.Rule) {
	for range size {
		nodes = append(nodes, addTo(t, nodes))
	}
	for part = range uint16(ring.Partitions) {
		if nodes[0].table.holds(part) {
			break
		}
	}
	r, err := nodes[0].rules.Find(wire.AppendRule(nil, "api", []limit.Limit{perHour(1)}))
	require.NoError(t, err)
	for i := range keys {
		id := rule.BucketKey{Key: fmt.Sprintf("user-%08d", i), Limiter: r.ID}
		require.True(t, allowed(nodes[0].table.decide(part, id, &limit.Request{Set: r.Set, Cost: 1}, nodes[0].now())))
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
		if !n.table.holds(part) {
			continue
		}
		there, err := n.rules.Find(r.Encoded)
		require.NoError(t, err)
		for i := range keys {
			if d, ok := n.table.peek(part, rule.BucketKey{Key: fmt.Sprintf("user-%08d", i), Limiter: there.ID}, there.Set, n.now()); ok && !d.Allowed {
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
			if n.table.holds(part) {
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
