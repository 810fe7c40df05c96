package ring

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
	"testing"

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
		assert.Equal(t, golden.partition, PartitionOf(golden.limiter, golden.key), "%q %q", golden.limiter, golden.key)
	}
}

func TestKeyHasherAgreesWithPartitionOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limiter, key := rapid.String().Draw(t, "limiter"), string(rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		partition := PartitionOf(limiter, key)
		assert.Less(t, partition, uint16(Partitions))
		assert.Equal(t, partition, NewHasher(limiter).Partition(key))

		formula := xxhash.Sum64([]byte(limiter))*0x9E3779B97F4A7C15 ^ xxhash.Sum64([]byte(key))
		assert.Equal(t, formula%4093, uint64(partition))
	})
}

// A frame of name and key in one string would have to tell ("ab", "c") from ("a", "bc"); so must this.
func TestPartitionOfKeepsNameAndKeyApart(t *testing.T) {
	const whole = "abcdefghijklmnopqrstuvwxyz"
	seen := make(map[uint16]int)
	for cut := range len(whole) + 1 {
		seen[PartitionOf(whole[:cut], whole[cut:])]++
	}
	assert.Len(t, seen, len(whole)+1, "each way to cut has its own partition")

	same := make(map[uint16]int)
	for i := range 100 {
		name := fmt.Sprintf("limiter-%d", i)
		same[PartitionOf(name, name)]++
	}
	assert.Greater(t, len(same), 90, "keys named like their limiters do not gather")
}

