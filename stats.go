package peerlimit

import (
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/striped"
	"github.com/peerlimit/peerlimit/transport"
)

// Stats is a snapshot of what a node has seen since it started. Counts never go back; the others are as of now.
type Stats struct {
	Members   int // alive or suspected, not leaving, this node among them
	Known     int // that a limit is divided by when this node decides alone
	Reachable int // of those

	LinksUp      int // connections to other members that requests can be sent over
	LinksSuspect int // that are there, but have not answered lately: requests are not sent
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

	Waiting int // callers of this node that wait for a turn, at the node that decides about their key

	// Of turns that are waited for at keys that this node holds, by callers of all nodes. A caller that gets a turn immediately is not among
	// them.
	QueuedTurns  int    // that are waited for now, at most 262,144, and 65,536 of one key
	ServedTurns  uint64 // that have come
	LeftTurns    uint64 // whose callers left before they came, or whose node was not heard of for too long
	RefusedTurns uint64 // for which there was no room

	Served   uint64 // requests of other nodes answered here
	PassedOn uint64 // requests of other nodes sent on to the owner
	Refused  uint64 // requests of other nodes, and their gossip, that were malformed, or of another version

	// Unauthenticated counts what unauthenticated peers sent: connections that ended in or before the handshake, and streams and
	// packets of gossip, of a peer that is not of this cluster, has not its secret, or does not speak its protocol.
	// Connections that end without having sent anything, as probes do, and those that made room for others do not count.
	Unauthenticated uint64

	// OtherCluster and OtherSecret count the times that this node met a peer of another Cluster, and one that has another Secret, or
	// one where this node has none, or none: those it tried to join and those that came, by gossip or for takes.
	OtherCluster uint64
	OtherSecret  uint64

	SeedsNotJoined int    // entries of Config.Join without a member there; Status says why
	FailedJoins    uint64 // look-ups and joins of them that failed

	Timeouts    uint64 // requests to other nodes that were not answered in time
	Unreachable uint64 // requests to other nodes that could not be sent
	Overloaded  uint64 // requests to other nodes for which there was no room, here or there

	RequestTimes Histogram // how long requests to other nodes about takes lasted, unanswered ones too

	LostRefunds   uint64 // refunds and cancellations that did not reach the owner
	DroppedDebts  uint64 // keys of which it was not reported what was spent by a share, because there were too many
	EventsDropped uint64 // events that Config.OnEvent was too slow for

	// Limiters has an entry for every limiter of this node, by name. One that the node has forgotten, because nobody held it or asked for it
	// for a time (see [Node.Limiter]), has none any more, and counts from zero when it is made again.
	Limiters map[string]LimiterStats
}

// Histogram counts durations by their length.
type Histogram struct {
	Bounds []time.Duration // of each count but the last, inclusive; the same for all nodes of a version
	Counts []uint64        // one more than Bounds: the last is of what is longer than all of them
	Sum    time.Duration   // of all durations
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

// countSeeds fills in what became of the seeds, and which peers are not set up as this node.
func countSeeds(n *Node, s *Stats) {
	seeds, failed := n.membership.Seeds()
	s.FailedJoins = failed
	for _, seed := range seeds {
		if !seed.Joined {
			s.SeedsNotJoined++
		}
	}
	s.OtherCluster, s.OtherSecret = n.membership.Met()
	s.OtherCluster += n.counters.otherCluster.Load()
	s.OtherSecret += n.counters.otherSecret.Load()
}

// LimiterStats counts the decisions that one limiter gave its callers on this node, by their origin. What [TakeAll] took and gave
// back, because another limiter denied, is in neither.
type LimiterStats struct {
	Allowed map[Origin]uint64
	Denied  map[Origin]uint64
}

// counters are the node's own; see Stats.
type counters struct {
	ringChanges                       atomic.Uint64
	served, passedOn                  atomic.Uint64
	refused, strangers                atomic.Uint64
	otherCluster, otherSecret         atomic.Uint64 // that came for takes
	timeouts, unreachable, overloaded atomic.Uint64
	lostRefunds                       atomic.Uint64
	degraded, quorumLosses            atomic.Uint64
	questionTimes                     striped.Durations
}

// limiterStatsOf returns counts as users get them.
func limiterStatsOf(counts *striped.Decisions) LimiterStats {
	s := LimiterStats{Allowed: make(map[Origin]uint64), Denied: make(map[Origin]uint64)}
	for origin := range limit.OriginCount {
		allowed, denied := counts.Of(origin)
		if allowed > 0 {
			s.Allowed[Origin(origin)] = allowed
		}
		if denied > 0 {
			s.Denied[Origin(origin)] = denied
		}
	}
	return s
}
