package schedule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// scheduler makes a schedule. It knows which nodes are there at the time it has got to.
type scheduler struct {
	*rand.Rand
	s     *Schedule
	now   time.Duration
	alive []int
	next  int // number of the next to join
	kills int
}

// maxNodes is the most that are there at once.
const maxNodes = 9

// New returns the schedule of a seed.
func New(seed uint64) *Schedule {
	g := &scheduler{Rand: rand.New(rand.NewPCG(seed*0x9E3779B97F4A7C15, seed)), s: &Schedule{seed: seed, family: FamilyOf(seed)}}
	switch g.s.family {
	case membershipFamily:
		g.begin(1 + g.IntN(6))
		g.membership()
	case killFamily:
		g.begin(3 + g.IntN(7))
		g.crashes()
	case faultFamily:
		g.begin(2 + g.IntN(6))
		g.faults()
	case steadyFamily:
		g.begin(1 + g.IntN(maxNodes))
	case handoverFamily:
		g.begin(3 + g.IntN(5))
		g.handovers()
	case piecesFamily:
		g.begin(2 + g.IntN(4))
		g.pieces()
	default:
		g.changes()
		g.s.plans = changePlans(g.s)
		return g.s
	}
	slices.SortStableFunc(g.s.events, func(a, b event) int { return int(a.at - b.at) })
	if g.s.family == piecesFamily {
		g.s.plans = g.piecesPlans()
	} else {
		g.s.plans = g.plans()
	}
	switch g.s.family {
	case killFamily, faultFamily, handoverFamily:
		g.s.plans = append(g.s.plans, fewPlan(seed, g.s.nodes))
	}
	if g.s.family == steadyFamily {
		g.s.far = []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond}[seed/5%3]
		g.s.plans = append(g.s.plans, tightPlan(g.s.nodes, seed/15%3))
	}
	g.s.plans = append(g.s.plans, queuedPlan(seed))
	return g.s
}

func (g *scheduler) begin(nodes int) {
	g.s.nodes, g.next = nodes, nodes
	for i := range nodes {
		g.alive = append(g.alive, i)
	}
	g.now = g.between(2*time.Second, 4*time.Second)
}

// between draws a duration, whole microseconds for the eyes.
func (g *scheduler) between(low, high time.Duration) time.Duration {
	return (low + time.Duration(g.Int64N(int64(high-low)))).Truncate(time.Microsecond)
}

// spread draws a duration of which each order of magnitude is as likely as the others.
func (g *scheduler) spread(low, high time.Duration) time.Duration {
	d := float64(low) * math.Pow(float64(high)/float64(low), g.Float64())
	return time.Duration(d).Truncate(time.Millisecond)
}

func (g *scheduler) chance(p float64) bool { return g.Float64() < p }

// wait lets time pass; there is always some, so that no two events are at the same instant and the node that joins first has
// the lower number.
func (g *scheduler) wait(d time.Duration) { g.now += d + time.Microsecond }

func (g *scheduler) add(e event) {
	e.at = g.now
	g.s.events = append(g.s.events, e)
	g.wait(0)
}

// anyone returns a living node, not one of those.
func (g *scheduler) anyone(but ...int) int {
	for {
		if i := g.alive[g.IntN(len(g.alive))]; !slices.Contains(but, i) {
			return i
		}
	}
}

func (g *scheduler) join() int {
	node := g.next
	g.next++
	g.alive = append(g.alive, node)
	g.add(event{kind: join, node: node})
	return node
}

func (g *scheduler) remove(kind eventKind, node int) {
	g.alive = slices.DeleteFunc(g.alive, func(i int) bool { return i == node })
	g.add(event{kind: kind, node: node})
}

