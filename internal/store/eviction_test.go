package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/require"
)

// partOf spreads the keys of these tests over partitions.
func partOf(i int) uint16 { return uint16(i * 2_654_435_761 >> 7 % ring.Partitions) }

// Endless fresh keys push out neither the exhausted keys nor the bound, wherever the attacker puts them: everywhere, all in
// one partition, or in one after another.
func TestFreshKeysDoNotPushOutExhaustedOnes(t *testing.T) {
	places := map[string]func(i int) uint16{
		"everywhere":        partOf,
		"one partition":     func(int) uint16 { return 7 },
		"one after another": func(i int) uint16 { return uint16(i / 800 % ring.Partitions) },
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			const maxKeys, exhausted, fresh = 1000, 200, 200_000
			tab, set := New(Config{MaxKeys: maxKeys}), limit.NewSet([]limit.Limit{perHour(10)})
			take := func(part uint16, key string, now int64) bool {
				return Allowed(tab.decide(part, rule.BucketKey{Key: key}, &limit.Request{Set: set, Cost: 1}, now))
			}
			for range 10 {
				for i := range exhausted {
					require.True(t, take(partOf(i), fmt.Sprint("exhausted-", i), 0))
				}
			}
			for i := range fresh {
				now := int64(i) * 100
				require.True(t, take(place(i), fmt.Sprint("fresh-", i), now))
				require.LessOrEqual(t, tab.keys.Load(), int64(maxKeys))
				if k := i % (5 * exhausted); k < exhausted {
					require.False(t, take(partOf(k), fmt.Sprint("exhausted-", k), now), "after %d fresh keys", i)
				}
			}
			require.EqualValues(t, fresh+exhausted-maxKeys, tab.evicted.Load(), "nothing has drained")
			require.EqualValues(t, maxKeys, tab.keys.Load())
			requireCounted(t, tab)
		})
	}
}

// requireCounted fails unless the table's count, its partitions and its order agree about the buckets.
func requireCounted(t *testing.T, tab *Table) {
	t.Helper()
	inPartitions := 0
	for i := range tab.partitions {
		inPartitions += int(tab.partitions[i].buckets.used)
	}
	require.EqualValues(t, inPartitions, tab.keys.Load())
	inOrder := tab.order.heap.len()
	if tab.order.newest != nil {
		inOrder++
	}
	require.Equal(t, inPartitions, inOrder)
	for i := range tab.order.heap.len() {
		e := tab.order.heap.at(i)
		require.EqualValues(t, i, e.bucket.place)
		require.GreaterOrEqual(t, e.fullAt, tab.order.heap.at(max(0, i-1)/2).fullAt)
	}
}

// What has drained goes before anything that matters, however little of it there is and however long ago it was made.
func TestDrainedBucketsGoFirst(t *testing.T) {
	const maxKeys, drained = 1000, 50
	tab := New(Config{MaxKeys: maxKeys})
	quick, slow := limit.NewSet([]limit.Limit{perSecond(10)}), limit.NewSet([]limit.Limit{perHour(10)})
	for i := range maxKeys {
		set := slow
		if i%(maxKeys/drained) == 7 {
			set = quick
		}
		require.True(t, Allowed(tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 1}, int64(i))))
	}
	later := int64(time.Second)
	for i := range drained {
		tab.decide(partOf(i*31), rule.BucketKey{Key: fmt.Sprint("fresh-", i)}, &limit.Request{Set: slow, Cost: 1}, later)
		require.Zero(t, tab.evicted.Load(), "after %d", i)
	}
	tab.decide(8, rule.BucketKey{Key: "one more"}, &limit.Request{Set: slow, Cost: 1}, later)
	require.EqualValues(t, 1, tab.evicted.Load())
	require.EqualValues(t, maxKeys, tab.keys.Load())
}

