package limit

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// anyMagnitude draws from 0 and all finite positive numbers, every order of magnitude as likely as the next.
func anyMagnitude() *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Custom(func(t *rapid.T) float64 {
			return math.Ldexp(rapid.Float64Range(1, 2).Draw(t, "mantissa"), rapid.IntRange(-300, 300).Draw(t, "exponent"))
		}),
		rapid.Map(rapid.IntRange(0, 1<<20), func(n int) float64 { return float64(n) }),
		rapid.Float64Range(0, 2),
		rapid.SampledFrom([]float64{0, 0.1, 0.2, 0.3, 1.0 / 3, 1e-9, 1e9, 1 << 53, 1<<53 - 1}),
	)
}

// oneUlp is the distance from f to its upper neighbour.
func oneUlp(f float64) *big.Rat {
	f = math.Abs(f)
	return new(big.Rat).Sub(exact(math.Nextafter(f, math.Inf(1))), exact(f))
}

// smallestProduct is below the product of the lowest rate and a nanosecond, and above where errors underflow.
const smallestProduct = 1e-100

func TestRoundingErrsToOneSide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyMagnitude().Draw(t, "a"), anyMagnitude().Draw(t, "b")
		ra, rb := exact(a), exact(b)

		requireRoundedUp(t, "addUp", new(big.Rat).Add(ra, rb), AddUp(a, b))
		requireRoundedUp(t, "subUp", new(big.Rat).Sub(ra, rb), SubUp(a, b))
		if product := a * b; product == 0 || product > smallestProduct {
			requireRoundedDown(t, "mulDown", new(big.Rat).Mul(ra, rb), mulDown(a, b))
		}
		if b > smallestProduct && (a == 0 || a > smallestProduct) {
			requireRoundedDown(t, "divDown", new(big.Rat).Quo(ra, rb), divDown(a, b))
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "n")
		requireRoundedDown(t, "nanosDown", new(big.Rat).SetInt64(n), nanosDown(n))
	})
}

// requireRoundedUp demands the exact result where it can be represented and otherwise its upper neighbour, or the one
// above.
func requireRoundedUp(t *rapid.T, name string, want *big.Rat, got float64) {
	if f, representable := want.Float64(); representable {
		require.Equal(t, f, got, "%s of an exact result", name)
		return
	}
	diff := new(big.Rat).Sub(exact(got), want)
	require.Positive(t, diff.Sign(), "%s is too low", name)
	require.Less(t, diff.Cmp(oneUlp(got)), 1, "%s is more than an ulp too high", name)
}

func requireRoundedDown(t *rapid.T, name string, want *big.Rat, got float64) {
	if f, representable := want.Float64(); representable {
		require.Equal(t, f, got, "%s of an exact result", name)
		return
	}
	diff := new(big.Rat).Sub(want, exact(got))
	require.Positive(t, diff.Sign(), "%s is too high", name)
	require.Less(t, diff.Cmp(oneUlp(got)), 1, "%s is more than an ulp too low", name)
}

func TestRoundingAtTheEndOfTheNumbers(t *testing.T) {
	most := math.MaxFloat64
	assert.True(t, math.IsInf(AddUp(most, most), 1))
	assert.True(t, math.IsInf(AddUp(most, 1), 1))
	assert.Equal(t, most, mulDown(most, 2))
	assert.Equal(t, most, divDown(most, 0.5))
	assert.Zero(t, SubUp(most, most))
	assert.Equal(t, float64(1<<63-1<<10), nanosDown(math.MaxInt64))
	assert.Equal(t, float64(1<<53), nanosDown(1<<53+1))
}

func TestDrain(t *testing.T) {
	tests := []struct {
		name    string
		limit   Limit
		level   float64
		elapsed time.Duration
		want    float64
	}{
		{"half the time", perSecond(10), 10, 500 * time.Millisecond, 5},
		{"all the time", perSecond(10), 10, time.Second, 0},
		{"never below zero", perSecond(10), 10, time.Hour, 0},
		{"a nanosecond", perSecond(1e9), 10, 1, 9},
		{"no time", perSecond(10), 10, 0, 10},
		{"time that went back", perSecond(10), 10, -time.Hour, 10},
		{"nothing to drain", perSecond(10), 0, time.Hour, 0},
		{"above the burst", perSecond(10), 25, time.Second, 15},
		{"a day", per(1, 24*time.Hour), 1, 12 * time.Hour, 0.5},
		{"years", per(1, 24*time.Hour), 1, 290 * 365 * 24 * time.Hour, 0},
		{"more nanoseconds than a float64 can count", per(1, 1), 1 << 54, 1<<53 + 3, 1<<53 - 2},
		{"too little to see", per(1, 24*time.Hour), 1 << 60, 1, 1 << 60},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMeter(test.limit)
			assert.Equal(t, test.want, m.drain(test.level, int64(test.elapsed)))
		})
	}
}

// A period that a float64 cannot hold must not be taken for a shorter one.
func TestPeriodIsRoundedUp(t *testing.T) {
	for _, period := range []time.Duration{1<<53 + 1, 1<<60 + 1, math.MaxInt64 - 1} {
		m := newMeter(per(1, period))
		assert.Positive(t, m.drain(1, int64(period)-1), "%v", period)
	}
}

func TestNanosIsHowLongTokensTakeToDrain(t *testing.T) {
	tests := []struct {
		limit  Limit
		tokens float64
		want   time.Duration
	}{
		{perSecond(10), 1, 100 * time.Millisecond},
		{perSecond(3), 1, 333333334},
		{perSecond(10), 0, 0},
		{perSecond(10), -1, 0},
		{perSecond(1e9), 0.5, 1},
		{per(1, math.MaxInt64), 1, math.MaxInt64},
		{per(1, math.MaxInt64), 2, math.MaxInt64},
		{perHour(1), math.MaxFloat64, math.MaxInt64},
		{perHour(1), math.Inf(1), math.MaxInt64},
		{perSecond(math.MaxFloat64), math.MaxFloat64, time.Second},
	}
	for _, test := range tests {
		m := newMeter(test.limit)
		assert.Equal(t, test.want, m.nanos(test.tokens), "%v of %v", test.tokens, test.limit)
	}
}

func TestCeilingIsAHairAboveTheBurst(t *testing.T) {
	for _, burst := range []float64{math.SmallestNonzeroFloat64, 0.1, 0.5, 1, 3, 1e9, 1e308, math.MaxFloat64} {
		l := withBurst(perSecond(1), burst)
		m := newMeter(l)
		assert.GreaterOrEqual(t, m.ceiling, burst)
		require.False(t, math.IsInf(m.ceiling, 1), "an infinite ceiling is no limit")
		assert.LessOrEqual(t, exact(m.ceiling).Cmp(exactCeiling(l)), 0)
	}
}
