package peerlimit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/buraksezer/consistent"
)

// BenchmarkPartitionOf hashes a key of 20 bytes, by the name of the limiter and by its hash.
func BenchmarkPartitionOf(b *testing.B) {
	const limiter, key = "http-requests", "customer-00000012345"
	hasher := newKeyHasher(limiter)
	var sum int
	b.Run("name", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sum += int(partitionOf(limiter, key))
		}
	})
	b.Run("hasher", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sum += int(hasher.partition(key))
		}
	})
	_ = sum
}

// BenchmarkRingOwner looks partitions up in an order that the processor cannot guess.
func BenchmarkRingOwner(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	r := newRing(ringTestNames(rnd, 100))
	partitions := make([]uint16, 1<<16)
	for i := range partitions {
		partitions[i] = uint16(rnd.IntN(partitionCount))
	}
	b.ReportAllocs()
	var next, bytes int
	for b.Loop() {
		bytes += len(r.owner(partitions[next&(len(partitions)-1)]))
		next++
	}
	_ = bytes
}

// BenchmarkRingBuild builds from nothing, as a process does when it meets its cluster.
func BenchmarkRingBuild(b *testing.B) {
	for _, members := range []int{3, 10, 100, 300, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			names := ringTestNames(rand.New(rand.NewPCG(1, uint64(members))), members)
			slices.Sort(names)
			b.ReportAllocs()
			for b.Loop() {
				new(ringBuilder).build(names)
			}
		})
	}
}

// BenchmarkRingChange is what one join or leave costs a node: the new ring, and the one without the node itself, which names
// its heirs. The rings that a process remembers, in case that a member comes back, are forgotten before.
func BenchmarkRingChange(b *testing.B) {
	for _, members := range []int{3, 10, 100, 300, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			names := ringTestNames(rand.New(rand.NewPCG(1, uint64(members))), members+1)
			var sets, withoutSelf [2][]string
			for i := range sets {
				sets[i] = slices.Sorted(slices.Values(names[:members+i]))
				withoutSelf[i] = slices.Sorted(slices.Values(names[1 : members+i]))
			}
			var builder ringBuilder
			builder.build(withoutSelf[0])
			joined := 0
			b.ReportAllocs()
			for b.Loop() {
				joined++
				builder.recent = nil
				builder.build(sets[joined%2])
				builder.build(withoutSelf[joined%2])
			}
		})
	}
}

// ringSetting is one candidate for the two protocol constants that shape a ring.
type ringSetting struct {
	load              float64
	replicationFactor int
}

// BenchmarkRingSettings measures what the choice of ringLoad and ringReplicationFactor was made from. "lifted" is a load
// bound that never binds. Each figure is taken over several rings of random host names; percentages of moved partitions
// are of all partitions, those of heirs are of the partitions whose owner went.
//
//	go test -run '^$' -bench BenchmarkRingSettings -benchtime 1x .
func BenchmarkRingSettings(b *testing.B) {
	settings := []struct {
		name string
		ringSetting
	}{
		{"load=1.25/vnodes=20", ringSetting{1.25, 20}},
		{"load=1.25/vnodes=128", ringSetting{1.25, 128}},
		{"load=lifted/vnodes=64", ringSetting{ringLoad, 64}},
		{"load=lifted/vnodes=128", ringSetting{ringLoad, 128}},
	}
	for _, setting := range settings {
		for _, members := range []int{3, 10, 100, 300, 1000} {
			b.Run(fmt.Sprintf("%s/members=%d", setting.name, members), func(b *testing.B) {
				for range b.N {
					measureRingSetting(setting.ringSetting, members).report(b)
				}
			})
		}
	}
}

// ringFigures holds one sample for each seed or event.
type ringFigures struct {
	imbalance     []float64 // partitions of the largest member / mean
	joinMoved     []float64 // share of partitions with another owner after a join
	joinSurvivors []float64 // share that moved between two members that were there before and after
	leaveMoved    []float64
	leaveStayers  []float64
	secondDeath   []float64 // of partitions whose heir survives a second death: the heir owns them after both
	build, step   []float64 // milliseconds: New; one Add or Remove
}