// membership makes nodes join and leave: alone, several at once, into each other.
func (g *scheduler) membership() {
	for range 2 + g.IntN(3) {
		grow, shrink := len(g.alive) < maxNodes-2, len(g.alive) > 3
		switch which := g.IntN(7); {
		case which == 0 && grow, len(g.alive) == 1:
			g.join()
		case which == 1 && shrink:
			g.remove(leave, g.anyone())
		case which == 2 && grow: // several at once
			for range 2 + g.IntN(2) {
				g.join()
				g.wait(g.between(0, 40*time.Millisecond))
			}
		case which == 3 && shrink:
			for range 2 {
				g.remove(leave, g.anyone())
				g.wait(g.between(0, 40*time.Millisecond))
			}
		case which == 4 && grow: // while another one leaves
			g.remove(leave, g.anyone())
			g.wait(g.between(0, 1500*time.Millisecond))
			g.join()
		case which == 5 && grow: // goes as soon as it has come
			newcomer := g.join()
			g.wait(g.between(0, 700*time.Millisecond))
			g.remove(leave, newcomer)
		default: // rolling replacement, as a deploy does it
			for range 1 + g.IntN(3) {
				old := g.anyone()
				if g.chance(0.5) {
					g.join()
					g.wait(g.between(300*time.Millisecond, 2*time.Second))
					g.remove(leave, old)
				} else if len(g.alive) > 1 {
					g.remove(leave, old)
					g.wait(g.between(300*time.Millisecond, 2*time.Second))
					g.join()
				}
				g.wait(g.between(300*time.Millisecond, 2*time.Second))
			}
		}
		g.wait(g.spread(50*time.Millisecond, 4*time.Second))
	}
}

// crashes kills fewer than half of the nodes, mostly far enough apart to recover in between.
func (g *scheduler) crashes() {
	for range 1 + g.IntN((len(g.alive)-1)/2) {
		g.remove(kill, g.anyone())
		if g.chance(0.15) {
			g.wait(g.spread(time.Millisecond, time.Second))
			continue
		}
		g.wait(g.between(4*time.Second, 6*time.Second))
		if g.chance(0.3) {
			g.join() // in its place
			g.wait(g.between(3*time.Second, 4*time.Second))
		}
	}
}

// faults lets the network and the processes be in trouble that ends, one after the other or at once. Every node is frozen
// at most once, and there is one bad network at most, so that no end comes before its time.
func (g *scheduler) faults() {
	var frozen []int
	degraded := false
	for range 1 + g.IntN(3) {
		var e event
		switch which := g.IntN(6); {
		case which <= 1 && len(frozen) < len(g.alive)-1:
			e = event{kind: freeze, node: g.anyone(frozen...), lasts: g.spread(100*time.Millisecond, 30*time.Second)}
			frozen = append(frozen, e.node)
		case which == 2 && !degraded:
			e = event{kind: degrade, lasts: g.between(time.Second, 8*time.Second), conditions: g.conditions()}
			degraded = true
		case which <= 3:
			e = g.split()
		default:
			e = g.cut(g.anyone())
		}
		g.add(e)
		if g.chance(0.4) {
			g.wait(g.between(0, e.lasts)) // the next comes while it lasts
		} else {
			g.wait(e.lasts + g.between(time.Second, 4*time.Second))
		}
	}
}

// cut is a cut of one link of a node.
func (g *scheduler) cut(node int) event {
	e := event{kind: cutWay, node: node, peer: g.anyone(node), lasts: g.spread(200*time.Millisecond, 15*time.Second)}
	if g.chance(0.5) {
		e.kind = cutLink
	}
	if g.chance(0.5) {
		e.node, e.peer = e.peer, e.node
	}
	return e
}

// split cuts the cluster in two, or in three if there are enough for that.
func (g *scheduler) split() event {
	order := slices.Clone(g.alive)
	g.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	sides := [][]int{order[:1], order[1:]}
	if n := len(order); n > 2 {
		at := 1 + g.IntN(n-1)
		sides = [][]int{order[:at], order[at:]}
		if n >= 5 && g.chance(0.2) {
			sides = [][]int{order[:n/3], order[n/3 : 2*n/3], order[2*n/3:]}
		}
	}
	return event{kind: split, sides: sides, lasts: g.spread(200*time.Millisecond, 20*time.Second)}
}

