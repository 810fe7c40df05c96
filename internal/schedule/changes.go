package schedule

import (
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
)

// Schedules in which members change for minutes, and splits during which newcomers start. Controlled time makes minutes cheap
// as long as few calls are made.

const (
	// mostNumbers is how many nodes a run may start: a set of nodes is a word of bits.
	mostNumbers = 60

	// halfGone is in what time half of the members must die to be gone at once: fewer are noticed and no longer counted by then.
	halfGone = 3 * time.Second

	// oneByOne is how far apart crashes are where two within halfGone would be half of the members.
	oneByOne = 5 * time.Second

	// apartForever is how long a member must be without a majority to be allowed one that includes newcomers, though others may have one
	// elsewhere. No cut is as long, nor several in a row.
	apartForever = time.Minute

	// outvoted is how long after half of the members are gone newcomers may need to be the majority without them.
	outvoted = 80 * time.Second
)

// changes draws the schedules of the families that came last.
func (g *scheduler) changes() {
	switch g.s.family {
	case crashRollFamily:
		g.begin([]int{3, 5, 6}[g.IntN(3)])
		g.crashRoll()
	case crashLoopFamily:
		g.begin(3 + g.IntN(4))
		g.crashLoops()
	case churnFamily:
		g.begin(leastChurned + g.IntN(mostChurned-leastChurned+1))
		g.churn()
	case newcomersFamily:
		g.newcomers()
	}
	slices.SortStableFunc(g.s.events, func(a, b event) int { return int(a.at - b.at) })
}

// crashRoll replaces all members one by one by crashes, as a deploy does whose instances are killed. Mostly the newcomer starts
// after the crash, in some schedules before it, as Kubernetes does.
func (g *scheduler) crashRoll() {
	every := g.spread(5*time.Second, time.Minute)
	first := g.chance(0.3)
	apart := g.between(100*time.Millisecond, 2500*time.Millisecond)
	for _, node := range g.shuffled() {
		if first {
			g.join()
			g.wait(apart)
			g.remove(kill, node)
		} else {
			g.remove(kill, node)
			g.wait(apart)
			g.join()
		}
		g.wait(every - apart)
	}
}

// loop is an instance that crashes and comes back under another name.
type loop struct {
	node int
	down bool
	next time.Duration // when it crashes, or comes back
}

// crashLoops lets one or two instances crash and come back as new members, each 5 to 30 seconds after it did the last time.
func (g *scheduler) crashLoops() {
	loops := make([]loop, 1+g.IntN(2))
	for i := range loops {
		loops[i] = loop{node: i, next: g.now + g.between(0, 10*time.Second)}
	}
	until := g.now + g.between(2*time.Minute, 4*time.Minute)
	lastCrash := -time.Hour
	for {
		l := &loops[0]
		if last := &loops[len(loops)-1]; last.next < l.next {
			l = last
		}
		if l.next > until && !l.down || g.next+len(loops) > mostNumbers {
			break
		}
		if earliest := lastCrash + oneByOne; !l.down && 2*len(loops) >= g.s.nodes && l.next < earliest {
			l.next = earliest
			continue
		}
		g.now = max(g.now, l.next)
		if l.down = !l.down; l.down {
			lastCrash = g.now
			g.remove(kill, l.node)
			l.next = g.now + g.between(100*time.Millisecond, 2500*time.Millisecond)
		} else {
			l.node = g.join()
			l.next = g.now + g.spread(5*time.Second, 30*time.Second)
		}
	}
	for _, l := range loops {
		if l.down {
			g.wait(g.between(100*time.Millisecond, time.Second))
			g.join()
		}
	}
}

const (
	leastChurned, mostChurned = 3, 8 // members, while they come and go
	churnedEvents             = 100
)

// churn lets nodes come and go, a hundred in all, some in a burst. Every fifth end is a crash.
func (g *scheduler) churn() {
	pause := g.spread(500*time.Millisecond, 3*time.Second)
	ends := 0
	for range churnedEvents {
		switch grow := len(g.alive) < mostChurned && g.chance(0.5); {
		case grow || len(g.alive) == leastChurned:
			g.join()
		default:
			kind := leave
			if ends++; ends%5 == 0 {
				kind = kill
			}
			g.remove(kind, g.anyone())
		}
		g.wait(g.spread(pause/4, 4*pause))
	}
}

// newcomers splits a cluster, starts nodes that reach only one side, and heals the split; or it cuts off one node after the other;
// or it heals a split and cuts elsewhere; or it lets two clusters be founded apart and meet.
func (g *scheduler) newcomers() {
	switch which := g.IntN(6); which {
	case 0:
		g.begin(1 + g.IntN(4))
		g.foundApart()
	case 1:
		g.begin(4 + g.IntN(2))
		g.cutOneByOne()
	case 2:
		g.begin(4 + g.IntN(3))
		g.cutElsewhere()
	default:
		g.begin(3 + g.IntN(3))
		g.newcomersOfASide()
		if len(g.alive) <= 5 && g.chance(0.6) {
			g.wait(2 * rejoin)
			g.newcomersOfASide()
		}
	}
}

