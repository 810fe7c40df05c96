package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// requireWhole fails unless a set's directory and counts agree with what is in it.
func requireWhole(t require.TestingT, set *buckets) {
	all := allIn(set)
	require.EqualValues(t, len(all), set.used)
	for i, content := range all[min(1, len(all)):] {
		require.LessOrEqual(t, all[i].hash>>32, content.hash>>32, "in order")
	}
	if set.dir == nil {
		return
	}
	d, used, depths := set.dir, 0, [maxDepth + 1]int32{}
	require.Len(t, d.chunks, 1<<d.depth)
	for i := 0; i < len(d.chunks); {
		c := d.chunks[i]
		span := 1 << (d.depth - c.depth)
		for _, same := range d.chunks[i : i+span] {
			require.Same(t, c, same)
		}
		for _, content := range c.slots {
			if content.bucket != nil {
				require.EqualValues(t, uint64(i)>>(d.depth-c.depth), content.hash>>(64-c.depth))
			}
		}
		require.LessOrEqual(t, 4*int(c.used), 3*len(c.slots))
		depths[c.depth]++
		used += int(c.used)
		i += span
	}
	require.EqualValues(t, used, set.used)
	require.Equal(t, depths, d.depths)
	require.NotZero(t, d.depths[d.depth], "it looks at no more bits than it must")
}

// anySet is what buckets are limited by where that does not matter.
var anySet = limit.NewSet([]limit.Limit{perHour(1)})

// A set of many chunks is what a map would be, while it grows and shrinks.
func TestChunksAreAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var set buckets
	model := make(map[int]slot)
	insert := func(i int) {
		hash := random.Uint64()
		model[i] = slot{hash, set.insert(hash, fmt.Sprint(i), limit.State{Set: anySet})}
	}
	check := func(name string) {
		require.EqualValues(t, len(model), set.used, name)
		for i, content := range model {
			require.Same(t, content.bucket, set.find(content.hash, rule.BucketKey{Key: fmt.Sprint(i)}), name)
			require.Nil(t, set.find(content.hash, rule.BucketKey{Key: "not there"}))
		}
		require.False(t, set.remove(random.Uint64(), new(bucket)), "not there")
		requireWhole(t, &set)
	}
	for i := range 50_000 {
		insert(i)
	}
	check("grown")
	require.NotNil(t, set.dir)
	require.LessOrEqual(t, slotsOf(&set), 50_000*9/4)
	for i, content := range model {
		if i%50 != 0 {
			require.True(t, set.remove(content.hash, content.bucket))
			delete(model, i)
		}
	}
	check("shrunk")
	require.LessOrEqual(t, slotsOf(&set), 1000*6, "memory is given back")
	for i := range 50_000 {
		if i%50 != 0 {
			insert(i)
		}
	}
	check("grown again")
	for i, content := range model {
		require.True(t, set.remove(content.hash, content.bucket))
		delete(model, i)
	}
	require.Zero(t, set)
}

// Hashes that have their first bits in common, which a seeded hash does not bring about, cost time but not much memory.
func TestChunksOfAlikeHashes(t *testing.T) {
	for _, mask := range []uint64{0, 1, 0xFF << 32, 1<<63 | 1<<20, 0xFFFF} {
		var set buckets
		for i := range 5000 {
			set.insert(rand.Uint64()&mask, fmt.Sprint(i), limit.State{Set: anySet})
		}
		requireWhole(t, &set)
		require.LessOrEqual(t, slotsOf(&set), 5000*9/4+fullChunk)
		if set.dir != nil {
			require.LessOrEqual(t, len(set.dir.chunks), 64)
		}
		for _, content := range allIn(&set) {
			require.True(t, set.remove(content.hash, content.bucket))
		}
		require.Zero(t, set)
	}
}

// A walk through a set piece by piece sees each bucket that is there all the while, whatever is inserted and removed in
// between; and sees it once, unless there is another one whose hash begins alike.
func TestPlacesInASetOutlastItsChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var set buckets
		name := 0
		insert := func() slot {
			name++
			hash := random.Uint64()
			return slot{hash, set.insert(hash, fmt.Sprint(name), limit.State{Set: anySet})}
		}
		var stay, others []slot
		for range rapid.SampledFrom([]int{3, 100, 1000, 5000}).Draw(t, "stay") {
			stay = append(stay, insert())
		}
		for range rapid.SampledFrom([]int{0, 100, 20_000}).Draw(t, "others") {
			others = append(others, insert())
		}
		most := rapid.SampledFrom([]int{2, 7, 500, 3000}).Draw(t, "most")
		seen := make(map[*bucket]int)
		for from, turn := uint32(0), 0; turn == 0 || from != 0; turn++ {
			n := 0
			from = set.inOrder(from, func(_ uint64, b *bucket) bool {
				if n == most {
					return false
				}
				n++
				seen[b]++
				return true
			})
			change := random.IntN(4)
			if most < 100 && turn%1000 != 0 {
				change = 3
			}
			switch change {
			case 0:
				for range random.IntN(3000) {
					others = append(others, insert())
				}
			case 1:
				random.Shuffle(len(others), func(i, k int) { others[i], others[k] = others[k], others[i] })
				for _, content := range others[:len(others)/2] {
					require.True(t, set.remove(content.hash, content.bucket))
				}
				others = others[len(others)/2:]
			}
		}
		alike := make(map[uint64]int) // by the upper halves of hashes
		for _, content := range append(others, stay...) {
			alike[content.hash>>32]++
		}
		for _, content := range stay {
			if alike[content.hash>>32] > 1 {
				require.NotZero(t, seen[content.bucket])
				continue
			}
			require.Equal(t, 1, seen[content.bucket])
		}
		requireWhole(t, &set)
	})
}
