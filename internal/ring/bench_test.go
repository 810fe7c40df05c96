package ring

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
	hasher := NewHasher(limiter)
	var sum int
	b.Run("name", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sum += int(PartitionOf(limiter, key))
		}
	})
	b.Run("hasher", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sum += int(hasher.Partition(key))
		}
	})
	_ = sum
}

// BenchmarkOwner looks partitions up in an order that the processor cannot guess.
func BenchmarkOwner(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	r := New(testNames(rnd, 100))
	partitions := make([]uint16, 1<<16)
	for i := range partitions {
		partitions[i] = uint16(rnd.IntN(Partitions))
	}
	b.ReportAllocs()
	var next, bytes int
	for b.Loop() {
		bytes += len(r.Owner(partitions[next&(len(partitions)-1)]))
		next++
	}
	_ = bytes
}

// BenchmarkRingBuild builds from nothing, as a process does when it meets its cluster.
func BenchmarkRingBuild(b *testing.B) {
	for _, members := range []int{3, 10, 100, 300, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			names := testNames(rand.New(rand.NewPCG(1, uint64(members))), members)
			slices.Sort(names)
			b.ReportAllocs()
			for b.Loop() {
				new(Builder).Build(names)
			}
		})
	}
}

// BenchmarkRingChange is what one join or leave costs a node: the new ring, and the one without the node itself, which names
// its standbys. The rings that a process remembers, in case that a member comes back, are forgotten before.
func BenchmarkRingChange(b *testing.B) {
	for _, members := range []int{3, 10, 100, 300, 1000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			names := testNames(rand.New(rand.NewPCG(1, uint64(members))), members+1)
			var sets, withoutSelf [2][]string
			for i := range sets {
				sets[i] = slices.Sorted(slices.Values(names[:members+i]))
				withoutSelf[i] = slices.Sorted(slices.Values(names[1 : members+i]))
			}
			var builder Builder
			builder.Build(withoutSelf[0])
			joined := 0
			b.ReportAllocs()
			for b.Loop() {
				joined++
				builder.recent = nil
				builder.Build(sets[joined%2])
				builder.Build(withoutSelf[joined%2])
			}
		})
	}
}

// setting is one candidate for the two protocol constants that shape a ring.
type setting struct {
	load              float64
	replicationFactor int
}

// BenchmarkSettings measures what the choice of load and virtualNodes was made from. "lifted" is a load
// bound that never binds. Each figure is taken over several rings of random host names; percentages of moved partitions
// are of all partitions, those of standbys are of the partitions whose owner went.
//
//	go test -run '^$' -bench BenchmarkSettings -benchtime 1x .
func BenchmarkSettings(b *testing.B) {
	settings := []struct {
		name string
		setting
	}{
		{"load=1.25/vnodes=20", setting{1.25, 20}},
		{"load=1.25/vnodes=128", setting{1.25, 128}},
		{"load=lifted/vnodes=64", setting{load, 64}},
		{"load=lifted/vnodes=128", setting{load, 128}},
	}
	for _, setting := range settings {
		for _, members := range []int{3, 10, 100, 300, 1000} {
			b.Run(fmt.Sprintf("%s/members=%d", setting.name, members), func(b *testing.B) {
				for range b.N {
					measureSetting(setting.setting, members).report(b)
				}
			})
		}
	}
}

// figures holds one sample for each seed or event.
type figures struct {
	imbalance     []float64 // partitions of the largest member / mean
	joinMoved     []float64 // share of partitions with another owner after a join
	joinSurvivors []float64 // share that moved between two members that were there before and after
	leaveMoved    []float64
	leaveStayers  []float64
	secondDeath   []float64 // of partitions whose standby survives a second death: the standby owns them after both
	build, step   []float64 // milliseconds: New; one Add or Remove
}

