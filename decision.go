package peerlimit

import (
	"strconv"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Decision is the answer to a take or a peek. The zero Decision is a denial that says nothing.
type Decision struct {
	// Allowed says whether the cost was taken; for a peek, whether a take of one token would pass.
	Allowed bool

	// Limit is the strictest of the limits: the one with the longest RetryAfter when denied, otherwise the one with the
	// smallest Remaining in proportion to its burst.
	Limit Limit

	// Remaining is the number of tokens left under Limit, from 0 to its burst. It never says too much: what is set aside
	// for other nodes is not left, and a decision by a lease says what is left of the lease.
	Remaining float64

	// RetryAfter is 0 when allowed, otherwise the time until this cost could pass if nobody else takes anything. It is
	// rounded up: a take after exactly that long is not too early.
	RetryAfter time.Duration

	// ResetAfter is the time until the bucket is full again, under all of its limits.
	ResetAfter time.Duration

	// Delay is for leaky buckets: the time until the request leaves the bucket. The caller sleeps that long, or calls
	// Wait, which does. For a token bucket it is 0, except in a reservation's decision: until its turn comes.
	Delay time.Duration

	// Origin says which node decided, and how.
	Origin Origin

	// Denied is the name of the limiter that denied, of which Limit is one: of [TakeAll]'s limiters the one that this decision is
	// about. It is "" when allowed, and in decisions of a [Bucket], which has no name.
	Denied string
}

// decisionOf returns a decision of the arithmetic as callers get it.
func decisionOf(from *limit.Decision) (d Decision) {
	d.setTo(from)
	return d
}

// setTo stores a decision of the arithmetic in one that was zero, field by field: whole copies cost a take more than its
// arithmetic does.
func (d *Decision) setTo(from *limit.Decision) {
	d.Allowed, d.Origin = from.Allowed, Origin(from.Origin)
	d.Limit.Tokens, d.Limit.Period, d.Limit.Burst = from.Limit.Tokens, from.Limit.Period, from.Limit.Burst
	d.Limit.Algorithm = Algorithm(from.Limit.Algorithm)
	d.Remaining, d.RetryAfter, d.ResetAfter, d.Delay = from.Remaining, from.RetryAfter, from.ResetAfter, from.Delay
}

// Err returns nil when allowed and otherwise a [*LimitedError] that holds the decision and matches [ErrLimited].
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return &LimitedError{Decision: d}
}

// Origin says which node made a decision, and so how exact it is.
type Origin uint8

const (
	// OriginLocal: this node, which holds the key. Every decision of a [Bucket] is local. It is the zero value.
	OriginLocal = Origin(limit.OriginLocal)

	// OriginRemote: the node that holds the key, asked over the network.
	OriginRemote = Origin(limit.OriginRemote)

	// OriginLease: this node, from tokens that the holder set aside for it.
	OriginLease = Origin(limit.OriginLease)

	// OriginDenialCache: this node, which remembers a denial by the holder that still stands.
	OriginDenialCache = Origin(limit.OriginDenialCache)

	// OriginStandby: the node that keeps the replica, because the owner cannot be reached.
	OriginStandby = Origin(limit.OriginStandby)

	// OriginFallback: this node alone, by its fallback policy, because the key's owner cannot be reached.
	OriginFallback = Origin(limit.OriginFallback)
)

var originNames = [limit.OriginCount]string{"local", "remote", "lease", "denial-cache", "standby", "fallback"}

// String returns the origin in lower case, such as "local" or "denial-cache".
func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return "Origin(" + strconv.Itoa(int(o)) + ")"
}
