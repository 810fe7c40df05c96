package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// allIn returns the slots of a set that are in use.
func allIn(set *buckets) (all []slot) {
	set.inOrder(0, func(hash uint64, b *bucket) bool {
		all = append(all, slot{hash, b})
		Probe.Released() // a test may look at everything
		return true
	})
	return all
}

// slotsOf returns how many slots a set has in all.
func slotsOf(set *buckets) (slots int) {
	if set.dir == nil {
		return len(set.slots)
	}
	seen := make(map[*chunk]bool)
	for _, c := range set.dir.chunks {
		if !seen[c] {
			slots += len(c.slots)
		}
		seen[c] = true
	}
	return slots
}

// removeIf removes the buckets that drop says yes to.
func removeIf(set *buckets, drop func(*bucket) bool) (removed int) {
	for _, content := range allIn(set) {
		if drop(content.bucket) {
			set.remove(content.hash, content.bucket)
			removed++
		}
	}
	return removed
}

// clearPart drops all buckets of a partition.
func clearPart(tab *Table, part uint16) {
	p := &tab.partitions[part]
	p.mu.Lock()
	tab.exchange(p, buckets{})
	p.mu.Unlock()
	tab.tidy(part, 0)
}

// The set of buckets is what a Go map would be, whatever is inserted and removed, also when all hashes collide.
func TestBucketsAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set buckets
		model := make(map[rule.BucketKey]*bucket)
		var sets []*limit.Set // of three limiters
		for _, name := range []string{"a", "b", "c"} {
			sets = append(sets, mustFind(t, rule.New(0), name, []limit.Limit{perHour(10)}).Set)
		}
		drawSet := func(t *rapid.T) *limit.Set { return rapid.SampledFrom(sets).Draw(t, "limiter") }
		drawKey := func(t *rapid.T) string { return rapid.StringMatching(`[a-z]{1,2}`).Draw(t, "key") }
		hashes := rapid.SampledFrom([]uint64{1, 3, 1 << 20, 1<<64 - 1}).Draw(t, "hashes")
		hash := func(id rule.BucketKey) uint64 {
			return uint64(len(id.Key)*7+int(id.Key[0])) % hashes * 0x9E3779B97F4A7C15
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "n") {
					of := drawSet(t)
					id := rule.BucketKey{Key: drawKey(t), Limiter: of.Name}
					if model[id] == nil {
						model[id] = set.insert(hash(id), id.Key, limit.State{Set: of, At: int64(len(model))})
					}
				}
			},
			"remove": func(t *rapid.T) {
				limiter := drawSet(t).Name
				before := rapid.StringMatching(`[a-z]`).Draw(t, "before")
				drop := func(b *bucket) bool { return b.Set.Name == limiter && b.key() < before }
				want := 0
				for id, b := range model {
					if drop(b) {
						delete(model, id)
						want++
					}
				}
				require.Equal(t, want, removeIf(&set, drop))
			},
			"remove one": func(t *rapid.T) {
				id := rule.BucketKey{Key: drawKey(t), Limiter: drawSet(t).Name}
				if b := model[id]; b != nil {
					set.remove(hash(id), b)
					delete(model, id)
				}
			},
			"remove most one by one": func(t *rapid.T) {
				for id, b := range model {
					if id.Key > "c" {
						set.remove(hash(id), b)
						delete(model, id)
					}
				}
			},
			"": func(t *rapid.T) {
				require.EqualValues(t, len(model), set.used)
				require.Len(t, allIn(&set), len(model))
				for id, b := range model {
					require.Same(t, b, set.find(hash(id), id))
				}
				for _, id := range []rule.BucketKey{{Key: "nobody"}, {Key: "a", Limiter: limit.NewName("a")}} {
					require.Nil(t, set.find(hash(id), id))
				}
			},
		})
	})
}

