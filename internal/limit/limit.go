package limit

import (
	"fmt"
	"math"
	"time"
)

// MaxCombined is the greatest number of limits that one limiter or bucket may combine.
const MaxCombined = 8

// Algorithm says what a limit does to requests that come faster than its rate.
type Algorithm uint8

const (
	// TokenBucket lets a burst of up to the capacity through at once and then the rate.
	TokenBucket Algorithm = iota

	// LeakyBucket lets requests leave evenly at the rate, from a queue as long as the capacity.
	LeakyBucket
)

// String returns "token bucket" or "leaky bucket".
func (a Algorithm) String() string {
	switch a {
	case TokenBucket:
		return "token bucket"
	case LeakyBucket:
		return "leaky bucket"
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// Limit is a rate and a capacity: Tokens are added every Period, up to Burst. A Burst of zero means Tokens, and at
// least 1.
type Limit struct {
	Tokens    float64
	Period    time.Duration
	Burst     float64
	Algorithm Algorithm
}

// Capacity is Burst with its default filled in.
func (l Limit) Capacity() float64 {
	if l.Burst == 0 {
		return math.Max(l.Tokens, 1)
	}
	return l.Burst
}

// MinRate, in tokens per nanosecond, keeps every quotient by a rate finite. It is about a token in three million years.
const MinRate = 1e-23

// Problem says which field is wrong, with its value; nothing when none is. The comparisons are such that NaN fails them.
func (l Limit) Problem() string {
	switch {
	case !(l.Tokens > 0) || math.IsInf(l.Tokens, 0):
		return fmt.Sprintf("Tokens is %v; it must be positive and finite", l.Tokens)
	case l.Period <= 0:
		return fmt.Sprintf("Period is %v; it must be positive", l.Period)
	case !(l.Burst >= 0) || math.IsInf(l.Burst, 0):
		return fmt.Sprintf("Burst is %v; it must be positive and finite, or 0 for Tokens", l.Burst)
	case l.Algorithm > LeakyBucket:
		return fmt.Sprintf("Algorithm is %v; it must be TokenBucket or LeakyBucket", l.Algorithm)
	case l.Tokens/float64(l.Period) < MinRate:
		return fmt.Sprintf("Tokens is %v in a Period of %v; that is less than a token in a million years", l.Tokens, l.Period)
	}
	return ""
}

// ProblemOf says what is wrong with the limits that one limiter or bucket is made of; nothing when they are right.
func ProblemOf(limits []Limit) string {
	if len(limits) == 0 {
		return "no limits; at least one is needed (there is no \"unlimited\")"
	}
	if len(limits) > MaxCombined {
		return fmt.Sprintf("%d limits; at most %d can be combined", len(limits), MaxCombined)
	}
	for i := range limits {
		if problem := limits[i].Problem(); problem != "" {
			if len(limits) > 1 {
				problem = fmt.Sprintf("limit %d of %d: %s", i+1, len(limits), problem)
			}
			return problem
		}
	}
	return ""
}

// ValidCost reports whether a cost is a positive finite number of tokens.
func ValidCost(cost float64) bool { return cost > 0 && !math.IsInf(cost, 1) }

// Decision is the answer to a take or a peek. The zero Decision is a denial that says nothing.
type Decision struct {
	// Allowed says whether the cost was taken; for a peek, whether a take of one token would pass.
	Allowed bool

	// Origin says which node decided. The arithmetic leaves it at its zero value, the node that holds the bucket.
	Origin Origin

	// Limit is the strictest of the limits: the one with the longest RetryAfter when denied, otherwise the one with the
	// smallest Remaining in proportion to its burst.
	Limit Limit

	Remaining  float64       // tokens left under Limit, from 0 to its burst
	RetryAfter time.Duration // 0 when allowed, otherwise until this cost could pass; rounded up
	ResetAfter time.Duration // until the bucket is full again, under all of its limits
	Delay      time.Duration // until the request leaves a leaky bucket, or a reservation's turn comes
}

// Origin says which node made a decision, and so how exact it is.
type Origin uint8

// The origins, as they are encoded.
const (
	OriginLocal       Origin = iota // this node, which holds the bucket
	OriginRemote                    // the holder, asked over the network
	OriginLease                     // this node, from tokens that the holder set aside for it
	OriginDenialCache               // this node, by a denial of the holder's that still stands
	OriginStandby                   // a node that keeps a replica
	OriginFallback                  // this node, by its fallback policy
	OriginCount
)
