package schedule

import (
	"flag"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
)

// Whole clusters under schedules of joins, leaves, crashes, freezes, cuts and splits that follow from seeds: the limit
// survives all of them, within what each is allowed to cost.

var (
	simSeeds  = flag.Int("sim.seeds", defaultSeeds(), "how many seeds TestSchedules runs")
	simSeed   = flag.Uint64("sim.seed", 0, "the one seed that TestSchedules runs")
	simFamily = flag.String("sim.family", "", "the only family whose seeds TestSchedules runs")
	simFrom   = flag.Uint64("sim.from", 1, "the seed that TestSchedules begins with")
)

// defaultSeeds is how many seeds TestSchedules runs when it is not told: with the race detector each takes ten times as long.
func defaultSeeds() int {
	if onecore.RaceDetector {
		return 5
	}
	return 60
}

// runSchedule plays a schedule and fails the test when something was wrong.
func runSchedule(t *testing.T, s *Schedule) *Run {
	t.Helper()
	began := time.Now()
	r := Play(t, s)
	took := time.Since(began).Round(time.Millisecond)
	slowest := call{}
	for _, c := range r.calls {
		if !c.paused && c.key.plan.use != waiting && c.end-c.start > slowest.end-slowest.start {
			slowest = c
		}
	}
	t.Logf("%v of controlled time in %v, %d calls, the slowest from %v to %v", r.finished.Round(time.Millisecond), took, len(r.calls), slowest.start, slowest.end)
	if failure := r.Failure(); failure != "" {
		t.Error(failure)
	}
	return r
}

// seedsToRun yields the seeds that the flags ask for: of one family, or of all that take turns, and then of each that has
// seeds of its own a fifth as many.
func seedsToRun(t *testing.T) iter.Seq[uint64] {
	if *simFamily != "" {
		return seedsOf(familyNamed(t, *simFamily), *simSeeds)
	}
	return func(yield func(uint64) bool) {
		for i := range uint64(*simSeeds) {
			if !yield(*simFrom + i) {
				return
			}
		}
		for f := piecesFamily; f < allFamilies; f++ {
			n := *simSeeds / int(familyCount)
			if f == churnFamily { // each is a hundred joins and as many ends
				n = (n + 5) / 6
			}
			for seed := range seedsOf(f, n) {
				if !yield(seed) {
					return
				}
			}
		}
	}
}

// familyNamed returns the family of a name.
func familyNamed(t *testing.T, name string) Family {
	i := slices.Index(familyNames[:], name)
	if i < 0 {
		t.Fatalf("there is no family %q", name)
	}
	return Family(i)
}

// seedsOf yields so many seeds of one family.
func seedsOf(f Family, n int) iter.Seq[uint64] {
	first, step := *simFrom, uint64(1)
	if f < familyCount {
		step = uint64(familyCount)
		first += (uint64(f) + step - first%step) % step
	} else {
		first += f.firstSeed()
	}
	return func(yield func(uint64) bool) {
		for i := range uint64(n) {
			if !yield(first + i*step) {
				return
			}
		}
	}
}

func TestSchedules(t *testing.T) {
	if *simSeed != 0 {
		runSchedule(t, New(*simSeed))
		return
	}
	runSeeds(t, seedsToRun(t))
}

// runSeeds runs schedules and sums up those of each family.
func runSeeds(t *testing.T, seeds iter.Seq[uint64]) {
	tallies := make(map[string]*Tally)
	for seed := range seeds {
		family := FamilyOf(seed).String()
		if tallies[family] == nil {
			tallies[family] = new(Tally)
		}
		t.Run(fmt.Sprintf("%v/%d", family, seed), func(t *testing.T) {
			r := runSchedule(t, New(seed))
			tallies[family].Add(r)
		})
	}
	for _, family := range slices.Sorted(maps.Keys(tallies)) {
		t.Logf("%s: %v", family, tallies[family])
	}
}

// regressionSeeds are seeds that once failed in a way of their own. TestSchedules does not reach them by itself.
var regressionSeeds = []struct {
	seed uint64
	why  string
}{
	{189, "one that leaves crashes immediately, and none takes its place"},
	{437, "two decide in full though no limit shows it"},
	{466, "the same, when one joins after a crash"},
	{10, "a node that gave to one which no longer wanted it did not look again for half a second"},
	{21, "what the standby had given out by its share was not charged when it began to hold"},
	{50, "two joined at once, knew nothing of each other, and both held: names went with gossip alone"},
	{124, "a response named a receiver that had left long ago, and the round waited for it forever"},
	{147, "holder and standby on the smaller side of a split: the judge had not thought of it"},
	{185, "a take was passed on to a node that could only have sent it back, and waited there"},
	{219, "a leaver that was killed had not replicated since the ring had dropped it"},
	{225, "a node that was joining decided by its share before its links were up"},
	{324, "the next owner was killed before it had acquired from the leaver, which still held"},
	{30876, "a bucket of a share that was made for a denial long ago, and had drained, hid what the replica said"},
	{1649, "a holder was killed just after its standby had begun to leave: the new standby had no replica, and no node asked the one before"},
	{3224, "the standby decided by its share just as it began to hold, and was charged for it a moment later"},
	{3485, "a take was passed on to the node that had owned the partition before this one had it and gave it away: it was just closing"},
	{1000000008, "a piece of the old standby's replica threw away the holder's pieces, and the last of these passed for the whole"},
	{484, "the standby of a killed owner had become it a moment ago and had no replica"},
}

