package schedule

import (
	"fmt"
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
}

// pieces are the most bytes that move at once of a partition; 0 for what is built in.
type pieces struct{ answer, replica int }

// Family is the kind of trouble that a schedule is made of, and so the verdict that is passed on it.
type Family int

const (
	membershipFamily Family = iota // joins and leaves: nothing over the limit, no call fails
	killFamily                     // crashes: what was not replicated may be admitted twice, full rate again in 1 s
	faultFamily                    // freezes, cuts, splits, loss, delay: what deciding alone may cost, and healing
	steadyFamily                   // nothing happens: the whole limit is given out, and nothing over it
	handoverFamily                 // crashes and cuts in the middle of joins and leaves
	familyCount
	piecesFamily = familyCount // joins and leaves of nodes that keep so much that it moves in pieces: nothing is forgotten
)

var familyNames = [familyCount + 1]string{"membership", "kills", "faults", "steady", "handovers", "pieces"}

func (f Family) String() string { return familyNames[f] }

// piecesFrom is the first seed of the pieces family.
const piecesFrom = 1_000_000_000

// FamilyOf returns the family of the schedule of a seed: they take turns, but for the one that came later, which has seeds
// of its own, so that those that once failed stay what they were.
func FamilyOf(seed uint64) Family {
	if seed >= piecesFrom {
		return piecesFamily
	}
	return Family(seed % uint64(familyCount))
}

// plan is one limiter, its keys, and how every node uses them.
type plan struct {
	name   string // of the limiter
	limits []peerlimit.Limit
	keys   []string
	use    use
	cost   float64
	pause  time.Duration // between two calls of one node, on average; it goes through the keys in turn
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
)

// event is what happens to the cluster at one time.
type event struct {
	at    time.Duration // since the load began; no two are alike
	lasts time.Duration // of what ends: freezes, cuts, splits and bad conditions
	kind  eventKind
	node  int     // who joins, leaves, is killed or frozen; the one end of a cut
	peer  int     // the other end of a cut
	sides [][]int // of a split

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
	for _, p := range s.plans {
		fmt.Fprintf(&b, "  %v\n", p)
	}
	for _, e := range s.events {
		fmt.Fprintf(&b, "  %v\n", e)
	}
	return b.String()
}

// lastEnd is when the last event is over.
func (s *Schedule) lastEnd() (last time.Duration) {
	for _, e := range s.events {
		last = max(last, e.end())
	}
	return last
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