func TestBucketsGiveMemoryBack(t *testing.T) {
	var set buckets
	for i := range 1000 {
		set.insert(uint64(i)*0x9E3779B97F4A7C15, fmt.Sprint(i), limit.State{Set: anySet, At: int64(i)})
	}
	require.GreaterOrEqual(t, slotsOf(&set), 1024)
	require.Equal(t, 990, removeIf(&set, func(b *bucket) bool { return b.At >= 10 }))
	require.LessOrEqual(t, slotsOf(&set), 32)
	require.Equal(t, 10, removeIf(&set, func(*bucket) bool { return true }))
	require.Zero(t, set)

	var inserted []*bucket
	hash := func(i int) uint64 { return uint64(i) * 0x9E3779B97F4A7C15 }
	for i := range 1000 {
		inserted = append(inserted, set.insert(hash(i), fmt.Sprint(i), limit.State{Set: anySet}))
	}
	for i, b := range inserted[:990] {
		set.remove(hash(i), b)
	}
	require.LessOrEqual(t, slotsOf(&set), 64)
	for i, b := range inserted[990:] {
		set.remove(hash(990+i), b)
	}
	require.Zero(t, set)
}

// A key that is done frees its memory without traffic, within a round of sweeping after it has drained.
func TestSweepDropsWhatHasDrained(t *testing.T) {
	tab := New(Config{MaxKeys: 1000})
	quick, slow := limit.NewSet([]limit.Limit{perSecond(10)}), limit.NewSet([]limit.Limit{perHour(10)})
	for i := range 200 {
		set := quick
		if i%2 == 0 {
			set = slow
		}
		require.True(t, Allowed(tab.decide(uint16(i%7), rule.BucketKey{Key: fmt.Sprint(i)}, &limit.Request{Set: set, Cost: 5}, 0)))
	}
	require.EqualValues(t, 200, tab.keys.Load())
	for part := range uint16(7) {
		tab.Sweep(part, int64(499*time.Millisecond))
	}
	require.EqualValues(t, 200, tab.keys.Load(), "not yet")
	for part := range uint16(7) {
		tab.Sweep(part, int64(500*time.Millisecond))
	}
	require.EqualValues(t, 100, tab.keys.Load())
	require.Zero(t, tab.evicted.Load(), "nothing that mattered was lost")
}

// When there is no room the fullest go, and it is counted when that mattered.
func TestTheTableIsBounded(t *testing.T) {
	tab := New(Config{MaxKeys: 100})
	set := limit.NewSet([]limit.Limit{perHour(1000)})
	exhausted := rule.BucketKey{Key: "exhausted"}
	require.True(t, Allowed(tab.decide(0, exhausted, &limit.Request{Set: set, Cost: 1000}, 0)))
	for i := range 10_000 {
		tab.decide(0, rule.BucketKey{Key: fmt.Sprint("fresh-", i)}, &limit.Request{Set: set, Cost: 1}, 1)
		require.LessOrEqual(t, tab.keys.Load(), int64(100))
	}
	require.False(t, Allowed(tab.decide(0, exhausted, &limit.Request{Set: set, Cost: 1}, 2)), "it is remembered while fuller ones are there")
	require.Positive(t, tab.evicted.Load())
}

// The key of a request is in a buffer that is used again, so the table keeps a copy.
func TestTheTableKeepsItsOwnKeys(t *testing.T) {
	tab := New(Config{MaxKeys: 10})
	set := limit.NewSet([]limit.Limit{perHour(1)})
	big := strings.Repeat("x", 1<<20)
	require.True(t, Allowed(tab.decide(0, rule.BucketKey{Key: big[:5]}, &limit.Request{Set: set, Cost: 1}, 0)))
	kept := tab.partitions[0].buckets.find(rule.BucketKey{Key: "xxxxx"}.Hash(tab.seed), rule.BucketKey{Key: "xxxxx"})
	require.NotNil(t, kept)
	require.Equal(t, "xxxxx", kept.key())
}

