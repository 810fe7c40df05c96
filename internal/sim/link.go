package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Conditions say how one direction between two hosts behaves. The zero value
// is a perfect wire without latency.
type Conditions struct {
	// Latency is the least time from sending to arrival. Not negative.
	Latency time.Duration
	// Jitter is the most that is added to Latency, drawn uniformly for each
	// packet: it reorders packets, and never the bytes of a stream. Not
	// negative.
	Jitter time.Duration
	// Loss is the probability that a packet vanishes, and that a stretch of
	// stream (what one Write sends) has to be sent again. In [0, 1].
	Loss float64
	// Duplicate is the probability that a packet arrives twice. In [0, 1].
	// Streams discard duplicates, so it does nothing to them.
	Duplicate float64
}

// DefaultConditions are those of a healthy local network: 0.2 to 1 ms one way.
var DefaultConditions = Conditions{Latency: 200 * time.Microsecond, Jitter: 800 * time.Microsecond}

func (c Conditions) mustBeValid() {
	inUnit := func(p float64) bool { return p >= 0 && p <= 1 }
	if c.Latency < 0 || c.Jitter < 0 || !inUnit(c.Loss) || !inUnit(c.Duplicate) {
		panic(fmt.Sprintf("sim: conditions out of range: %+v", c))
	}
}

// route names one direction between two addresses.
type route struct{ from, to netip.Addr }

// A link is one direction between two machines. Guarded by the network's lock.
type link struct {
	net      *Network
	from, to *machine
	cut      bool
	own      *Conditions // nil: the network's defaults
	random   *rand.Rand
}

// link returns the link from one address to another. Called with mu held.
func (n *Network) link(from, to netip.Addr) *link {
	r := route{from, to}
	l := n.links[r]
	if l == nil {
		l = &link{net: n, from: n.machine(from), to: n.machine(to), random: n.randomFor(r)}
		n.links[r] = l
	}
	return l
}

// randomFor returns the generator of one link: the same for the same seed and
// addresses, whatever else happens in the network.
func (n *Network) randomFor(r route) *rand.Rand {
	name := fnv.New64a()
	fmt.Fprintf(name, "%s>%s", r.from, r.to)
	return rand.New(rand.NewPCG(n.seed, name.Sum64()))
}

// open reports whether what is sent now would reach the other machine.
func (l *link) open() bool {
	return !l.cut && l.from.powered && l.to.powered
}

// fate is what chance decides for one packet or stretch of stream.
type fate struct {
	latency, copyLatency time.Duration
	lost, doubled        bool
}

// roll draws a fate. It takes four values from the generator whatever the
// conditions are, so that changing them leaves later draws as they were.
func (l *link) roll() fate {
	c := &l.net.defaults
	if l.own != nil {
		c = l.own
	}
	lost, doubled := l.random.Float64(), l.random.Float64()
	jitter, copyJitter := l.random.Float64(), l.random.Float64()
	return fate{
		latency:     c.Latency + time.Duration(jitter*float64(c.Jitter)),
		copyLatency: c.Latency + time.Duration(copyJitter*float64(c.Jitter)),
		lost:        lost < c.Loss,
		doubled:     doubled < c.Duplicate,
	}
}
