// Package fallback decides how much of a limit a node may give out when it cannot reach the node that owns the key.
//
// The choice is the caller's, per limiter: [Divided] keeps the cluster within its limit and lets less through, [Open]
// lets everything through, [Closed] denies. A [Policy] of one's own sees how much of the cluster is in reach.
package fallback

import "math"

// Reach is what a node knows about its cluster at the moment it has to decide without the owner.
type Reach struct {
	// Known is the number of members that a limit is divided by, this node among them; at least 1.
	Known int

	// Reachable is how many of those are in reach, this node among them; from 1 to Known.
	Reachable int

	// Sharing is how many members the share is for: 1 for a bucket that this node keeps for itself alone, Reachable for
	// one that a whole side of a split shares.
	Sharing int
}

// Policy returns the share of a limit's rate and burst that may be given out: 0 denies, 1 is the whole limit, +Inf
// allows without counting. A negative result or NaN denies; anything between 1 and +Inf counts as given. A policy is
// called on the take path and must not block.
//
// Where the share of a burst is less than one token, only some members give out anything of a key: as many as all shares
// together hold tokens, and at least one. Each of them holds one token, if all shares together are worth one, and earns the
// share of the rate.
type Policy func(Reach) (share float64)

// Divided gives each member an equal share: all of them together stay within the limit, whatever cut them off from
// each other. It is the default.
func Divided(r Reach) float64 {
	return float64(max(r.Sharing, 0)) / float64(max(r.Known, 1))
}

// Open allows everything while the owner is out of reach: for limits that protect against overuse and matter less than
// the service behind them.
func Open(Reach) float64 { return math.Inf(1) }

// Closed denies everything while the owner is out of reach: for limits that guard a secret, such as logins.
func Closed(Reach) float64 { return 0 }
