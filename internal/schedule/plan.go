package schedule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Schedule is everything that one run of a cluster is told to do: how many nodes, which keys are asked for and how
// hard, and what happens to the cluster when. It follows from its seed and from nothing else.
type Schedule struct {
	seed   uint64 // 0 for one that was written by hand
	test   string // the test that runs one written by hand
	family Family
	nodes  int // at the start; those that join later are numbered on from there
	plans  []plan
	events []event // in order of time
	pieces pieces  // in which partitions move

	far time.Duration // the way from one node to another; 0 in a healthy network
}

// pieces are the most bytes that move at once of a partition; 0 for what is built in.
type pieces struct{ answer, replica int }

// Family is the kind of trouble that a schedule is made of, and so the verdict that is passed on it.
type Family int

const (
	membershipFamily Family = iota // joins and leaves: nothing over the limit, no call fails
	killFamily                     // crashes: what was not replicated may be admitted twice, full rate again in 1 s
	faultFamily                    // freezes, cuts, splits, loss, delay: what deciding by shares may cost, and healing
	steadyFamily                   // nothing happens: the whole limit is given out, and nothing over it
	handoverFamily                 // crashes and cuts in the middle of joins and leaves
	familyCount                    // of those that take turns
)

// Families that came later.
const (
	piecesFamily    = familyCount + iota // joins and leaves of nodes that keep so much that it moves in pieces: nothing is forgotten
	crashRollFamily                      // all are replaced by crashes, one by one: it costs what crashes cost, and most of a limit is given out
	crashLoopFamily                      // one or two crash and come back for minutes: the same
	churnFamily                          // a hundred joins and ends, every fifth end a crash: the same
	newcomersFamily                      // splits in which newcomers start that reach one side: never two that decide in full
	allFamilies
)

var familyNames = [allFamilies]string{
	"membership", "kills", "faults", "steady", "handovers", "pieces", "crashrolls", "crashloops", "churn", "newcomers",
}

func (f Family) String() string { return familyNames[f] }

// goesOn reports whether so much happens in a family, one thing after the other, that it is judged how the cluster does
// meanwhile, and not only afterwards.
func (f Family) goesOn() bool {
	return f == crashRollFamily || f == crashLoopFamily || f == churnFamily
}

// ownSeeds is how many seeds each family has that came later.
const ownSeeds = 1_000_000_000

// firstSeed returns where the seeds of a family that came later begin.
func (f Family) firstSeed() uint64 { return uint64(f-familyCount+1) * ownSeeds }

// FamilyOf returns the family of the schedule of a seed: they take turns, but for those that came later, which have seeds
// of their own, so that those that once failed stay what they were.
func FamilyOf(seed uint64) Family {
	if seed < ownSeeds {
		return Family(seed % uint64(familyCount))
	}
	return min(familyCount+Family(seed/ownSeeds)-1, allFamilies-1)
}

// plan is one limiter, its keys, and how every node uses them.
type plan struct {
	name   string // of the limiter
	limits []peerlimit.Limit
	keys   []string
	use    use
	cost   float64
	pause  time.Duration // between two calls of one node, on average; it goes through the keys in turn

	remote bool // the owner's own callers leave the keys to others, if there are any, and nobody is in a hurry
}

// use is how keys are used.
type use string

const (
	saturated use = "saturated" // more is asked for than there is, all the time
	exhausted use = "exhausted" // everything is taken before anything happens, and then it is asked for now and then
	cold      use = "cold"      // asked for now and then
	refunding use = "refunded"  // half of what is taken is given back
	resetting use = "reset"     // and reset now and then: not judged, but for errors and time
	reserving use = "reserved"  // reserved, half of it cancelled
	bursting  use = "bursts"    // now and then, as much as there is, as fast as can be: what leases are for
	waiting   use = "queued"    // always waited for by a crowd, of which most hang up before their turn
)

// crowd is about how many wait for the keys of a plan at a time, all nodes together.
const crowd = 60

// callers returns how many users of a plan each node of a cluster has.
func (p plan) callers(nodes int) int {
	if p.use == waiting {
		return crowd/nodes + 1
	}
	return 1
}

// event is what happens to the cluster at one time.
type event struct {
	at    time.Duration // since the load began; no two are alike
	lasts time.Duration // of what ends: freezes, cuts, splits and bad conditions
	kind  eventKind
	node  int     // that joins, leaves, is killed or frozen; the one end of a cut
	peer  int     // the other end of a cut
	sides [][]int // of a split; nodes that start while it lasts may be named: each reaches its own side only

	conditions peerlimittest.Conditions // of a bad network
}

