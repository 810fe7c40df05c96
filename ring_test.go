package peerlimit

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// These values are part of the protocol. A change to any of them splits a cluster of mixed versions.
func TestPartitionOfGolden(t *testing.T) {
	for _, golden := range []struct {
		limiter, key string
		partition    uint16
	}{
		{"", "", 353},
		{"login", "", 1214},
		{"", "alice", 3714},
		{"login", "alice", 3388},
		{"login", "login", 1496},
		{"alice", "login", 1982},
		{"http-requests", "customer-00000012345", 332},
		{"http-requests", "\x00\xff\n", 3230},
		{"http-requests", strings.Repeat("k", 1024), 2586},
		{"Größe", "ключ", 2068},
	} {
		assert.Equal(t, golden.partition, partitionOf(golden.limiter, golden.key), "%q %q", golden.limiter, golden.key)
	}
}

func TestKeyHasherAgreesWithPartitionOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limiter, key := rapid.String().Draw(t, "limiter"), string(rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		partition := partitionOf(limiter, key)
		assert.Less(t, partition, uint16(partitionCount))
		assert.Equal(t, partition, newKeyHasher(limiter).partition(key))

		formula := xxhash.Sum64([]byte(limiter))*0x9E3779B97F4A7C15 ^ xxhash.Sum64([]byte(key))
		assert.Equal(t, formula%4093, uint64(partition))
	})
}

// A frame of name and key in one string would have to tell ("ab", "c") from ("a", "bc"); so must this.
func TestPartitionOfKeepsNameAndKeyApart(t *testing.T) {
	const whole = "abcdefghijklmnopqrstuvwxyz"
	seen := make(map[uint16]int)
	for cut := range len(whole) + 1 {
		seen[partitionOf(whole[:cut], whole[cut:])]++
	}
	assert.Len(t, seen, len(whole)+1, "each way to cut has its own partition")

	same := make(map[uint16]int)
	for i := range 100 {
		name := fmt.Sprintf("limiter-%d", i)
		same[partitionOf(name, name)]++
	}
	assert.Greater(t, len(same), 90, "keys named like their limiters do not gather")
}

func TestSequentialKeysSpreadEvenly(t *testing.T) {
	const keys = 100_000
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, limiter := range []string{"login", "http-requests", "tenant-7"} {
		hasher := newKeyHasher(limiter)
		perPartition := make([]int, partitionCount)
		for i := 1; i <= keys; i++ {
			perPartition[hasher.partition(fmt.Sprintf("user-%d", i))]++
		}
		// Chi-square with 4092 degrees of freedom: mean 4092, standard deviation 90.
		const expected = float64(keys) / partitionCount
		var chiSquare float64
		for _, count := range perPartition {
			chiSquare += (float64(count) - expected) * (float64(count) - expected) / expected
		}
		assert.InDelta(t, partitionCount-1, chiSquare, 4*90, limiter)

		for _, members := range []int{3, 9} {
			r := newRing(ringTestNames(rnd, members))
			partitions, counted := make(map[string]int), make(map[string]int)
			for partition, count := range perPartition {
				partitions[r.owner(uint16(partition))]++
				counted[r.owner(uint16(partition))] += count
			}
			require.Len(t, counted, members)
			for name, count := range counted {
				// The count is binomial; five standard deviations are below 5 % of it.
				assert.InEpsilon(t, float64(partitions[name])*expected, count, 0.05, "keys of %s", name)
				assert.InEpsilon(t, float64(keys)/float64(members), count, 0.5, "share of %s of %d", name, members)
			}
		}
	}
}

// ringByDefinition computes the owners from the definition alone: the virtual node i of a member stands at
// XXH64("i:name"), of two on one position the greater name has it, and a partition belongs to the first virtual node at
// or after XXH64(partition as 8 bytes, little-endian), going round.
func ringByDefinition(names []string) []string {
	at := make(map[uint64]string)
	for _, name := range slices.Sorted(slices.Values(names)) {
		for i := range 128 {
			at[xxhash.Sum64String(strconv.Itoa(i)+":"+name)] = name
		}
	}
	positions := slices.Sorted(maps.Keys(at))
	owners := make([]string, 4093)
	for p := range owners {
		if len(positions) == 0 {
			continue
		}
		start := xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(p)))
		i := sort.Search(len(positions), func(i int) bool { return positions[i] >= start })
		owners[p] = at[positions[i%len(positions)]]
	}
	return owners
}