// written are the smallest schedules that show one thing each.
var written = map[string]Schedule{
	"a newcomer takes over keys that are exhausted": {
		family: membershipFamily, nodes: 3, events: []event{{at: time.Second, kind: join, node: 3}},
	},
	"somebody leaves": {
		family: membershipFamily, nodes: 3, events: []event{{at: time.Second, kind: leave, node: 1}},
	},
	"the last but one leaves": {
		family: membershipFamily, nodes: 2, events: []event{{at: time.Second, kind: leave, node: 0}},
	},
	"one comes while another one goes": {
		family: membershipFamily, nodes: 3, events: []event{
			{at: time.Second, kind: leave, node: 0}, {at: 1050 * time.Millisecond, kind: join, node: 3},
		},
	},
	"two come at once": {
		family: membershipFamily, nodes: 3, events: []event{
			{at: time.Second, kind: join, node: 3}, {at: time.Second + time.Microsecond, kind: join, node: 4},
		},
	},
	"two go at once": {
		family: membershipFamily, nodes: 4, events: []event{
			{at: time.Second, kind: leave, node: 0}, {at: time.Second + time.Microsecond, kind: leave, node: 1},
		},
	},
	"one goes as soon as it has come": {
		family: membershipFamily, nodes: 3, events: []event{
			{at: time.Second, kind: join, node: 3}, {at: 1100 * time.Millisecond, kind: leave, node: 3},
		},
	},
	"a crash": {
		family: killFamily, nodes: 3, events: []event{{at: 2 * time.Second, kind: kill, node: 1}},
	},
	"a newcomer crashes while it takes over": {
		family: handoverFamily, nodes: 4, events: []event{
			{at: time.Second, kind: join, node: 4}, {at: 1010 * time.Millisecond, kind: kill, node: 4},
		},
	},
	"one that leaves crashes while it hands over": {
		family: handoverFamily, nodes: 5, events: []event{
			{at: time.Second, kind: leave, node: 0}, {at: 1010 * time.Millisecond, kind: kill, node: 0},
		},
	},
	"a freeze that is too short to be noticed": {
		family: faultFamily, nodes: 3, events: []event{{at: time.Second, kind: freeze, node: 1, lasts: 200 * time.Millisecond}},
	},
	"a freeze in which others take over": {
		family: faultFamily, nodes: 3, events: []event{{at: time.Second, kind: freeze, node: 1, lasts: 15 * time.Second}},
	},
	"one of two is frozen": {
		family: faultFamily, nodes: 2, events: []event{{at: time.Second, kind: freeze, node: 1, lasts: 15 * time.Second}},
	},
	"a split with a majority": {
		family: faultFamily, nodes: 5, events: []event{{at: time.Second, kind: split, sides: [][]int{{0, 1}, {2, 3, 4}}, lasts: 15 * time.Second}},
	},
	"a split without one": {
		family: faultFamily, nodes: 4, events: []event{{at: time.Second, kind: split, sides: [][]int{{0, 1}, {2, 3}}, lasts: 15 * time.Second}},
	},
	"a link that is dead one way": {
		family: faultFamily, nodes: 3, events: []event{{at: time.Second, kind: cutWay, node: 0, peer: 1, lasts: 10 * time.Second}},
	},
}

// writtenPlans are what is asked for in schedules written by hand: keys that are saturated and many that are exhausted, so
// that every node owns some; and some whose bursts are smaller than the cluster.
var writtenPlans = []plan{
	newPlan("hot", saturated, 4, 1, 6*time.Millisecond, peerlimit.PerSecond(50)),
	newPlan("small", exhausted, 16, 1, 50*time.Millisecond, peerlimit.PerMinute(5)),
	newPlan("one", cold, 6, 1, 8*time.Millisecond, peerlimit.PerSecond(20).WithBurst(1)),
	newPlan("few", cold, 6, 1, 8*time.Millisecond, peerlimit.PerSecond(20).WithBurst(2.5)),
}

func TestScheduleRegressions(t *testing.T) {
	if onecore.RaceDetector {
		t.Skip("TestSchedules runs the same code, with one schedule of each family")
	}
	for name, s := range written {
		s.plans = writtenPlans
		t.Run(name, func(t *testing.T) {
			s.test = t.Name()
			runSchedule(t, &s)
		})
	}
	for _, r := range regressionSeeds {
		t.Run(fmt.Sprintf("%d: %s", r.seed, r.why), func(t *testing.T) { runSchedule(t, New(r.seed)) })
	}
}
