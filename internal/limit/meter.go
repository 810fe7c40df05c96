package limit

import (
	"math"
	"math/bits"
	"time"
)

// The arithmetic of limits. Everything here is pure: the time is passed in and nothing is locked.
//
// A meter counts what was taken and has not drained yet, the level. The level drains at the limit's rate, never below
// zero; a take of c passes when level + c <= burst. That is the generic cell rate algorithm (ITU-T I.371) in its
// leaky-bucket form; a token bucket is its mirror image, tokens = burst - level. Zero is a full token bucket, so a
// drained bucket carries no information.
//
// No sequence of takes may get more than burst + rate*w in a window w, however many there are and however small each
// is. Floating-point rounding must therefore err to one side: what is added to a level is rounded up, what drains is
// rounded down. Results that can be represented exactly stay exact.
//
// Because of that rounding a level can stand a hair above what it is on paper, and a take that should just fit would be
// refused. The ceiling allows for it: a relative 2^-36, some 65,000 roundings, once per bucket and not once per take.

// meter is a limit prepared for arithmetic. It is immutable.
type meter struct {
	// The rate is tokens/period, in tokens per nanosecond. Both are scaled by 2^-64, which changes no result and keeps the
	// products of the greatest finite limits finite.
	tokens float64
	period float64

	burst   float64 // capacity
	ceiling float64 // burst and the allowance for rounding
	leaky   bool
}

const roundingAllowance = 1.0 / (1 << 36)

func newMeter(l Limit) meter {
	const scale = 1.0 / (1 << 64)
	period := float64(l.Period)
	if l.Period > 1<<53 {
		period = math.Nextafter(period, math.Inf(1)) // it may have been rounded down, to a higher rate
	}
	burst := l.Capacity()
	return meter{
		tokens:  l.Tokens * scale,
		period:  period * scale,
		burst:   burst,
		ceiling: math.Min(burst+burst*roundingAllowance, math.MaxFloat64), // an infinite one would be no limit
		leaky:   l.Algorithm == LeakyBucket,
	}
}

// drain returns what is left of level after elapsed nanoseconds, rounded up.
func (m *meter) drain(level float64, elapsed int64) float64 {
	if level <= 0 || elapsed <= 0 {
		return level
	}
	left := SubUp(level, divDown(mulDown(nanosDown(elapsed), m.tokens), m.period))
	if left <= 0 {
		return 0
	}
	return left
}

// room returns the nanoseconds, rounded up, until a take of cost fits on top of what level, as it was elapsed nanoseconds
// ago, has drained to: 0 when it fits now. It is never too early: the same sum is within the ceiling after that time.
func (m *meter) room(level float64, elapsed int64, cost float64) time.Duration {
	after := AddUp(m.drain(level, elapsed), cost)
	if after <= m.ceiling {
		return 0
	}
	wait := m.nanos(after - m.burst)
	if elapsed < 0 { // a clock that went back must catch up before anything drains
		wait = AddNanos(wait, time.Duration(-elapsed))
	}
	// The quotient may be rounded down by an ulp that is worth more than a nanosecond; each step is twice the last.
	for step := time.Duration(1); wait < math.MaxInt64/2 && AddUp(m.drain(level, elapsed+int64(wait)), cost) > m.ceiling; step *= 2 {
		wait += step
	}
	return wait
}

// roomBeside is room for a level as it is now, where some tokens are set aside: they drain only from the end of that on.
// It makes no difference to when there is room, unless the level would be zero before.
func (m *meter) roomBeside(out LeasedOut, level, cost float64) time.Duration {
	wait := m.room(AddUp(level, out.Tokens), 0, cost)
	if m.nanos(level) >= min(wait, out.ends) {
		return wait
	}
	return max(wait, AddNanos(out.ends, m.room(out.Tokens, 0, cost)))
}

// nanos returns how long it takes to drain tokens, rounded up and at most [math.MaxInt64].
func (m *meter) nanos(tokens float64) time.Duration {
	if tokens <= 0 {
		return 0
	}
	n := math.Ceil(tokens * m.period / m.tokens)
	if !(n < math.MaxInt64) { // also when the product overflowed to +Inf
		return math.MaxInt64
	}
	return time.Duration(n)
}

// AddNanos returns a + b for a, b >= 0, at most [math.MaxInt64].
func AddNanos(a, b time.Duration) time.Duration { return a + min(b, math.MaxInt64-a) }

// nanosDown converts n >= 0 to float64, rounding down.
func nanosDown(n int64) float64 {
	if excess := bits.Len64(uint64(n)) - 53; excess > 0 { // more bits than a float64 has
		n &^= 1<<excess - 1
	}
	return float64(n)
}

// AddUp returns a + b rounded up, for a, b >= 0. The error of a sum is itself a float64 (Knuth, TAOCP 4.2.2, theorem B).
func AddUp(a, b float64) float64 {
	sum := a + b
	bb := sum - a
	if lost := (a - (sum - bb)) + (b - bb); lost > 0 {
		return math.Nextafter(sum, math.Inf(1))
	}
	return sum
}

// SubUp returns a - b rounded up.
func SubUp(a, b float64) float64 {
	diff := a - b
	bb := diff - a
	if lost := (a - (diff - bb)) + (-b - bb); lost > 0 {
		return math.Nextafter(diff, math.Inf(1))
	}
	return diff
}

// mulDown returns a * b rounded down, for a, b >= 0. A fused multiply-add yields the exact error of a product, unless it
// underflows; MinRate keeps all products far from that.
func mulDown(a, b float64) float64 {
	product := a * b
	if math.FMA(a, b, -product) < 0 {
		return math.Nextafter(product, 0)
	}
	return product
}

// divDown returns a / b rounded down, for a >= 0 and b > 0.
func divDown(a, b float64) float64 {
	quotient := a / b
	if math.FMA(quotient, b, -a) > 0 {
		return math.Nextafter(quotient, 0)
	}
	return quotient
}
