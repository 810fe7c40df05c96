package peerlimittest

import (
	"time"

	"github.com/peerlimit/peerlimit/internal/sim"
)

// What can go wrong between machines, and with one of them short of its end. All of it takes effect at once, and none of
// it waits for anybody to notice.

// Freeze stops node i as the others see it, as a long pause of its process does: nothing of it arrives anywhere, and
// what is sent to it waits. Calls on the node itself still run, because they run in the test.
func (c *Cluster) Freeze(i int) { c.network.Freeze(c.member(i).ip) }

// Thaw lets a frozen node go on.
func (c *Cluster) Thaw(i int) { c.network.Thaw(c.member(i).ip) }

// Split cuts the network between nodes that share no group, in both directions: Split([]int{0, 1}, []int{2, 3, 4}). A
// node in no group keeps all its links. Cuts add up until Heal.
func (c *Cluster) Split(groups ...[]int) {
	ips := make([][]string, len(groups))
	for g, group := range groups {
		for _, i := range group {
			ips[g] = append(ips[g], c.member(i).ip)
		}
	}
	c.network.Split(ips...)
}

// Cut cuts the network from one node to another, one way: nothing of what from sends reaches to, what is under way
// included. Answers still come back the other way, which nobody notices as fast as a link that is dead.
func (c *Cluster) Cut(from, to int) { c.network.Cut(c.member(from).ip, c.member(to).ip) }

// CutBoth cuts the network between two nodes, in both directions. The others still reach each of them.
func (c *Cluster) CutBoth(a, b int) { c.network.CutBoth(c.member(a).ip, c.member(b).ip) }

// Mend ends the cuts between two nodes, in both directions, whatever made them.
func (c *Cluster) Mend(a, b int) {
	c.network.Mend(c.member(a).ip, c.member(b).ip)
	c.network.Mend(c.member(b).ip, c.member(a).ip)
}

// Isolate cuts node i off from all others, in both directions.
func (c *Cluster) Isolate(i int) {
	var others []int
	for j := range c.Len() {
		if j != i {
			others = append(others, j)
		}
	}
	c.Split([]int{i}, others)
}

// Heal mends every cut. It thaws nobody, and links stay as slow as they are.
func (c *Cluster) Heal() { c.network.Heal() }

// Conditions say how the network carries what one node sends to another. The zero value is a perfect wire.
type Conditions struct {
	// Latency is the least time from sending to arrival. It is not negative.
	Latency time.Duration

	// Jitter is the most that is added to Latency, drawn each time. It is not negative.
	Jitter time.Duration

	// Loss is the probability, from 0 to 1, that a packet of gossip vanishes, and that a stretch of a connection has to be
	// sent again, which takes 200 ms or more, as it does with TCP.
	Loss float64
}

// Healthy are the conditions that a cluster starts with: those of a local network, 0.2 to 1 ms one way.
var Healthy = Conditions{Latency: sim.DefaultConditions.Latency, Jitter: sim.DefaultConditions.Jitter}

// Degrade sets the conditions of the whole network, also of links that DegradeLink has set apart. What is under way
// arrives as it was sent, and on a connection before what is sent after it. Degrade(Healthy) ends it.
func (c *Cluster) Degrade(conditions Conditions) {
	c.network.SetDefaults(conditions.simulated())
	c.network.ResetLinks()
}

// DegradeLink sets the conditions of what one node sends to another, one way, until they are set again or the whole
// network's are.
func (c *Cluster) DegradeLink(from, to int, conditions Conditions) {
	c.network.SetLink(c.member(from).ip, c.member(to).ip, conditions.simulated())
}

func (c Conditions) simulated() sim.Conditions {
	return sim.Conditions{Latency: c.Latency, Jitter: c.Jitter, Loss: c.Loss}
}
