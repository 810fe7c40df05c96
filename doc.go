// Package peerlimit makes all instances of a service share one rate limit, with no Redis, no sidecar and no coordinator:
// the instances themselves are the limiter.
//
// Each process embeds a [Node]. Nodes find each other by gossip. Every key has one owner among them, which decides takes
// on it one after the other; the others ask it over one connection. A node that cannot reach a key's owner decides alone,
// from a bucket that holds its share of the limit.
//
//	node, err := peerlimit.Start(peerlimit.Config{BindAddr: "10.0.0.7:7946", Join: []string{"api.internal"}, Secret: secret})
//	if err != nil { ... }
//	defer node.Close()
//	perUser, err := node.Limiter("per-user", peerlimit.PerMinute(100).WithBurst(20))
//	if err != nil { ... }
//
//	decision, err := perUser.Take(ctx, userID, 1)
//	if err != nil { ... }                      // the call was wrong, or ctx has ended
//	if !decision.Allowed { ... }               // come back in decision.RetryAfter
//
// # Limits
//
// A [Limit] is a rate and a capacity: tokens per period, and a burst. A limiter may combine several; a take passes all of
// them or takes from none. Costs and rates may be fractions. Tokens come continuously, not at the turn of a window, so in
// any window of length w no more than burst + rate*w tokens are admitted.
//
// # Which node decides
//
// [Decision.Origin] says which node decided, and so how exact the answer is: the owner (OriginLocal, OriginRemote), or this node
// alone (OriginFallback), under a [fallback.Policy].
//
// # One process
//
// A [Bucket] is the same limit without a cluster.
package peerlimit