// newcomersOfASide splits the cluster and starts nodes that reach one side only: mostly the smaller one, and mostly as many as
// make it more than half of all that it knows.
func (g *scheduler) newcomersOfASide() {
	order := g.shuffled()
	apart := 1 + g.IntN(len(order)/2)
	count := max(1, len(order)-2*apart+g.IntN(3))
	sides := [][]int{order[:apart], order[apart:]}
	reached := 0
	if g.chance(0.25) {
		reached = 1
	}
	g.splitWithNewcomers(sides, reached, count, 12*time.Second, 20*time.Second)
}

// cutOneByOne cuts off one node after the other, each from all that are left, and starts nodes that reach those that are left or
// the one that was cut off first.
func (g *scheduler) cutOneByOne() {
	rest, count := g.shuffled(), 1+g.IntN(2)
	first := []int{rest[0]}
	if coming := g.coming(count); g.chance(0.5) {
		first = append(first, coming...)
	} else {
		rest = append(rest, coming...)
	}
	sides := [][]int{first, rest[1:]}
	cuts := 2 + g.IntN(len(g.alive)-3)
	var parted []int // the events
	for range cuts {
		parted = append(parted, len(g.s.events))
		g.add(event{kind: split, sides: sides})
		g.wait(g.spread(time.Second, 10*time.Second))
		sides = [][]int{sides[1][:1], sides[1][1:]}
	}
	g.joinSeveral(count)
	g.wait(g.between(8*time.Second, 12*time.Second))
	for _, i := range parted {
		e := &g.s.events[i]
		e.lasts = g.now - e.at
		g.wait(g.spread(10*time.Millisecond, 3*time.Second))
	}
}

// cutElsewhere heals a split and at about the same time makes another one, of those that were apart and some of the others: together they
// may be more than half of all, but the others have been by themselves meanwhile. In some, nodes start that reach one side only.
func (g *scheduler) cutElsewhere() {
	order := g.shuffled()
	apart := (len(order) - 1) / 2
	g.splitWhile([][]int{order[:apart], order[apart:]}, 3*time.Second, 15*time.Second, func() {})
	g.wait(g.spread(time.Millisecond, 2*time.Second))
	at := apart + 1 + g.IntN(len(order)-apart-2)
	sides := [][]int{order[:at], order[at:]}
	count := g.IntN(4)
	reached := g.IntN(2)
	g.splitWithNewcomers(sides, reached, count, 8*time.Second, 15*time.Second)
}

// foundApart founds another cluster beside the one there is, of nodes that cannot reach it, and lets the two meet. The first of them
// looks for a cluster for some seconds before it has started and others can join it.
func (g *scheduler) foundApart() {
	order, count := g.shuffled(), 2+g.IntN(3)
	g.splitWhile([][]int{order, g.coming(count)}, 10*time.Second, 20*time.Second, func() {
		g.joinSeveral(1)
		g.wait(g.between(5*time.Second, 8*time.Second))
		g.joinSeveral(count - 1)
	})
}

// splitWithNewcomers splits the cluster, starts nodes within a time that reach one of the sides, and heals the split at most so long after that.
func (g *scheduler) splitWithNewcomers(sides [][]int, reached, count int, within, heals time.Duration) {
	sides[reached] = append(slices.Clone(sides[reached]), g.coming(count)...)
	g.splitWhile(sides, 10*time.Second, heals, func() {
		g.wait(g.spread(500*time.Millisecond, within))
		g.joinSeveral(count)
	})
}

// splitWhile splits the cluster, lets something happen, and heals the split some time after that.
func (g *scheduler) splitWhile(sides [][]int, least, most time.Duration, happens func()) {
	at := len(g.s.events)
	g.add(event{kind: split, sides: sides})
	happens()
	g.wait(g.between(least, most))
	e := &g.s.events[at]
	e.lasts = g.now - e.at
}

// shuffled returns the living nodes in any order.
func (g *scheduler) shuffled() []int {
	order := slices.Clone(g.alive)
	g.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// coming returns the numbers of the next nodes to join.
func (g *scheduler) coming(count int) (nodes []int) {
	for i := range count {
		nodes = append(nodes, g.next+i)
	}
	return nodes
}

func (g *scheduler) joinSeveral(count int) {
	for range count {
		g.join()
		g.wait(g.spread(10*time.Millisecond, 3*time.Second))
	}
}

// changePlans are what is asked for while members change: little, by keys that are saturated however few nodes are there, by
// some that are exhausted, and by some that are asked for now and then.
func changePlans(s *Schedule) []plan {
	fewest := s.nodes
	if s.family == churnFamily {
		fewest = leastChurned
	}
	const hotKeys, rate = 2, 10
	demand := 2.5 * hotKeys * rate // a second
	return []plan{
		newPlan("hot", saturated, hotKeys, 1, time.Duration(float64(fewest)*float64(time.Second)/demand), peerlimit.PerSecond(rate)),
		newPlan("small", exhausted, 8, 1, 500*time.Millisecond, peerlimit.PerMinute(5)),
		newPlan("cold", cold, 4, 5, 900*time.Millisecond, peerlimit.PerMinute(20)),
	}
}