// conditions are those of a network that loses something, or of one that is far apart.
func (g *scheduler) conditions() peerlimittest.Conditions {
	if g.chance(0.5) {
		c := peerlimittest.Healthy
		c.Loss = 0.02 + 0.08*g.Float64()
		return c
	}
	return peerlimittest.Conditions{
		Latency: g.between(2*time.Millisecond, 25*time.Millisecond), Jitter: g.between(time.Millisecond, 15*time.Millisecond),
	}
}

// handovers lets a join or a leave begin, and somebody crash or a link break while partitions change hands.
func (g *scheduler) handovers() {
	for range 1 + g.IntN(3) {
		var mover int
		if g.chance(0.5) && len(g.alive) < maxNodes || len(g.alive) < 4 {
			mover = g.join()
		} else {
			mover = g.anyone()
			g.add(event{kind: leave, node: mover})
		}
		g.wait(g.between(0, 50*time.Millisecond))
		leaving := g.s.events[len(g.s.events)-1].kind == leave
		// Those that were killed count until long after; more than half of all must be left.
		if others := len(g.alive) + g.kills; g.chance(0.6) && 2*(g.kills+1) < others-1 {
			victim := g.anyone()
			if g.chance(0.4) {
				victim = mover
			}
			g.kills++
			g.remove(kill, victim)
		} else {
			g.add(g.cut(mover))
		}
		if leaving {
			g.alive = slices.DeleteFunc(g.alive, func(i int) bool { return i == mover })
		}
		g.wait(g.between(5*time.Second, 7*time.Second))
	}
}

// pieces makes nodes join and leave while partitions take many pieces to move: so many, or so slowly, that everybody is
// asked for a partition while its holder still gives it. In some, one node is killed in the middle of that.
func (g *scheduler) pieces() {
	g.s.pieces = pieces{answer: int(g.between(300, 3000)), replica: int(g.between(300, 3000))}
	if g.chance(0.7) {
		g.add(event{kind: degrade, lasts: 30 * time.Second, conditions: peerlimittest.Conditions{
			Latency: g.between(time.Millisecond, 8*time.Millisecond), Jitter: g.between(time.Millisecond, 8*time.Millisecond),
		}})
	}
	g.membership()
	if len(g.alive) < 4 || !g.chance(0.25) {
		return
	}
	mover := g.join()
	g.wait(g.between(0, 300*time.Millisecond))
	if g.chance(0.5) {
		mover = g.anyone(mover)
	}
	g.remove(kill, mover)
}

// piecesPlans draws what is asked for where partitions are large: a thousand keys and more in a few of them, and some in
// others. Nothing of what is taken comes back for an hour, so each key that is admitted again was forgotten.
func (g *scheduler) piecesPlans() []plan {
	crowded := newPlan("crowded", exhausted, 0, 1, 20*time.Millisecond, peerlimit.PerHour(1))
	partitions, keys := 4+g.IntN(28), 1000+g.IntN(1500)
	for i := 0; len(crowded.keys) < keys; i++ {
		if key := fmt.Sprintf("key%d", i); int(ring.PartitionOf(crowded.name, key))%(ring.Partitions/partitions) == 0 {
			crowded.keys = append(crowded.keys, key)
		}
	}
	return []plan{
		crowded,
		newPlan("spread", exhausted, 200, 4, 50*time.Millisecond, peerlimit.PerHour(4)),
		newPlan("two", exhausted, 20, 1, 200*time.Millisecond, peerlimit.PerHour(1), peerlimit.Per(3, 24*time.Hour)),
		newPlan("hot", saturated, 1, 1, 10*time.Millisecond, peerlimit.PerSecond(100)),
	}
}

// tightPlan is a key with a burst of 1 to 3, which is full as soon as nobody has asked for a moment: what is earned then is lost.
// So it is asked for much more often than it earns. Above one token, what it earns in a round trip fits into its burst.
func tightPlan(nodes int, which uint64) plan {
	limit := []peerlimit.Limit{
		peerlimit.PerSecond(10).WithBurst(1), peerlimit.PerSecond(15).WithBurst(2), peerlimit.PerSecond(15).WithBurst(3),
	}[which]
	p := newPlan("tight", saturated, 1, 1, time.Duration(nodes)*time.Millisecond/2, limit)
	p.remote = true
	return p
}

