package peerlimit

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// MaxLimits is the greatest number of limits that one limiter or bucket may combine.
const MaxLimits = limit.MaxCombined

// Algorithm says what a limit does to requests that come faster than its rate.
type Algorithm uint8

const (
	// TokenBucket lets a burst of up to the capacity through at once and then the rate. It is the zero value.
	TokenBucket Algorithm = iota

	// LeakyBucket lets requests leave evenly at the rate: a take that passes says in [Decision.Delay] when its request
	// leaves the bucket; the capacity is the length of the queue, in tokens.
	LeakyBucket
)

// String returns "token bucket" or "leaky bucket".
func (a Algorithm) String() string {
	return limit.Algorithm(a).String()
}

// Limit is a rate and a capacity: Tokens are added every Period, continuously and not in steps, up to Burst. The zero
// Limit is not valid; a limit that never allows anything cannot be expressed.
type Limit struct {
	// Tokens is how many tokens are added every Period: positive and finite, fractions allowed. Less than about a token in
	// three million years is refused.
	Tokens float64

	// Period is the time in which Tokens are added: positive. Per(1, time.Second) and Per(60, time.Minute) have the same
	// rate and differ in their default burst.
	Period time.Duration

	// Burst is the capacity in tokens. Zero means Tokens, and at least 1; otherwise it is finite and at least MinCost, or else no
	// take could ever pass.
	Burst float64

	// MinCost is the smallest cost of a take, in tokens: positive and finite. Zero means 1. A limit whose Burst is below 1 is for
	// fractional costs, and says here how small they are. MinCost is compared with Burst when a limiter is made, and has no other
	// effect: smaller costs are not refused, members may differ in it, and it is zero in the Limit of a [Decision].
	MinCost float64

	// Algorithm is TokenBucket (the zero value) or LeakyBucket.
	Algorithm Algorithm
}

// Per returns a token bucket of tokens per period with a burst of the same number of tokens, at least 1.
func Per(tokens float64, period time.Duration) Limit { return Limit{Tokens: tokens, Period: period} }

// PerSecond is [Per] with a period of a second.
func PerSecond(tokens float64) Limit { return Per(tokens, time.Second) }

// PerMinute is [Per] with a period of a minute.
func PerMinute(tokens float64) Limit { return Per(tokens, time.Minute) }

// PerHour is [Per] with a period of an hour.
func PerHour(tokens float64) Limit { return Per(tokens, time.Hour) }

// WithBurst returns the same limit with another capacity, in tokens. WithBurst(1) paces evenly: one request of cost 1
// every Period/Tokens. Less than 1 is refused without WithMinCost. WithBurst(0) restores the default.
func (l Limit) WithBurst(tokens float64) Limit {
	l.Burst = tokens
	return l
}

// WithMinCost returns the same limit for takes of at least that cost, in tokens, which Burst must not be below.
// WithBurst(0.5).WithMinCost(0.1) is for fractional costs. WithMinCost(0) restores the default, 1.
func (l Limit) WithMinCost(tokens float64) Limit {
	l.MinCost = tokens
	return l
}

// Leaky returns the same numbers as a leaky bucket.
func (l Limit) Leaky() Limit {
	l.Algorithm = LeakyBucket
	return l
}

// Validate returns nil or an error that matches [ErrInvalidLimit] and names the field and its value.
func (l Limit) Validate() error {
	return validateLimits([]Limit{l})
}

// usable reports whether a take of the smallest cost can ever pass.
func (l Limit) usable() bool {
	return l.MinCost >= 0 && l.core().Capacity() >= cmp.Or(l.MinCost, 1)
}

// unusable says why a limit that is valid otherwise is not usable.
func (l Limit) unusable() string {
	burst := l.core().Capacity()
	switch {
	case !(l.MinCost >= 0) || math.IsInf(l.MinCost, 0):
		return fmt.Sprintf("MinCost is %v; it must be positive and finite, or 0 for 1", l.MinCost)
	case l.MinCost > 0:
		return fmt.Sprintf("Burst is %v; it must be at least MinCost, %v, or no take can ever pass", burst, l.MinCost)
	}
	return fmt.Sprintf("Burst is %v; it must be at least 1, or no take of one token can ever pass; for smaller costs set the smallest by WithMinCost", burst)
}

// String returns, for example, "100 per 1m0s, burst 20" or "5 per 1s, burst 5, leaky bucket".
func (l Limit) String() string {
	s := fmt.Sprintf("%v per %v, burst %v", l.Tokens, l.Period, l.core().Capacity())
	if l.Algorithm != TokenBucket {
		s += ", " + l.Algorithm.String()
	}
	return s
}

// core returns the limit as the arithmetic has it.
func (l Limit) core() limit.Limit {
	return limit.Limit{Tokens: l.Tokens, Period: l.Period, Burst: l.Burst, Algorithm: limit.Algorithm(l.Algorithm)}
}

// limitOf is the inverse of Limit.core.
func limitOf(l limit.Limit) Limit {
	return Limit{Tokens: l.Tokens, Period: l.Period, Burst: l.Burst, Algorithm: Algorithm(l.Algorithm)}
}

// coreLimits appends limits to some as the arithmetic has them.
func coreLimits(some []limit.Limit, limits []Limit) []limit.Limit {
	for _, l := range limits {
		some = append(some, l.core())
	}
	return some
}

// limitsOf returns limits as users have them.
func limitsOf(limits []limit.Limit) []Limit {
	made := make([]Limit, len(limits))
	for i, l := range limits {
		made[i] = limitOf(l)
	}
	return made
}

// problemOf says what is wrong with what one limiter or bucket is made of; nothing when it is right.
func problemOf(limits []Limit) string {
	problem := limit.ProblemOf(coreLimits(nil, limits))
	if i := slices.IndexFunc(limits, func(l Limit) bool { return !l.usable() }); i >= 0 && problem == "" {
		if problem = limits[i].unusable(); len(limits) > 1 {
			problem = fmt.Sprintf("limit %d of %d: %s", i+1, len(limits), problem)
		}
	}
	return problem
}

// validateLimits refuses what no limiter or bucket can be made of.
func validateLimits(limits []Limit) error {
	if problem := problemOf(limits); problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalidLimit, problem)
	}
	return nil
}

// validateCost refuses a cost that is not a positive finite number of tokens.
func validateCost(cost float64) error {
	if !limit.ValidCost(cost) {
		return fmt.Errorf("%w: %v; it must be positive and finite", ErrInvalidCost, cost)
	}
	return nil
}