type eventKind string

const (
	join    eventKind = "join"
	leave   eventKind = "leave"
	kill    eventKind = "kill"
	freeze  eventKind = "freeze"
	cutWay  eventKind = "cut one way"
	cutLink eventKind = "cut both ways"
	split   eventKind = "split"
	degrade eventKind = "degrade"
)

// end is when an event is over; a leave takes as long as it takes, and that does not count.
func (e event) end() time.Duration { return e.at + e.lasts }

func (e event) String() string { return fmt.Sprintf("%8.3fs %s", e.at.Seconds(), e.what()) }

// what is the event without its time.
func (e event) what() string {
	s := string(e.kind) + " "
	switch e.kind {
	case cutWay:
		s += fmt.Sprintf("node%d>node%d", e.node, e.peer)
	case cutLink:
		s += fmt.Sprintf("node%d-node%d", e.node, e.peer)
	case split:
		s += fmt.Sprint(e.sides)
	case degrade:
		s += fmt.Sprintf("latency %v+%v, loss %.1f %%", e.conditions.Latency, e.conditions.Jitter, 100*e.conditions.Loss)
	default:
		s += fmt.Sprintf("node%d", e.node)
	}
	if e.lasts > 0 {
		s += fmt.Sprintf(" for %.3fs", e.lasts.Seconds())
	}
	return s
}

func newPlan(name string, u use, keys int, cost float64, pause time.Duration, limits ...peerlimit.Limit) plan {
	p := plan{name: name, use: u, cost: cost, pause: pause, limits: limits}
	for i := range keys {
		p.keys = append(p.keys, fmt.Sprintf("key%d", i))
	}
	return p
}

func (p plan) String() string {
	return fmt.Sprintf("%s: %d keys %s, %v, each node takes %v every %v", p.name, len(p.keys), p.use, p.limits, p.cost, p.pause)
}

func (s *Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v, %d nodes, seed %d\n", s.family, s.nodes, s.seed)
	if s.far > 0 {
		fmt.Fprintf(&b, "  %v from one to another\n", s.far)
	}
	for _, p := range s.plans {
		fmt.Fprintf(&b, "  %v\n", p)
	}
	for _, e := range s.events {
		fmt.Fprintf(&b, "  %v\n", e)
	}
	return b.String()
}

// way returns how long messages take from one node to another, at most, if they are not lost.
func (s *Schedule) way() time.Duration {
	longest := s.far
	for _, e := range s.events {
		longest = max(longest, e.conditions.Latency+e.conditions.Jitter)
	}
	return longest
}

// lastEnd is when the last event is over.
func (s *Schedule) lastEnd() (last time.Duration) {
	for _, e := range s.events {
		last = max(last, e.end())
	}
	return last
}

// startedAt reports whether a node had been told to start at a time.
func (s *Schedule) startedAt(node int, at time.Duration) bool {
	return node < s.nodes || slices.ContainsFunc(s.events, func(e event) bool { return e.kind == join && e.node == node && e.at <= at })
}

// cutOffAt returns the nodes that a node cannot reach which starts at a time: those on the other sides of the splits that name it.
func (s *Schedule) cutOffAt(node int, at time.Duration) (others []int) {
	for _, e := range s.events {
		own := slices.IndexFunc(e.sides, func(side []int) bool { return slices.Contains(side, node) })
		if own < 0 || e.at > at || e.end() <= at {
			continue
		}
		for i, side := range e.sides {
			if i != own {
				others = append(others, s.thereAt(side, at)...)
			}
		}
	}
	return others
}

// sidesAt returns the sides of a split without those that had not started at a time.
func (s *Schedule) sidesAt(e event, at time.Duration) (sides [][]int) {
	for _, side := range e.sides {
		if there := s.thereAt(side, at); len(there) > 0 {
			sides = append(sides, there)
		}
	}
	return sides
}

// thereAt returns those of a side that had started at a time.
func (s *Schedule) thereAt(side []int, at time.Duration) (there []int) {
	for _, i := range side {
		if s.startedAt(i, at) {
			there = append(there, i)
		}
	}
	return there
}

// membersAt returns how many members there are at a time: those that left no longer count, those that were killed do.
func (s *Schedule) membersAt(at time.Duration) int {
	n := s.nodes
	for _, e := range s.events {
		switch {
		case e.at > at:
		case e.kind == join:
			n++
		case e.kind == leave:
			n--
		}
	}
	return n
}