func measureRingSetting(setting ringSetting, members int) *ringFigures {
	const events = 8
	seeds := 15
	if members >= 300 {
		seeds = 3 // one build takes up to ten seconds
	}
	figures := &ringFigures{}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), uint64(members)))
		names := ringTestNames(rnd, members+events)
		names, newcomers := names[:members], names[members:]

		start := time.Now()
		hash := setting.build(names)
		figures.build = append(figures.build, ringMilliseconds(start))

		before := ringLibraryOwners(hash)
		figures.imbalance = append(figures.imbalance, ringImbalance(before, members))
		for _, newcomer := range newcomers {
			figures.step = append(figures.step, ringTimed(func() { hash.Add(ringMember(newcomer)) }))
			moved, survivors := ringMovedPartitions(before, ringLibraryOwners(hash), newcomer)
			figures.joinMoved = append(figures.joinMoved, moved)
			figures.joinSurvivors = append(figures.joinSurvivors, survivors)
			hash.Remove(newcomer)
		}
		for _, leaver := range sampleRingNames(rnd, names, events) {
			figures.step = append(figures.step, ringTimed(func() { hash.Remove(leaver) }))
			after := ringLibraryOwners(hash)
			moved, survivors := ringMovedPartitions(before, after, leaver)
			figures.leaveMoved = append(figures.leaveMoved, moved)
			figures.leaveStayers = append(figures.leaveStayers, survivors)
			for _, second := range sampleRingNames(rnd, names, 3) {
				if second == leaver {
					continue
				}
				hash.Remove(second)
				figures.addSecondDeath(before, after, ringLibraryOwners(hash), leaver, second)
				hash.Add(ringMember(second))
			}
			hash.Add(ringMember(leaver))
		}
	}
	return figures
}

// addSecondDeath counts, of the first dead member's partitions whose heir outlives the second death too, those that the
// heir then owns: the others have their replica on one member and their owner is another.
func (f *ringFigures) addSecondDeath(before, heirs, after []string, first, second string) {
	var survived, kept float64
	for p := range before {
		if before[p] != first || heirs[p] == second {
			continue
		}
		survived++
		if after[p] == heirs[p] {
			kept++
		}
	}
	if survived > 0 {
		f.secondDeath = append(f.secondDeath, kept/survived)
	}
}

func (f *ringFigures) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	median := func(samples []float64) float64 { return samples[len(samples)/2] }
	lowest := func(samples []float64) float64 { return samples[0] }
	highest := func(samples []float64) float64 { return samples[len(samples)-1] }
	for _, metric := range []struct {
		samples []float64
		pick    func([]float64) float64
		scale   float64
		unit    string
	}{
		{f.imbalance, median, 1, "imbalance-median"},
		{f.imbalance, highest, 1, "imbalance-worst"},
		{f.joinMoved, median, 100, "%join-moved"},
		{f.joinSurvivors, median, 100, "%join-between-survivors"},
		{f.joinSurvivors, highest, 100, "%join-between-survivors-worst"},
		{f.leaveMoved, median, 100, "%leave-moved"},
		{f.leaveStayers, median, 100, "%leave-between-survivors"},
		{f.leaveStayers, highest, 100, "%leave-between-survivors-worst"},
		{f.secondDeath, median, 100, "%heir-owns-after-2-deaths"},
		{f.secondDeath, lowest, 100, "%heir-owns-after-2-deaths-worst"},
		{f.build, median, 1, "ms-build"},
		{f.step, median, 1, "ms-step"},
	} {
		slices.Sort(metric.samples)
		b.ReportMetric(metric.pick(metric.samples)*metric.scale, metric.unit)
	}
}

func (s ringSetting) build(names []string) *consistent.Consistent {
	members := make([]consistent.Member, len(names))
	for i, name := range names {
		members[i] = ringMember(name)
	}
	return consistent.New(members, consistent.Config{
		Hasher:            &ringHasher{},
		PartitionCount:    partitionCount,
		ReplicationFactor: s.replicationFactor,
		Load:              s.load,
	})
}

func ringLibraryOwners(hash *consistent.Consistent) []string {
	owners := make([]string, partitionCount)
	for p := range owners {
		owners[p] = hash.GetPartitionOwner(p).String()
	}
	return owners
}

func ringImbalance(owners []string, members int) float64 {
	count := make(map[string]int, members)
	for _, owner := range owners {
		count[owner]++
	}
	most := 0
	for _, partitions := range count {
		most = max(most, partitions)
	}
	return float64(most) * float64(members) / partitionCount
}

// ringMovedPartitions returns the share of partitions that changed hands when one member came or went, and the share
// that did so between two other members.
func ringMovedPartitions(before, after []string, changed string) (moved, betweenSurvivors float64) {
	for p := range before {
		if before[p] == after[p] {
			continue
		}
		moved++
		if before[p] != changed && after[p] != changed {
			betweenSurvivors++
		}
	}
	return moved / partitionCount, betweenSurvivors / partitionCount
}

// ringTestNames returns distinct member names like the ones nodes give themselves.
func ringTestNames(rnd *rand.Rand, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d-%08x", i, rnd.Uint32())
	}
	return names
}

func sampleRingNames(rnd *rand.Rand, names []string, count int) []string {
	picked := make([]string, 0, count)
	for _, i := range rnd.Perm(len(names))[:min(count, len(names))] {
		picked = append(picked, names[i])
	}
	return picked
}

func ringMilliseconds(since time.Time) float64 { return time.Since(since).Seconds() * 1000 }

func ringTimed(step func()) float64 {
	start := time.Now()
	step()
	return ringMilliseconds(start)
}
