package peerlimit

import (
	"fmt"
	"math"
	"time"
)

// maxCombined is the greatest number of limits that one limiter or bucket may combine.
const maxCombined = 8

// coreAlgorithm says what a limit does to requests that come faster than its rate.
type coreAlgorithm uint8

const (
	// coreTokenBucket lets a burst of up to the capacity through at once and then the rate.
	coreTokenBucket coreAlgorithm = iota

	// coreLeakyBucket lets requests leave evenly at the rate, from a queue as long as the capacity.
	coreLeakyBucket
)

// String returns "token bucket" or "leaky bucket".
func (a coreAlgorithm) String() string {
	switch a {
	case coreTokenBucket:
		return "token bucket"
	case coreLeakyBucket:
		return "leaky bucket"
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// coreLimit is a rate and a capacity: Tokens are added every Period, up to Burst. A Burst of zero means Tokens, and at
// least 1.
type coreLimit struct {
	Tokens    float64
	Period    time.Duration
	Burst     float64
	Algorithm coreAlgorithm
}

// capacity is Burst with its default filled in.
func (l coreLimit) capacity() float64 {
	if l.Burst == 0 {
		return math.Max(l.Tokens, 1)
	}
	return l.Burst
}

// minRate, in tokens per nanosecond, keeps every quotient by a rate finite. It is about a token in three million years.
const minRate = 1e-23

// problem says which field is wrong, with its value; nothing when none is. The comparisons are such that NaN fails them.
func (l coreLimit) problem() string {
	switch {
	case !(l.Tokens > 0) || math.IsInf(l.Tokens, 0):
		return fmt.Sprintf("Tokens is %v; it must be positive and finite", l.Tokens)
	case l.Period <= 0:
		return fmt.Sprintf("Period is %v; it must be positive", l.Period)
	case !(l.Burst >= 0) || math.IsInf(l.Burst, 0):
		return fmt.Sprintf("Burst is %v; it must be positive and finite, or 0 for Tokens", l.Burst)
	case l.Algorithm > coreLeakyBucket:
		return fmt.Sprintf("Algorithm is %v; it must be TokenBucket or LeakyBucket", l.Algorithm)
	case l.Tokens/float64(l.Period) < minRate:
		return fmt.Sprintf("Tokens is %v in a Period of %v; that is less than a token in a million years", l.Tokens, l.Period)
	}
	return ""
}

// problemOf says what is wrong with the limits that one limiter or bucket is made of; nothing when they are right.
func problemOf(limits []coreLimit) string {
	if len(limits) == 0 {
		return "no limits; at least one is needed (there is no \"unlimited\")"
	}
	if len(limits) > maxCombined {
		return fmt.Sprintf("%d limits; at most %d can be combined", len(limits), maxCombined)
	}
	for i := range limits {
		if problem := limits[i].problem(); problem != "" {
			if len(limits) > 1 {
				problem = fmt.Sprintf("limit %d of %d: %s", i+1, len(limits), problem)
			}
			return problem
		}
	}
	return ""
}

// validCost reports whether a cost is a positive finite number of tokens.
func validCost(cost float64) bool { return cost > 0 && !math.IsInf(cost, 1) }

// coreDecision is the answer to a take or a peek. The zero coreDecision is a denial that says nothing.
type coreDecision struct {
	// Allowed says whether the cost was taken; for a peek, whether a take of one token would pass.
	Allowed bool

	// Origin says which node decided. The arithmetic leaves it at its zero value, the node that holds the bucket.
	Origin coreOrigin

	// Limit is the strictest of the limits: the one with the longest RetryAfter when denied, otherwise the one with the
	// smallest Remaining in proportion to its burst.
	Limit coreLimit

	Remaining  float64       // tokens left under Limit, from 0 to its burst
	RetryAfter time.Duration // 0 when allowed, otherwise until this cost could pass; rounded up
	ResetAfter time.Duration // until the bucket is full again, under all of its limits
	Delay      time.Duration // until the request leaves a leaky bucket, or a reservation's turn comes
}

// coreOrigin says which node made a decision, and so how exact it is.
type coreOrigin uint8

// The origins, as they are encoded.
const (
	originLocal       coreOrigin = iota // this node, which holds the bucket
	originRemote                        // the holder, asked over the network
	originLease                         // this node, from tokens that the holder set aside for it
	originDenialCache                   // this node, by a denial of the holder's that still stands
	originStandby                       // a node that keeps a replica
	originFallback                      // this node, by its fallback policy
	originEnd
)
