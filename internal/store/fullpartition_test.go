package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// A partition that somebody has filled on purpose: which one a key belongs to is no secret.

// mostUnderOneHold is how many buckets may be gone over while a partition's lock is held: twice the largest piece, because
// to take one in can split chunks.
const mostUnderOneHold = 2 * pieceBuckets

// countHolds has what is gone over under partitions' locks counted until the test ends.
func countHolds(t *testing.T) {
	Probe.Start()
	t.Cleanup(Probe.End)
}

// requireShort fails if more was gone over under one hold than may be, and ends the hold of the operation before.
func requireShort(t *testing.T, what string) {
	t.Helper()
	Probe.Released()
	require.LessOrEqual(t, Probe.Most(), int64(mostUnderOneHold), what)
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
	r.holder.Sweep(rigPart, 0)
	requireShort(t, "looking at what has not drained")
	r.finish(t, "a")
	requireShort(t, "sending everything")
	require.Equal(t, r.taken, levels(standby, r.rules))
	requireCounted(t, standby)
	requireShort(t, "")

	sent := len(r.standbys["a"].wire)
	for i := range keys {
		r.take(t, fmt.Sprint(i))
		Probe.Released()
	}
	r.finish(t, "a")
	requireShort(t, "sending changes of every key")
	require.Equal(t, r.taken, levels(standby, r.rules))
	require.Less(t, len(r.standbys["a"].wire), sent+keys/900, "once")
	require.Empty(t, r.part().dirty)

	for i := range keys {
		r.take(t, fmt.Sprint(i))
		Probe.Released()
	}
	r.part().forgetChanges()
	requireShort(t, "giving up a list of changes")
	r.part().Holding.Replication.ResendAll = true
	r.holder.MarkChanged(rigPart)
	r.take(t, "while none is listed")
	r.finish(t, "a")
	requireShort(t, "sending everything once more")
	require.Equal(t, r.taken, levels(standby, r.rules))
	requireCounted(t, standby)
	r.take(t, "7")
	require.Len(t, r.part().dirty, 1, "changes are listed again")

	for from, more := uint32(0), true; more; {
		_, from, more = r.holder.collect(rigPart, from, wire.AcquireBudget, 0)
	}
	requireShort(t, "answering")
	idle, any := standby.IdleCopy(rigPart)
	require.True(t, any)
	require.True(t, standby.DropCopy(idle))
	standby.tidyAll(func() int64 { return 0 })
	requireShort(t, "dropping a copy")
	requireCounted(t, standby)
	require.Zero(t, standby.keys.Load())
	r.holder.Sweep(rigPart, int64(2*time.Hour))
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
		standby.insert(&standby.partitions[rigPart], r.rule.Bucket(fmt.Sprint("old-", i)).Hash(standby.seed), r.rule.Bucket(fmt.Sprint("old-", i)), set, 0)
		Probe.Released()
	}
	for i := range 30_000 {
		r.take(t, fmt.Sprint(i))
		Probe.Released()
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
	tab, rules := New(Config{MaxKeys: 3000}), rule.New(1000)
	r := mustFind(t, rules, "api", []limit.Limit{perHour(1000)})
	take := func(part uint16, key string, cost float64) {
		require.True(t, Allowed(tab.decide(part, r.Bucket(key), &limit.Request{Set: r.Set, Cost: cost}, 0)))
	}
	for i := range 2000 {
		take(7, fmt.Sprint("old-", i), 1)
	}
	var a Arrival
	content := wire.Content{}
	for i := range 2000 {
		content.Buckets = append(content.Buckets, wire.Image{Limiter: "api", Key: fmt.Sprint("new-", i), Set: r.Set, Levels: []float64{5}})
	}
	a.add(tab.Build(7, &content, 0))
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