// The steady state of a take allocates nothing, here and on the way to the owner's table.
func TestDecideAllocatesNothing(t *testing.T) {
	tab := New(Config{MaxKeys: 10})
	a := &limit.Request{Set: limit.NewSet([]limit.Limit{perSecond(1e9), perHour(1e12)}), Cost: 1}
	now := int64(0)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		now += 1000
		tab.decide(5, rule.BucketKey{Key: "k"}, a, now)
	}))
	m := wire.Message{Kind: wire.KindTake, Rule: wire.AppendRule(nil, "api", []limit.Limit{perSecond(1)}), Key: "k", Cost: 1}
	encoded := wire.AppendMessage(nil, &m)
	known := rule.New(1000)
	var out [128]byte
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		m, err := wire.DecodeMessage(encoded)
		if err != nil {
			t.Error(err)
		}
		r, err := known.Find(m.Rule)
		if err != nil {
			t.Error(err)
		}
		ans, ok := tab.Answer(r, 3, &m, now)
		require.True(t, ok)
		wire.AppendResponse(out[:0], &ans)
	}))
}

// decide is Decide, and returns its answer.
func (t *Table) decide(part uint16, id rule.BucketKey, a *limit.Request, now int64) (d limit.Decision, ok bool) {
	ok = t.Decide(&d, part, id, a, now)
	return d, ok
}

func Allowed(d limit.Decision, ok bool) bool { return ok && d.Allowed }

// What every take touches lies in one cache line of the partition; what the first of a bucket since the last replication
// touches besides, in another one.
func TestTakesTouchOneCacheLineOfAPartition(t *testing.T) {
	var p Partition
	const line = 64
	require.Zero(t, unsafe.Sizeof(p)%line)
	holding := unsafe.Offsetof(p.Holding)
	require.Less(t, holding+unsafe.Offsetof(p.Holding.Unreplicated), uintptr(line))
	require.LessOrEqual(t, holding+unsafe.Offsetof(p.Holding.Copy)+unsafe.Offsetof(p.Holding.Copy.Seq)+8, uintptr(line))
	first, end := unsafe.Offsetof(p.dirty), unsafe.Offsetof(p.dirty)+unsafe.Sizeof(p.dirty)
	require.Equal(t, first/line, (end-1)/line)
}

// With a key of up to 23 bytes a bucket is one cache line.
func TestBucketIsACacheLine(t *testing.T) {
	const line = 64
	require.EqualValues(t, line, unsafe.Sizeof(bucket{}))
	r := mustFind(t, rule.New(0), "api", []limit.Limit{perHour(10)})
	for _, length := range []int{1, shortKey - 1, shortKey, shortKey + 1, shortKey + 16, shortKey + 17, 60, nearKey, nearKey + 1, wire.MaxKeyLen} {
		key := strings.Repeat("k", length-1) + "!"
		b := newBucket(key)
		b.State = limit.NewState(r.Set, 0)
		require.Equal(t, r.Bucket(key), b.name())
		if length <= shortKey {
			require.Zero(t, uintptr(unsafe.Pointer(b))%line)
		}
		other := newBucket(strings.Repeat("x", length)) // whose memory may follow
		runtime.GC()
		require.Equal(t, key, b.key())
		require.NotEqual(t, key, other.key())
	}
}

// What docs/operations.md computes the memory of a key from.
func TestSizesInOperations(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the sizes are those of 64 bits")
	}
	assert.EqualValues(t, 64, unsafe.Sizeof(bucket{}))
	assert.EqualValues(t, 72, unsafe.Sizeof(keyedApart{})) // 80 with its size class
	assert.EqualValues(t, 16, unsafe.Sizeof(slot{}))
	assert.EqualValues(t, 16, unsafe.Sizeof(evictionEntry{}))
	assert.InDelta(t, 2.6e6, float64(2*unsafe.Sizeof(Table{})), 0.05e6)
}