// queuedPlan is two keys that a crowd waits for all the time. No draw for this one, as for bursts below.
func queuedPlan(seed uint64) plan {
	limit := []peerlimit.Limit{
		peerlimit.PerSecond(20).WithBurst(1), peerlimit.PerSecond(40).WithBurst(3), peerlimit.PerSecond(10),
		peerlimit.PerSecond(20).WithBurst(2).Leaky(), peerlimit.PerMinute(150).WithBurst(1),
	}[seed/5%5]
	return newPlan("queued", waiting, 2, 1, 20*time.Millisecond, limit)
}

// fewPlan is some keys with a burst of 0.5 to twice as many tokens as there are members, so that most shares are worth less than
// a token. Some are asked for more than they earn, and some less, so that they are full now and then. It has draws of its own:
// seeds from before there was any stay what they were.
func fewPlan(seed uint64, nodes int) plan {
	random := rand.New(rand.NewPCG(seed, 3)) // #nosec G404 -- it follows from the seed
	burst := 0.5 + random.Float64()*(2*float64(nodes)-0.5)
	switch random.IntN(4) {
	case 0, 1:
		burst = math.Ceil(burst)
	case 2:
		burst = 0.5 + 3*random.Float64()
	}
	rate := []float64{3, 20, 60}[random.IntN(3)]
	demand := rate * (0.5 + 2*random.Float64())
	p := newPlan("few", cold, 4, math.Min(1, burst), 0, peerlimit.PerSecond(rate).WithBurst(burst).WithMinCost(math.Min(1, burst)))
	p.pause = time.Duration(float64(nodes) / (demand * float64(len(p.keys))) * p.cost * float64(time.Second))
	return p
}

// plans draws what is asked for. There are always keys that are saturated, because they show what a change costs, and
// many that are exhausted, because they show it when a level is lost and each node owns some of them.
func (g *scheduler) plans() []plan {
	nodes := time.Duration(g.s.nodes)
	rate := []float64{60, 100, 150}[g.IntN(3)]
	hot := peerlimit.PerSecond(rate).WithBurst(math.Ceil(rate * (0.1 + g.Float64())))
	plans := []plan{
		newPlan("hot", saturated, 1, 1, time.Duration(float64(nodes)*float64(time.Second)/(2.5*rate)), hot),
		newPlan("small", exhausted, 8, 1, 150*time.Millisecond, peerlimit.PerMinute(5)),
	}
	others := []plan{
		newPlan("medium", exhausted, 6, 4, 120*time.Millisecond, peerlimit.PerMinute(100)),
		newPlan("two", cold, 3, 2, 150*time.Millisecond, peerlimit.PerSecond(20).WithBurst(15), peerlimit.PerMinute(200)),
		newPlan("large", cold, 4, 7, 90*time.Millisecond, peerlimit.PerSecond(10_000)),
		newPlan("leaky", saturated, 1, 1, nodes*time.Second/100, peerlimit.PerSecond(40).WithBurst(10).Leaky()),
		newPlan("slow-leaky", exhausted, 5, 1, 200*time.Millisecond, peerlimit.PerMinute(30).Leaky()),
		newPlan("cold", cold, 6, 5, 900*time.Millisecond, peerlimit.PerMinute(20)),
		newPlan("refunded", refunding, 2, 2, 250*time.Millisecond, peerlimit.PerSecond(10)),
		newPlan("reset", resetting, 2, 3, 300*time.Millisecond, peerlimit.PerMinute(30)),
		newPlan("reserved", reserving, 2, 1, 200*time.Millisecond, peerlimit.PerSecond(20).WithBurst(5)),
	}
	g.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	// No draw for this one: seeds that once failed stay what they were, as far as they can.
	fast := []peerlimit.Limit{peerlimit.PerSecond(300).WithBurst(600), peerlimit.PerSecond(3000).WithBurst(600)}[g.s.seed%2]
	return append(append(plans, others[:4]...), newPlan("bursts", bursting, 2, 1, time.Second, fast))
}