func TestSequentialKeysSpreadEvenly(t *testing.T) {
	const keys = 100_000
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, limiter := range []string{"login", "http-requests", "tenant-7"} {
		hasher := NewHasher(limiter)
		perPartition := make([]int, Partitions)
		for i := 1; i <= keys; i++ {
			perPartition[hasher.Partition(fmt.Sprintf("user-%d", i))]++
		}
		// Chi-square with 4092 degrees of freedom: mean 4092, standard deviation 90.
		const expected = float64(keys) / Partitions
		var chiSquare float64
		for _, count := range perPartition {
			chiSquare += (float64(count) - expected) * (float64(count) - expected) / expected
		}
		assert.InDelta(t, Partitions-1, chiSquare, 4*90, limiter)

		for _, members := range []int{3, 9} {
			r := New(testNames(rnd, members))
			partitions, counted := make(map[string]int), make(map[string]int)
			for partition, count := range perPartition {
				partitions[r.Owner(uint16(partition))]++
				counted[r.Owner(uint16(partition))] += count
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

// byDefinition computes the owners from the definition alone: the virtual node i of a member stands at
// XXH64("i:name"), of two on one position the greater name has it, and a partition belongs to the first virtual node at
// or after XXH64(partition as 8 bytes, little-endian), going round.
func byDefinition(names []string) []string {
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

func owners(r *Ring) []string {
	owners := make([]string, Partitions)
	for p := range owners {
		owners[p] = r.Owner(uint16(p))
	}
	return owners
}

// The whole table of one fixed set, as a hash: nodes of different versions must agree on it.
func TestGolden(t *testing.T) {
	names := []string{"host-1-0a1b2c3d", "host-2-4e5f6071", "host-3-8293a4b5", "host-4-c6d7e8f9", "host-5-00000001"}
	r := New(names)
	assert.Equal(t, "host-3-8293a4b5", r.Owner(0))
	assert.Equal(t, "host-2-4e5f6071", r.Owner(1))
	assert.Equal(t, "host-4-c6d7e8f9", r.Owner(4092))
	assert.Equal(t, uint64(0xf8de556bed1226e4), xxhash.Sum64String(strings.Join(owners(r), "\n")))
}

func TestIsTheDefinition(t *testing.T) {
	for _, members := range []int{1, 2, 3, 10, 50} {
		names := testNames(rand.New(rand.NewPCG(uint64(members), 3)), members)
		assert.Equal(t, byDefinition(names), owners(New(names)), "%d members", members)
	}
}

func TestIgnoresOrderAndRepetition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,4}-[0-9a-f]{8}`), 1, 6, rapid.ID).Draw(t, "names")
		want := byDefinition(names)

		given := append(slices.Clone(names), names[0])
		given = rapid.Permutation(given).Draw(t, "order")
		before := slices.Clone(given)
		r := New(given)
		assert.Equal(t, before, given, "the argument is left as it was")
		assert.Equal(t, slices.Sorted(slices.Values(names)), r.Members())
		assert.Equal(t, want, owners(r))
	})
}

// However a builder came to a set, the ring is the one that its definition gives.
func TestIgnoresHistory(t *testing.T) {
	pool := testNames(rand.New(rand.NewPCG(5, 6)), 12)
	rapid.Check(t, func(t *rapid.T) {
		var builder Builder
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
			require.Equal(t, byDefinition(names), owners(builder.Build(names)))
		}
	})
}

func TestBuilderStartsAgainOnlyWhenItMust(t *testing.T) {
	names := slices.Sorted(slices.Values(testNames(rand.New(rand.NewPCG(5, 6)), 16)))
	var builder Builder
	builder.Build(names)
	first := builder.hash
	for range 2 { // a member that was there before may come back
		builder.Build(names[2:])
		builder.Build(names[1:])
		builder.Build(names)
	}
	assert.Same(t, first, builder.hash, "sets that differ little are reached by adding and removing")

	builder.Build(names[:8])
	assert.NotSame(t, first, builder.hash, "half the members went")
}

// collidingNames returns two names whose virtual nodes 0 stand on one position, by solving XXH64 of the 16 bytes
// "0:" + name for its second half.
func collidingNames(label string) (string, string) {
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
func TestCollidingVirtualNodes(t *testing.T) {
	others := testNames(rand.New(rand.NewPCG(7, 8)), 10)
	var contested int
	for i := range 3 {
		a, b := collidingNames(fmt.Sprintf("hst%d", i))
		require.Less(t, a, b)
		position := xxhash.Sum64String("0:" + a)
		require.Equal(t, position, xxhash.Sum64String("0:"+b), "the names collide")

		withA, withB := append(slices.Clone(others), a), append(slices.Clone(others), b)
		both := append(slices.Clone(withA), b)
		contested += partitionsAt(both, position)
		histories := [][][]string{
			{both},
			{others, withA, both},
			{others, withB, both},
			{both, withA, both},
			{both, withB, both},
			{both, others, both, both},
		}
		for _, history := range histories {
			var builder Builder
			for _, names := range history {
				names = slices.Sorted(slices.Values(names))
				require.Equal(t, byDefinition(names), owners(builder.Build(names)))
			}
		}
		r := New(both)
		require.Equal(t, byDefinition(withB), owners(r.Without(a)))
		require.Equal(t, byDefinition(withA), owners(r.Without(b)))
		require.Equal(t, byDefinition(both), owners(New(both)))
	}
	assert.Positive(t, contested, "a shared position owned partitions, so that its owner mattered")
}

// partitionsAt counts the partitions that belong to the virtual node on a position.
func partitionsAt(names []string, position uint64) int {
	var positions []uint64
	for _, name := range names {
		for i := range virtualNodes {
			positions = append(positions, xxhash.Sum64String(strconv.Itoa(i)+":"+name))
		}
	}
	slices.Sort(positions)
	var count int
	for p := range Partitions {
		start := xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(p)))
		i, _ := slices.BinarySearch(positions, start)
		if positions[i%len(positions)] == position {
			count++
		}
	}
	return count
}

func TestOfFewMembers(t *testing.T) {
	for _, empty := range []*Ring{New(nil), New([]string{"a"}).Without("a")} {
		assert.Empty(t, empty.Members())
		assert.False(t, empty.Contains("a"))
		assert.Equal(t, "", empty.Owner(0))
		assert.Equal(t, -1, empty.OwnerIndex(0))
		assert.Equal(t, "", empty.Successor(0, 1))
		assert.Same(t, empty, empty.Without("a"))
	}

	one := New([]string{"a"})
	assert.Equal(t, "a", one.Owner(Partitions-1))
	assert.Equal(t, 0, one.OwnerIndex(Partitions-1))
	assert.Equal(t, "", one.Successor(0, 1), "nobody is left to inherit")

	two := New([]string{"b", "a"})
	for p := range uint16(Partitions) {
		assert.ElementsMatch(t, []string{"a", "b"}, []string{two.Owner(p), two.Successor(p, 1)})
	}
	assert.True(t, two.Contains("a"))
	assert.False(t, two.Contains("c"))
	assert.Same(t, two, two.Without("c"))
}

func TestPartitionOutOfRange(t *testing.T) {
	r := New([]string{"a", "b"})
	for _, partition := range []uint16{Partitions, 1<<16 - 1} {
		assert.Equal(t, "", r.Owner(partition))
		assert.Equal(t, -1, r.OwnerIndex(partition))
		assert.Equal(t, "", r.Successor(partition, 1))
	}
}

// Nothing moves between members that stay, so a standby that lives inherits however many others die with the owner.
func TestMovesOnlyWhatItMust(t *testing.T) {
	pool := testNames(rand.New(rand.NewPCG(9, 10)), 6)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.Permutation(pool).Draw(t, "names")
		members := names[:rapid.IntRange(2, len(pool)-1).Draw(t, "members")]
		newcomer := names[len(members)]
		dead := members[:rapid.IntRange(1, len(members)-1).Draw(t, "dead")]

		before := New(members)
		joined := New(append(slices.Clone(members), newcomer))
		after := before
		for _, name := range dead {
			after = after.Without(name)
		}
		require.Equal(t, slices.Sorted(slices.Values(members[len(dead):])), after.Members())
		without := make(map[string]*Ring)
		for _, name := range members {
			without[name] = before.Without(name)
		}
		for p := range uint16(Partitions) {
			owner, standby := before.Owner(p), before.Successor(p, 1)
			if standby == owner || standby != without[owner].Owner(p) || owner != before.Members()[before.OwnerIndex(p)] {
				t.Fatalf("partition %d: owner %q, standby %q", p, owner, standby)
			}
			if now := joined.Owner(p); now != owner && now != newcomer {
				t.Fatalf("partition %d went from %q to %q when %q joined", p, owner, now, newcomer)
			}
			next := owner
			if !after.Contains(owner) {
				next = standby
			}
			if now := after.Owner(p); after.Contains(next) && now != next {
				t.Fatalf("partition %d went from %q to %q, not %q, when %q died", p, owner, now, next, dead)
			}
		}
	})
}

// byRemoval computes the order of members from the definition alone: each is the owner in the ring without those before it.
func byRemoval(names []string, depth int) [][]string {
	order := make([][]string, Partitions)
	rings := make(map[string][]string) // owners, by the names that are gone
	owners := func(gone []string) []string {
		key := strings.Join(slices.Sorted(slices.Values(gone)), "|")
		if rings[key] == nil {
			rings[key] = byDefinition(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(gone, n) }))
		}
		return rings[key]
	}
	for p := range order {
		for len(order[p]) < min(depth, len(names)) {
			order[p] = append(order[p], owners(order[p])[p])
		}
	}
	return order
}

func orderOf(r *Ring) [][]string {
	order := make([][]string, Partitions)
	for p := range order {
		for i := 0; ; i++ {
			name := r.Successor(uint16(p), i)
			if name == "" {
				break
			}
			order[p] = append(order[p], name)
		}
	}
	return order
}

// Each member in the order is the owner once those before it have gone, as the library itself says when it is asked without them.
func TestSuccessorsAreTheOwnersWithoutThoseBefore(t *testing.T) {
	for _, members := range []int{1, 2, 3, 5, 9} {
		names := testNames(rand.New(rand.NewPCG(uint64(members), 17)), members)
		depth := Depth
		if members > 5 {
			depth = 3 // of more, there are too many sets
		}
		want, got := byRemoval(names, depth), orderOf(New(names))
		for p := range got {
			require.Len(t, got[p], min(members, Depth), "partition %d of %d members", p, members)
			require.Equal(t, want[p], got[p][:min(depth, members)], "partition %d of %d members", p, members)
		}
	}
}

// A position that two virtual nodes share belongs to the greater name, and to the other once that one has gone.
func TestSuccessorsOfCollidingVirtualNodes(t *testing.T) {
	a, b := collidingNames("hst0")
	names := append(testNames(rand.New(rand.NewPCG(7, 8)), 3), a, b)
	assert.Equal(t, byRemoval(names, len(names)), orderOf(New(names)))
}

func TestSuccessorsIgnoreHistory(t *testing.T) {
	pool := testNames(rand.New(rand.NewPCG(5, 6)), 12)
	rapid.Check(t, func(t *rapid.T) {
		var builder Builder
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			names := rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, len(pool), rapid.ID).Draw(t, "names")
			built := builder.Build(names)
			require.Equal(t, orderOf(New(names)), orderOf(built))
			require.Zero(t, built.Disagreements())
		}
	})
}

func TestWithoutKeepsTheOrderOfTheOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := testNames(rand.New(rand.NewPCG(19, 20)), 11)
		names := pool[:rapid.IntRange(1, len(pool)).Draw(t, "members")]
		gone := rapid.SampledFrom(names).Draw(t, "gone")
		r := New(names)
		rest := New(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == gone }))
		without := r.Without(gone)
		require.Equal(t, rest.Members(), without.Members())
		for p := range uint16(Partitions) {
			require.Equal(t, rest.Owner(p), r.OwnerWithout(p, gone))
			require.Equal(t, r.Owner(p), r.OwnerWithout(p, "nobody"))
			for i := range min(len(names), Depth) - 1 {
				require.Equal(t, rest.Successor(p, i), without.Successor(p, i))
			}
		}
	})
}

// Were the library to place members in another way, the owner would still be the library's, as all nodes of the cluster compute
// it, and the ring would tell.
func TestRingTellsWhenTheLibraryDisagrees(t *testing.T) {
	names := slices.Sorted(slices.Values(testNames(rand.New(rand.NewPCG(21, 22)), 4)))
	var builder Builder
	right := builder.Build(names)
	require.Zero(t, right.Disagreements())

	builder.recent = nil
	for i := range builder.nodes { // as if virtual nodes stood elsewhere
		builder.nodes[i].position -= 1 << 60
	}
	slices.SortFunc(builder.nodes, compareNodes)
	wrong := builder.Build(names)
	assert.Equal(t, owners(right), owners(wrong), "owners are the library's")
	assert.Greater(t, wrong.Disagreements(), Partitions/10)
	for p := range uint16(Partitions) {
		for i := 1; i < len(names); i++ {
			require.NotEqual(t, wrong.Owner(p), wrong.Successor(p, i), "no member twice")
		}
	}
}

func TestRankIsAnOrder(t *testing.T) {
	names := testNames(rand.New(rand.NewPCG(23, 24)), 7)
	first := make(map[string]int)
	for key := range 700 {
		ranks := make(map[int]bool)
		for _, self := range names {
			rank := NewRank(self, strconv.Itoa(key))
			for _, name := range names {
				rank.Beside(name)
			}
			ranks[rank.Before()] = true
			if rank.Before() == 0 {
				first[self]++
			}
		}
		require.Len(t, ranks, len(names), "each member has a place of its own")
	}
	for name, count := range first {
		assert.InDelta(t, 100, count, 50, "keys that %s is first for", name) // binomial: five standard deviations
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	r := New(testNames(rand.New(rand.NewPCG(15, 16)), 10))
	hasher := NewHasher("login")
	key := strings.Repeat("k", 1024)
	var found int
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		partition := hasher.Partition(key)
		found += len(r.Owner(partition)) + r.OwnerIndex(partition) + len(r.Successor(partition, 1)) + len(r.OwnerWithout(partition, "a")) + int(PartitionOf("login", key))
	}))
	assert.Positive(t, found)
}