// Of those that matter, the one that is full first goes, also when it is not the one that was made first.
func TestTheFullestGoes(t *testing.T) {
	const maxKeys = 500
	tab, set := New(Config{MaxKeys: maxKeys}), limit.NewSet([]limit.Limit{perHour(1000)})
	for i := range maxKeys {
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: float64(2 + i*7%maxKeys)}, 0)
	}
	for i := range 100 {
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint("fresh-", i)}, &limit.Request{Set: set, Cost: 1000}, 1)
	}
	for i := range maxKeys {
		id := rule.BucketKey{Key: fmt.Sprint(i)}
		there := tab.partitions[partOf(i)].buckets.find(id.Hash(tab.seed), id) != nil
		require.Equal(t, i*7%maxKeys >= 100, there, "%d", i)
	}
}

// A bucket is left alone while it is leased from, while its partition is frozen, and while that is locked by another.
func TestWhatMayNotGoStays(t *testing.T) {
	set := limit.NewSet([]limit.Limit{perHour(1000)})
	cases := map[string]func(tab *Table, id rule.BucketKey) (undo func()){
		"lent from": func(tab *Table, id rule.BucketKey) func() {
			tab.members.Store(1)
			_, g, ok := tab.decideLending(1, id, &limit.Request{Set: set, Cost: 1}, &wire.Borrowing{Want: 10}, 0)
			require.True(t, ok)
			require.Positive(t, g.Tokens)
			return func() {}
		},
		"frozen": func(tab *Table, _ rule.BucketKey) func() {
			tab.partitions[1].frozenUntil = 1 << 30
			return func() {}
		},
		"locked": func(tab *Table, _ rule.BucketKey) func() {
			tab.partitions[1].mu.Lock()
			return tab.partitions[1].mu.Unlock
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			tab, id := New(Config{MaxKeys: 50}), rule.BucketKey{Key: "kept"}
			require.True(t, Allowed(tab.decide(1, id, &limit.Request{Set: set, Cost: 1}, 0)))
			undo := prepare(tab, id)
			for i := range 1000 {
				part := 2 + uint16(i%1000)
				require.True(t, Allowed(tab.decide(part, rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 100}, 1)))
				require.LessOrEqual(t, tab.keys.Load(), int64(50))
			}
			undo()
			require.NotNil(t, tab.partitions[1].buckets.find(id.Hash(tab.seed), id))
		})
	}
}

// What was leased from when it was looked at has its place when that has ended.
func TestALeaseDelaysEvictionOnlyWhileItIsOut(t *testing.T) {
	tab, id := New(Config{MaxKeys: 50}), rule.BucketKey{Key: "lent from"}
	tab.members.Store(1)
	set, slow := limit.NewSet([]limit.Limit{perSecond(1000)}), limit.NewSet([]limit.Limit{perHour(1000)})
	_, g, ok := tab.decideLending(1, id, &limit.Request{Set: set, Cost: 1}, &wire.Borrowing{Want: 10}, 0)
	require.True(t, ok)
	require.Positive(t, g.Tokens)
	for i := range 100 {
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: slow, Cost: float64(1 + i)}, 1)
	}
	require.NotNil(t, tab.partitions[1].buckets.find(id.Hash(tab.seed), id))
	evicted := tab.evicted.Load()
	tab.decide(2, rule.BucketKey{Key: "one more"}, &limit.Request{Set: slow, Cost: 100}, int64(time.Second))
	require.Nil(t, tab.partitions[1].buckets.find(id.Hash(tab.seed), id))
	require.Equal(t, evicted, tab.evicted.Load(), "it had drained")
}

// The bound gives way when nothing may go, and is kept again soon afterwards.
func TestTheBoundComesBack(t *testing.T) {
	tab, set := New(Config{MaxKeys: 100}), limit.NewSet([]limit.Limit{perHour(10)})
	for i := range 100 {
		tab.decide(1, rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 1}, 0)
	}
	tab.partitions[1].frozenUntil = 10
	tab.partitions[2].frozenUntil = 10
	for i := range 20 {
		tab.decide(2, rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 1}, 1)
	}
	require.EqualValues(t, 120, tab.keys.Load())
	for i := range 20 {
		tab.decide(3, rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 1}, 11)
	}
	require.EqualValues(t, 100, tab.keys.Load())
	requireCounted(t, tab)
}

