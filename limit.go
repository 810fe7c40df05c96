package peerlimit

import (
	"fmt"
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

	// Burst is the capacity in tokens. Zero means Tokens, and at least 1; otherwise it is positive and finite.
	Burst float64

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
// every Period/Tokens. WithBurst(0) restores the default.
func (l Limit) WithBurst(tokens float64) Limit {
	l.Burst = tokens
	return l
}

// Leaky returns the same numbers as a leaky bucket.
func (l Limit) Leaky() Limit {
	l.Algorithm = LeakyBucket
	return l
}

// Validate returns nil or an error that matches [ErrInvalidLimit] and names the field and its value.
func (l Limit) Validate() error {
	if problem := l.core().Problem(); problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalidLimit, problem)
	}
	return nil
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

// validateLimits checks what one limiter or bucket is made of.
func validateLimits(limits []limit.Limit) error {
	if problem := limit.ProblemOf(limits); problem != "" {
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
