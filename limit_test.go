package peerlimit

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/limit"
)

func TestLimitConstructors(t *testing.T) {
	assert.Equal(t, Limit{Tokens: 5, Period: 2 * time.Second}, Per(5, 2*time.Second))
	assert.Equal(t, Limit{Tokens: 5, Period: time.Second}, PerSecond(5))
	assert.Equal(t, Limit{Tokens: 5, Period: time.Minute}, PerMinute(5))
	assert.Equal(t, Limit{Tokens: 5, Period: time.Hour}, PerHour(5))
	assert.Equal(t, Limit{Tokens: 5, Period: time.Second, Burst: 7}, PerSecond(5).WithBurst(7))
	assert.Equal(t, PerSecond(5), PerSecond(5).WithBurst(7).WithBurst(0))
	assert.Equal(t, Limit{Tokens: 5, Period: time.Second, Burst: 7, Algorithm: LeakyBucket}, PerSecond(5).WithBurst(7).Leaky())
}

func TestLimitCapacity(t *testing.T) {
	assert.Equal(t, 5.0, perSecond(5).Capacity())
	assert.Equal(t, 1.0, perSecond(0.01).Capacity(), "at least one token by default, or nothing could ever pass")
	assert.Equal(t, 0.5, withBurst(perSecond(5), 0.5).Capacity())
}

func TestLimitString(t *testing.T) {
	assert.Equal(t, "100 per 1m0s, burst 20", PerMinute(100).WithBurst(20).String())
	assert.Equal(t, "5 per 1s, burst 5, leaky bucket", PerSecond(5).Leaky().String())
	assert.Equal(t, "0.5 per 1s, burst 1, Algorithm(7)", Limit{Tokens: 0.5, Period: time.Second, Algorithm: 7}.String())
	assert.Equal(t, "token bucket", TokenBucket.String())
}

func TestValidLimits(t *testing.T) {
	for _, l := range []Limit{
		PerSecond(1),
		Per(1, 1),
		Per(1, math.MaxInt64),
		Per(1, 24*time.Hour),
		PerSecond(1e7).WithBurst(0.5).WithMinCost(0.5),
		PerSecond(1).WithBurst(math.SmallestNonzeroFloat64).WithMinCost(math.SmallestNonzeroFloat64),
		PerSecond(math.MaxFloat64),
		PerSecond(1).WithBurst(math.MaxFloat64).Leaky(),
	} {
		assert.NoError(t, l.Validate(), "%v", l)
	}
}

func TestInvalidLimits(t *testing.T) {
	tests := []struct {
		name  string
		limit Limit
		says  []string // the field and its value
	}{
		{"the zero limit", Limit{}, []string{"Tokens", "0"}},
		{"no tokens", PerSecond(0), []string{"Tokens", "0"}},
		{"negative tokens", PerSecond(-3), []string{"Tokens", "-3"}},
		{"NaN tokens", PerSecond(math.NaN()), []string{"Tokens", "NaN"}},
		{"infinite tokens", PerSecond(math.Inf(1)), []string{"Tokens", "+Inf"}},
		{"tokens next to nothing", PerSecond(math.SmallestNonzeroFloat64), []string{"Tokens", "5e-324", "1s"}},
		{"no period", Per(5, 0), []string{"Period", "0s"}},
		{"negative period", Per(5, -time.Minute), []string{"Period", "-1m0s"}},
		{"negative burst", PerSecond(5).WithBurst(-1), []string{"Burst", "-1"}},
		{"NaN burst", PerSecond(5).WithBurst(math.NaN()), []string{"Burst", "NaN"}},
		{"infinite burst", PerSecond(5).WithBurst(math.Inf(1)), []string{"Burst", "+Inf"}},
		{"unknown algorithm", Limit{Tokens: 1, Period: 1, Algorithm: 2}, []string{"Algorithm", "2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.limit.Validate()
			require.ErrorIs(t, err, ErrInvalidLimit)
			for _, s := range test.says {
				assert.ErrorContains(t, err, s)
			}
			assert.True(t, strings.HasPrefix(err.Error(), "peerlimit: "), err.Error())
		})
	}
}

func TestInvalidSetsOfLimits(t *testing.T) {
	err := validateLimits(nil)
	require.ErrorIs(t, err, ErrInvalidLimit)
	assert.ErrorContains(t, err, "no limits")

	err = validateLimits(make([]Limit, MaxLimits+1))
	require.ErrorIs(t, err, ErrInvalidLimit)
	assert.ErrorContains(t, err, "9 limits; at most 8")

	err = validateLimits([]Limit{PerSecond(1), PerSecond(-2), PerSecond(3)})
	require.ErrorIs(t, err, ErrInvalidLimit)
	assert.ErrorContains(t, err, "limit 2 of 3")
	assert.ErrorContains(t, err, "Tokens is -2")
	assert.True(t, strings.HasPrefix(err.Error(), "peerlimit: "), err.Error())

	assert.NoError(t, validateLimits([]Limit{PerSecond(1), PerSecond(1)}), "twice the same is harmless")
}

func TestValidateCost(t *testing.T) {
	for _, cost := range []float64{math.SmallestNonzeroFloat64, 1e-9, 1, math.MaxFloat64} {
		assert.NoError(t, validateCost(cost))
	}
	for cost, text := range map[float64]string{0: "0", -1: "-1", math.Inf(1): "+Inf", math.Inf(-1): "-Inf"} {
		err := validateCost(cost)
		require.ErrorIs(t, err, ErrInvalidCost)
		assert.ErrorContains(t, err, text)
	}
	err := validateCost(math.NaN())
	require.ErrorIs(t, err, ErrInvalidCost)
	assert.ErrorContains(t, err, "NaN")
}

func TestDecisionErr(t *testing.T) {
	assert.NoError(t, Decision{Allowed: true}.Err())

	d := Decision{Limit: PerMinute(5), RetryAfter: 1500 * time.Millisecond}
	err := fmt.Errorf("sending mail: %w", d.Err())
	require.ErrorIs(t, err, ErrLimited)
	var limited *LimitedError
	require.ErrorAs(t, err, &limited)
	assert.Equal(t, d, limited.Decision)
	assert.EqualError(t, d.Err(), "peerlimit: limited by 5 per 1m0s, burst 5: retry after 1.5s")

	for _, other := range []error{ErrInvalidLimit, ErrInvalidCost, ErrExceedsBurst, ErrClosed} {
		assert.False(t, errors.Is(err, other), "%v is not %v", err, other)
	}
	assert.Error(t, Decision{}.Err(), "the zero Decision is a denial")
}

func TestOriginNames(t *testing.T) {
	assert.Equal(t, OriginLocal, Decision{}.Origin)
	for origin, name := range map[Origin]string{
		OriginLocal: "local", OriginRemote: "remote", OriginLease: "lease", OriginDenialCache: "denial-cache",
		OriginStandby: "standby", OriginFallback: "fallback", Origin(limit.OriginCount): "Origin(6)",
	} {
		assert.Equal(t, name, origin.String())
	}
}
