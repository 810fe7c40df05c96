package peerlimit

import (
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/transport"
)

// Stats is a snapshot of what a node has seen since it started. Counts never go back; the others are as of now.
type Stats struct {
	Members   int // alive or suspected, not leaving, this node among them
	Known     int // that a limit is divided by when this node decides alone
	Reachable int // of those

	LinksUp      int // connections to other members that questions can be sent over
	LinksSuspect int // that are there, but have not answered lately: questions are not sent
	LinksDown    int // that are not there, or are being made

	PartitionsOwned int    // of 4,093, by the ring
	PartitionsHeld  int    // that this node decides about in full
	RingChanges     uint64 // times the owners changed

	AcquiredByTransfer  uint64 // partitions acquired with all their state, from their holder
	AcquiredFromReplica uint64 // partitions acquired from a replica, because their holder was gone
	AcquiredEmpty       uint64 // partitions acquired empty, because nobody had anything of them

	// ReplicaLag is for how long the standby that is furthest behind has acknowledged nothing of what it was sent. About a round
	// trip when all is well: what changes is sent every Config.ReplicaInterval.
	ReplicaLag time.Duration

	// HasQuorum says that this node hears from a majority of its witnesses and so may decide in full. It follows within half a
	// second, long before gossip gives a member up.
	HasQuorum    bool
	QuorumLosses uint64 // times that this node lost its quorum while it held partitions
	Degraded     uint64 // decisions that callers of this node got by a share of the limit

	MaxKeys      int    // Config.MaxKeys, for each of the next two
	Keys         int    // buckets kept for the cluster
	DegradedKeys int    // buckets kept for decisions by a share
	Evicted      uint64 // buckets dropped for want of room while they still mattered

	// Of leases that this node has granted to others on keys it holds. What was neither used nor returned is still out, or
	// has moved with its partition.
	LeasesGranted  uint64
	LeasesExpired  uint64  // not returned in time: all of their tokens count as used
	TokensLeased   float64 // in all
	TokensUsed     float64 // as far as is known
	TokensReturned float64 // unused

	Served   uint64 // questions of other nodes answered here
	PassedOn uint64 // questions of other nodes sent on to the owner
	Refused  uint64 // questions of other nodes, and their gossip, that made no sense

	// Unauthenticated counts what unauthenticated peers sent: connections that ended in or before the handshake, and streams and
	// packets of gossip, of a peer that is not of this cluster, has not its secret, or does not speak its protocol.
	// Connections that end without having sent anything, as probes do, and those that made room for others do not count.
	Unauthenticated uint64

	Timeouts    uint64 // questions to other nodes that were not answered in time
	Unreachable uint64 // questions to other nodes that could not be sent
	Overloaded  uint64 // questions to other nodes for which there was no room, here or there

	RequestTimes Histogram // how long questions to other nodes about takes lasted, unanswered ones too

	LostRefunds   uint64 // refunds and cancellations that did not reach the owner
	DroppedDebts  uint64 // keys of which it was not reported what was spent by a share, because there were too many
	EventsDropped uint64 // events that Config.OnEvent was too slow for

	// Limiters has an entry for every limiter that was used on this node, by name.
	Limiters map[string]LimiterStats
}

// Histogram counts durations by their length.
type Histogram struct {
	Bounds []time.Duration // of each count but the last, inclusive; the same for all nodes of a version
	Counts []uint64        // one more than Bounds: the last is of what is longer than all of them
	Sum    time.Duration   // of all durations
}

const (
	// firstBound is that of the shortest durations that are told apart. Each further bound is twice the one before.
	firstBound = 50 * time.Microsecond
	boundCount = 13 // up to 205 ms: two RPC timeouts
)

// durations collects a histogram, several times over as decisionCounts does.
type durations [countStripes]struct {
	counts [boundCount + 1]atomic.Uint64
	sum    atomic.Int64
	_      [64]byte // the next one's first line is another one's last otherwise
}

func (d *durations) add(lasted time.Duration) {
	i := 0
	if lasted > firstBound {
		i = min(bits.Len64(uint64((lasted-1)/firstBound)), boundCount)
	}
	s := &d[stripe()%countStripes]
	s.counts[i].Add(1)
	s.sum.Add(int64(lasted))
}

func (d *durations) histogram() Histogram {
	h := Histogram{Counts: make([]uint64, boundCount+1)}
	for i := range boundCount {
		h.Bounds = append(h.Bounds, firstBound<<i)
	}
	for s := range d {
		h.Sum += time.Duration(d[s].sum.Load())
		for i := range h.Counts {
			h.Counts[i] += d[s].counts[i].Load()
		}
	}
	return h
}

// countLinks fills in the states of the links to other members.
func countLinks(n *Node, s *Stats, r *route) {
	for name := range r.others {
		switch n.client.State(name) {
		case transport.LinkUp:
			s.LinksUp++
		case transport.LinkSuspect:
			s.LinksSuspect++
		default:
			s.LinksDown++
		}
	}
}

// LimiterStats counts the decisions that one limiter gave its callers on this node, by their origin.
type LimiterStats struct {
	Allowed map[Origin]uint64
	Denied  map[Origin]uint64
}

// counters are the node's own; see Stats.
type counters struct {
	ringChanges                       atomic.Uint64
	served, passedOn                  atomic.Uint64
	refused, strangers                atomic.Uint64
	timeouts, unreachable, overloaded atomic.Uint64
	lostRefunds                       atomic.Uint64
	degraded, quorumLosses            atomic.Uint64
	questionTimes                     durations
}

// decisionCounts counts decisions by origin and outcome. The counters are kept several times over, by goroutine, so that
// processors rarely write to the same cache line, also when all decide about the same key.
type decisionCounts [countStripes]struct {
	by [limit.OriginCount]struct{ denied, allowed atomic.Uint64 }
	_  [64]byte // the next one's first line is another one's last otherwise
}

const countStripes = 8

// stripe returns a number below countStripes that mostly differs between goroutines: it comes from where their stacks are.
func stripe() uintptr {
	var onStack byte
	const golden = 0x9E3779B97F4A7C15
	at := uint64(uintptr(unsafe.Pointer(&onStack))) // #nosec G103 -- only the number is looked at
	return uintptr(at >> 11 * golden >> 61)
}

func (c *decisionCounts) add(d *limit.Decision) {
	if d.Origin >= limit.OriginCount {
		return
	}
	count := &c[stripe()%countStripes].by[d.Origin]
	if d.Allowed {
		count.allowed.Add(1)
	} else {
		count.denied.Add(1)
	}
}

func (c *decisionCounts) snapshot() LimiterStats {
	s := LimiterStats{Allowed: make(map[Origin]uint64), Denied: make(map[Origin]uint64)}
	for i := range c {
		for o := range limit.OriginCount {
			count, origin := &c[i].by[o], Origin(o)
			if n := count.allowed.Load(); n > 0 {
				s.Allowed[origin] += n
			}
			if n := count.denied.Load(); n > 0 {
				s.Denied[origin] += n
			}
		}
	}
	return s
}