func ringOwners(r *ring) []string {
	owners := make([]string, partitionCount)
	for p := range owners {
		owners[p] = r.owner(uint16(p))
	}
	return owners
}

// The whole table of one fixed set, as a hash: nodes of different versions must agree on it.
func TestRingGolden(t *testing.T) {
	names := []string{"host-1-0a1b2c3d", "host-2-4e5f6071", "host-3-8293a4b5", "host-4-c6d7e8f9", "host-5-00000001"}
	r := newRing(names)
	assert.Equal(t, "host-3-8293a4b5", r.owner(0))
	assert.Equal(t, "host-2-4e5f6071", r.owner(1))
	assert.Equal(t, "host-4-c6d7e8f9", r.owner(4092))
	assert.Equal(t, uint64(0xf8de556bed1226e4), xxhash.Sum64String(strings.Join(ringOwners(r), "\n")))
}

func TestRingIsTheDefinition(t *testing.T) {
	for _, members := range []int{1, 2, 3, 10, 50} {
		names := ringTestNames(rand.New(rand.NewPCG(uint64(members), 3)), members)
		assert.Equal(t, ringByDefinition(names), ringOwners(newRing(names)), "%d members", members)
	}
}

func TestRingIgnoresOrderAndRepetition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,4}-[0-9a-f]{8}`), 1, 6, rapid.ID).Draw(t, "names")
		want := ringByDefinition(names)

		given := append(slices.Clone(names), names[0])
		given = rapid.Permutation(given).Draw(t, "order")
		before := slices.Clone(given)
		r := newRing(given)
		assert.Equal(t, before, given, "the argument is left as it was")
		assert.Equal(t, slices.Sorted(slices.Values(names)), r.members())
		assert.Equal(t, want, ringOwners(r))
	})
}

// However a builder came to a set, the ring is the one that its definition gives.
func TestRingIgnoresHistory(t *testing.T) {
	pool := ringTestNames(rand.New(rand.NewPCG(5, 6)), 12)
	rapid.Check(t, func(t *rapid.T) {
		var builder ringBuilder
		member := make(map[string]bool)
		for _, name := range pool[:9] {
			member[name] = true
		}
		steps := rapid.IntRange(1, 4).Draw(t, "steps")
		for range steps {
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, 3, rapid.ID).Draw(t, "toggled") {
				member[name] = !member[name]
			}
			var names []string
			for _, name := range pool {
				if member[name] {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			require.Equal(t, ringByDefinition(names), ringOwners(builder.build(names)))
		}
	})
}

func TestRingBuilderStartsAgainOnlyWhenItMust(t *testing.T) {
	names := slices.Sorted(slices.Values(ringTestNames(rand.New(rand.NewPCG(5, 6)), 16)))
	var builder ringBuilder
	builder.build(names)
	first := builder.hash
	for range 2 { // a member that was there before may come back
		builder.build(names[2:])
		builder.build(names[1:])
		builder.build(names)
	}
	assert.Same(t, first, builder.hash, "sets that differ little are reached by adding and removing")

	builder.build(names[:8])
	assert.NotSame(t, first, builder.hash, "half the members went")
}

// collidingRingNames returns two names whose virtual nodes 0 stand on one position, by solving XXH64 of the 16 bytes
// "0:" + name for its second half.
func collidingRingNames(label string) (string, string) {
	const prime1, prime2, prime4, prime5 = 11400714785074694791, 14029467366897019727, 9650029242287828579, 2870177450012600261
	inverse := func(odd uint64) uint64 {
		x := odd
		for range 6 {
			x *= 2 - odd*x
		}
		return x
	}
	var wrapping1, wrapping4 uint64 = prime1, prime4 // variables, for constants may not overflow
	round := func(lane uint64) uint64 { return bits.RotateLeft64(lane*prime2, 31) * wrapping1 }
	unround := func(rounded uint64) uint64 {
		return bits.RotateLeft64(rounded*inverse(prime1), -31) * inverse(prime2)
	}
	afterFirstLane := func(head string) uint64 {
		lane := binary.LittleEndian.Uint64([]byte("0:" + head))
		return bits.RotateLeft64((prime5+16)^round(lane), 27)*wrapping1 + wrapping4
	}
	headA, headB, tailA := label+"-a", label+"-b", "-tail--a"
	tailB := unround(round(binary.LittleEndian.Uint64([]byte(tailA))) ^ afterFirstLane(headA) ^ afterFirstLane(headB))
	return headA + tailA, headB + string(binary.LittleEndian.AppendUint64(nil, tailB))
}

// When two virtual nodes share a position, nodes with different histories still agree.
func TestRingCollidingVirtualNodes(t *testing.T) {
	others := ringTestNames(rand.New(rand.NewPCG(7, 8)), 10)
	var contested int
	for i := range 3 {
		a, b := collidingRingNames(fmt.Sprintf("hst%d", i))
		require.Less(t, a, b)
		position := xxhash.Sum64String("0:" + a)
		require.Equal(t, position, xxhash.Sum64String("0:"+b), "the names collide")

		withA, withB := append(slices.Clone(others), a), append(slices.Clone(others), b)
		both := append(slices.Clone(withA), b)
		contested += ringPartitionsAt(both, position)
		histories := [][][]string{
			{both},
			{others, withA, both},
			{others, withB, both},
			{both, withA, both},
			{both, withB, both},
			{both, others, both, both},
		}
		for _, history := range histories {
			var builder ringBuilder
			for _, names := range history {
				names = slices.Sorted(slices.Values(names))
				require.Equal(t, ringByDefinition(names), ringOwners(builder.build(names)))
			}
		}
		r := newRing(both)
		require.Equal(t, ringByDefinition(withB), ringOwners(r.without(a)))
		require.Equal(t, ringByDefinition(withA), ringOwners(r.without(b)))
		require.Equal(t, ringByDefinition(both), ringOwners(newRing(both)))
	}
	assert.Positive(t, contested, "a shared position owned partitions, so that its owner mattered")
}

// ringPartitionsAt counts the partitions that belong to the virtual node on a position.
func ringPartitionsAt(names []string, position uint64) int {
	var positions []uint64
	for _, name := range names {
		for i := range ringReplicationFactor {
			positions = append(positions, xxhash.Sum64String(strconv.Itoa(i)+":"+name))
		}
	}
	slices.Sort(positions)
	var count int
	for p := range partitionCount {
		start := xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(p)))
		i, _ := slices.BinarySearch(positions, start)
		if positions[i%len(positions)] == position {
			count++
		}
	}
	return count
}

func TestRingOfFewMembers(t *testing.T) {
	for _, empty := range []*ring{newRing(nil), newRing([]string{"a"}).without("a")} {
		assert.Empty(t, empty.members())
		assert.False(t, empty.contains("a"))
		assert.Equal(t, "", empty.owner(0))
		assert.Equal(t, -1, empty.ownerIndex(0))
		assert.Equal(t, "", empty.heir(0))
		assert.Same(t, empty, empty.without("a"))
	}

	one := newRing([]string{"a"})
	assert.Equal(t, "a", one.owner(partitionCount-1))
	assert.Equal(t, 0, one.ownerIndex(partitionCount-1))
	assert.Equal(t, "", one.heir(0), "nobody is left to inherit")

	two := newRing([]string{"b", "a"})
	for p := range uint16(partitionCount) {
		assert.ElementsMatch(t, []string{"a", "b"}, []string{two.owner(p), two.heir(p)})
	}
	assert.True(t, two.contains("a"))
	assert.False(t, two.contains("c"))
	assert.Same(t, two, two.without("c"))
}

func TestRingPartitionOutOfRange(t *testing.T) {
	r := newRing([]string{"a", "b"})
	for _, partition := range []uint16{partitionCount, 1<<16 - 1} {
		assert.Equal(t, "", r.owner(partition))
		assert.Equal(t, -1, r.ownerIndex(partition))
		assert.Equal(t, "", r.heir(partition))
	}
}

// Nothing moves between members that stay, so an heir that lives inherits however many others die with the owner.
func TestRingMovesOnlyWhatItMust(t *testing.T) {
	pool := ringTestNames(rand.New(rand.NewPCG(9, 10)), 6)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.Permutation(pool).Draw(t, "names")
		members := names[:rapid.IntRange(2, len(pool)-1).Draw(t, "members")]
		newcomer := names[len(members)]
		dead := members[:rapid.IntRange(1, len(members)-1).Draw(t, "dead")]

		before := newRing(members)
		joined := newRing(append(slices.Clone(members), newcomer))
		after := before
		for _, name := range dead {
			after = after.without(name)
		}
		require.Equal(t, slices.Sorted(slices.Values(members[len(dead):])), after.members())
		for p := range uint16(partitionCount) {
			owner, heir := before.owner(p), before.heir(p)
			if heir == owner || heir != before.without(owner).owner(p) || owner != before.members()[before.ownerIndex(p)] {
				t.Fatalf("partition %d: owner %q, heir %q", p, owner, heir)
			}
			if now := joined.owner(p); now != owner && now != newcomer {
				t.Fatalf("partition %d went from %q to %q when %q joined", p, owner, now, newcomer)
			}
			next := owner
			if !after.contains(owner) {
				next = heir
			}
			if now := after.owner(p); after.contains(next) && now != next {
				t.Fatalf("partition %d went from %q to %q, not %q, when %q died", p, owner, now, next, dead)
			}
		}
	})
}

func TestRingWithoutIsBuiltOnce(t *testing.T) {
	names := ringTestNames(rand.New(rand.NewPCG(11, 12)), 8)
	r := newRing(names)
	const callers = 8
	results := make([][]*ring, callers)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for _, name := range names {
				results[caller] = append(results[caller], r.without(name))
			}
			newRing(names[caller:]) // another set, built in between
			for p := range uint16(partitionCount) {
				r.heir(p)
			}
		})
	}
	wg.Wait()
	for i, name := range names {
		rest := slices.Delete(slices.Clone(names), i, i+1)
		assert.Equal(t, ringByDefinition(rest), ringOwners(r.without(name)))
		for caller := range callers {
			assert.Same(t, r.without(name), results[caller][i])
		}
	}
}

// Were a look-up to wait for the builder, this test would hang.
func TestRingLooksUpWhileAnotherIsBuilt(t *testing.T) {
	r := newRing([]string{"a", "b", "c"})
	want := r.without("a")
	heir := want.owner(firstRingPartitionOf(r, "a"))

	sharedRingBuilder.mu.Lock()
	defer sharedRingBuilder.mu.Unlock()
	assert.True(t, r.contains(r.owner(7)))
	assert.Len(t, r.members(), 3)
	assert.Same(t, want, r.without("a"))
	assert.Equal(t, heir, r.heir(firstRingPartitionOf(r, "a")))
}

func firstRingPartitionOf(r *ring, name string) uint16 {
	return uint16(slices.Index(ringOwners(r), name))
}

// Bubbles share the builder with each other and with the world outside them.
func TestRingInBubbles(t *testing.T) {
	names := ringTestNames(rand.New(rand.NewPCG(13, 14)), 12)
	want := ringByDefinition(names[1:])
	for bubble := range 3 {
		t.Run(fmt.Sprint(bubble), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				owners := make([][]string, 4)
				for i := range owners {
					go func() { owners[i] = ringOwners(newRing(names).without(names[0])) }()
				}
				synctest.Wait()
				for i := range owners {
					assert.Equal(t, want, owners[i])
				}
			})
		})
	}
}

func TestRingHotPathDoesNotAllocate(t *testing.T) {
	r := newRing(ringTestNames(rand.New(rand.NewPCG(15, 16)), 10))
	hasher := newKeyHasher("login")
	key := strings.Repeat("k", 1024)
	for p := range uint16(partitionCount) {
		r.heir(p)
	}
	var found int
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		partition := hasher.partition(key)
		found += len(r.owner(partition)) + r.ownerIndex(partition) + len(r.heir(partition)) + int(partitionOf("login", key))
	}))
	assert.Positive(t, found)
}