// What becomes of buckets in other ways is known to the order.
func TestTheOrderFollowsTheTable(t *testing.T) {
	tab := New(Config{MaxKeys: 1000})
	quick, slow := limit.NewSet([]limit.Limit{perSecond(10)}), limit.NewSet([]limit.Limit{perHour(10)})
	for i := range 600 {
		set := quick
		if i%3 == 0 {
			set = slow
		}
		tab.decide(uint16(i%7), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 5}, 0)
		requireCounted(t, tab)
	}
	for part := range uint16(7) {
		tab.Sweep(part, int64(time.Second))
		requireCounted(t, tab)
	}
	require.EqualValues(t, 200, tab.keys.Load())
	clearPart(tab, 3)
	requireCounted(t, tab)
}

// Partitions that are inserted into, swept and cleared at the same time agree with the order afterwards.
func TestEvictionFromSeveralGoroutines(t *testing.T) {
	const maxKeys, goroutines, each = 300, 4, 3000
	tab, set := New(Config{MaxKeys: maxKeys}), limit.NewSet([]limit.Limit{perSecond(10)})
	var running sync.WaitGroup
	for g := range goroutines {
		running.Go(func() {
			for i := range each {
				now := int64(i) * int64(100*time.Microsecond)
				tab.decide(uint16(i*7%13), rule.BucketKey{Key: fmt.Sprint(g, "-", i)}, &limit.Request{Set: set, Cost: 1}, now)
				tab.decide(uint16(i*7%13), rule.BucketKey{Key: fmt.Sprint("shared-", i/2)}, &limit.Request{Set: set, Cost: 1}, now)
				switch part := uint16(i % 13); i % 101 {
				case 1:
					tab.Sweep(part, now)
				case 2:
					clearPart(tab, part)
				}
			}
		})
	}
	running.Wait()
	requireCounted(t, tab)
	for i := range goroutines * each {
		if tab.keys.Load() <= maxKeys {
			break
		}
		tab.decide(20, rule.BucketKey{Key: fmt.Sprint("after-", i)}, &limit.Request{Set: set, Cost: 1}, int64(time.Second))
	}
	require.LessOrEqual(t, tab.keys.Load(), int64(maxKeys))
}

// When the entries at the top are not as they were, others are compared with them.
func TestEvictionIsNotMisledByWhatHasChanged(t *testing.T) {
	const maxKeys = 400
	tab, set := New(Config{MaxKeys: maxKeys}), limit.NewSet([]limit.Limit{perHour(1000)})
	for i := range maxKeys {
		cost := 1.0 // those that come to be exhausted look fuller than the others
		if i >= maxKeys/2 {
			cost = 10
		}
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: cost}, 0)
	}
	for i := range maxKeys / 2 {
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 999}, 0)
	}
	for i := range maxKeys / 2 {
		tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint("fresh-", i)}, &limit.Request{Set: set, Cost: 1000}, 1)
	}
	for i := range maxKeys / 2 {
		require.False(t, Allowed(tab.decide(partOf(i), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 1}, 2)), "%d", i)
	}
}

// A full table is no slower to insert into when all keys are in one partition.
func BenchmarkInsertWhenFull(b *testing.B) {
	places := map[string]func(i int) uint16{"everywhere": partOf, "one partition": func(int) uint16 { return 7 }}
	for _, full := range []bool{false, true} {
		for name, place := range places {
			b.Run(fmt.Sprintf("full=%v/%s", full, name), func(b *testing.B) {
				const maxKeys = 100_000
				tab, set := New(Config{MaxKeys: maxKeys}), limit.NewSet([]limit.Limit{perHour(10)})
				if !full {
					tab.maxKeys = 1 << 40
				}
				a, now := &limit.Request{Set: set, Cost: 1}, int64(0)
				insert := func(i int) {
					now += 100
					tab.decide(place(i), rule.BucketKey{Key: fmt.Sprint("key-", i)}, a, now)
				}
				for i := range maxKeys {
					insert(i)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					insert(maxKeys + i)
				}
			})
		}
	}
}