func measureSetting(setting setting, members int) *figures {
	const events = 8
	seeds := 15
	if members >= 300 {
		seeds = 3 // one build takes up to ten seconds
	}
	figures := &figures{}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(uint64(seed), uint64(members)))
		names := testNames(rnd, members+events)
		names, newcomers := names[:members], names[members:]

		start := time.Now()
		hash := setting.build(names)
		figures.build = append(figures.build, milliseconds(start))

		before := libraryOwners(hash)
		figures.imbalance = append(figures.imbalance, imbalance(before, members))
		for _, newcomer := range newcomers {
			figures.step = append(figures.step, timed(func() { hash.Add(member(newcomer)) }))
			moved, survivors := movedPartitions(before, libraryOwners(hash), newcomer)
			figures.joinMoved = append(figures.joinMoved, moved)
			figures.joinSurvivors = append(figures.joinSurvivors, survivors)
			hash.Remove(newcomer)
		}
		for _, leaver := range sampleNames(rnd, names, events) {
			figures.step = append(figures.step, timed(func() { hash.Remove(leaver) }))
			after := libraryOwners(hash)
			moved, survivors := movedPartitions(before, after, leaver)
			figures.leaveMoved = append(figures.leaveMoved, moved)
			figures.leaveStayers = append(figures.leaveStayers, survivors)
			for _, second := range sampleNames(rnd, names, 3) {
				if second == leaver {
					continue
				}
				hash.Remove(second)
				figures.addSecondDeath(before, after, libraryOwners(hash), leaver, second)
				hash.Add(member(second))
			}
			hash.Add(member(leaver))
		}
	}
	return figures
}

// addSecondDeath counts, of the first dead member's partitions whose standby outlives the second death too, those that the
// standby then owns: the others have their replica on one member and their owner is another.
func (f *figures) addSecondDeath(before, standbys, after []string, first, second string) {
	var survived, kept float64
	for p := range before {
		if before[p] != first || standbys[p] == second {
			continue
		}
		survived++
		if after[p] == standbys[p] {
			kept++
		}
	}
	if survived > 0 {
		f.secondDeath = append(f.secondDeath, kept/survived)
	}
}

func (f *figures) report(b *testing.B) {
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
		{f.secondDeath, median, 100, "%standby-owns-after-2-deaths"},
		{f.secondDeath, lowest, 100, "%standby-owns-after-2-deaths-worst"},
		{f.build, median, 1, "ms-build"},
		{f.step, median, 1, "ms-step"},
	} {
		slices.Sort(metric.samples)
		b.ReportMetric(metric.pick(metric.samples)*metric.scale, metric.unit)
	}
}

func (s setting) build(names []string) *consistent.Consistent {
	members := make([]consistent.Member, len(names))
	for i, name := range names {
		members[i] = member(name)
	}
	return consistent.New(members, consistent.Config{
		Hasher:            &hasher{},
		PartitionCount:    Partitions,
		ReplicationFactor: s.replicationFactor,
		Load:              s.load,
	})
}

func libraryOwners(hash *consistent.Consistent) []string {
	owners := make([]string, Partitions)
	for p := range owners {
		owners[p] = hash.GetPartitionOwner(p).String()
	}
	return owners
}

func imbalance(owners []string, members int) float64 {
	count := make(map[string]int, members)
	for _, owner := range owners {
		count[owner]++
	}
	most := 0
	for _, partitions := range count {
		most = max(most, partitions)
	}
	return float64(most) * float64(members) / Partitions
}

// movedPartitions returns the share of partitions that changed hands when one member came or went, and the share
// that did so between two other members.
func movedPartitions(before, after []string, changed string) (moved, betweenSurvivors float64) {
	for p := range before {
		if before[p] == after[p] {
			continue
		}
		moved++
		if before[p] != changed && after[p] != changed {
			betweenSurvivors++
		}
	}
	return moved / Partitions, betweenSurvivors / Partitions
}

// testNames returns distinct member names like the ones nodes give themselves.
func testNames(rnd *rand.Rand, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d-%08x", i, rnd.Uint32())
	}
	return names
}

func sampleNames(rnd *rand.Rand, names []string, count int) []string {
	picked := make([]string, 0, count)
	for _, i := range rnd.Perm(len(names))[:min(count, len(names))] {
		picked = append(picked, names[i])
	}
	return picked
}

func milliseconds(since time.Time) float64 { return time.Since(since).Seconds() * 1000 }

func timed(step func()) float64 {
	start := time.Now()
	step()
	return milliseconds(start)
}
