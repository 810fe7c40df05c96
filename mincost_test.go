package peerlimit_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// A limit of which no take of the smallest cost can ever pass is refused when it is made, and the error names it and what to set.
// Before, every Allow was false.
func TestLimitsThatCanNeverPassAreRefused(t *testing.T) {
	half := peerlimit.PerSecond(10).WithBurst(0.5)
	for name, c := range map[string]struct {
		limits []peerlimit.Limit
		says   []string
	}{
		"half a token":              {[]peerlimit.Limit{half}, []string{"Burst is 0.5", "at least 1", "WithMinCost"}},
		"a hair below":              {[]peerlimit.Limit{half.WithBurst(math.Nextafter(1, 0))}, []string{"Burst is 0.9999999999999999", "at least 1"}},
		"a leaky bucket":            {[]peerlimit.Limit{half.Leaky()}, []string{"Burst is 0.5"}},
		"one of two":                {[]peerlimit.Limit{peerlimit.PerHour(100), half}, []string{"limit 2 of 2", "Burst is 0.5"}},
		"below the smallest cost":   {[]peerlimit.Limit{half.WithMinCost(0.6)}, []string{"Burst is 0.5", "MinCost, 0.6"}},
		"of large costs":            {[]peerlimit.Limit{peerlimit.PerSecond(100).WithMinCost(1500)}, []string{"Burst is 100", "MinCost, 1500"}},
		"a negative smallest cost":  {[]peerlimit.Limit{half.WithMinCost(-1)}, []string{"MinCost is -1"}},
		"no number":                 {[]peerlimit.Limit{half.WithMinCost(math.NaN())}, []string{"MinCost is NaN"}},
		"an infinite smallest cost": {[]peerlimit.Limit{half.WithMinCost(math.Inf(1))}, []string{"MinCost is +Inf"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused := func(err error, says ...string) {
					t.Helper()
					require.ErrorIs(t, err, peerlimit.ErrInvalidLimit)
					for _, text := range append(says, c.says...) {
						assert.ErrorContains(t, err, text)
					}
				}
				if len(c.limits) == 1 {
					refused(c.limits[0].Validate())
				}
				_, err := peerlimit.NewBucket(c.limits...)
				refused(err)
				node := peerlimittest.NewNode(t)
				_, err = node.Limiter("static", c.limits...)
				refused(err, `limiter "static"`)
				byKey, err := node.LimiterFunc("by-key", func(_ context.Context, key string) []peerlimit.Limit {
					if key == "good" {
						made := append([]peerlimit.Limit(nil), c.limits...)
						for i := range made {
							made[i] = made[i].WithMinCost(0.01) // the same on the wire, so that the rule is known
						}
						return made
					}
					return c.limits
				})
				require.NoError(t, err)
				for range 2 {
					_, err = byKey.Take(t.Context(), "k", 1)
					refused(err, `limiter "by-key"`)
					_, err = peerlimit.TakeAll(t.Context(), peerlimit.Request{Limiter: byKey, Key: "k", Cost: 0.1})
					refused(err, "request 0", `limiter "by-key"`)
					d, err := byKey.Take(t.Context(), "good", 0.1)
					require.NoError(t, err)
					assert.True(t, d.Allowed)
				}
			})
		})
	}
}

// A limit for fractional costs says its smallest.
func TestLimitsForFractionalCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := peerlimit.PerSecond(10).WithBurst(0.5).WithMinCost(0.1)
		require.NoError(t, limit.Validate())
		bucket, err := peerlimit.NewBucket(limit)
		require.NoError(t, err)
		assert.False(t, bucket.Allow(), "one token never fits")
		assert.True(t, bucket.AllowN(0.5))

		cluster := peerlimittest.NewCluster(t, 3)
		for i, l := range cluster.Limiters("api", limit) {
			d, err := l.Take(t.Context(), "k", 0.1)
			require.NoError(t, err)
			assert.True(t, d.Allowed)
			assert.InDelta(t, 0.5-0.1*float64(i+1), d.Remaining, 0.1)
			assert.Equal(t, limit.WithMinCost(0), d.Limit)
		}
		_, err = cluster.Node(0).Limiter("api", limit.WithMinCost(0.2))
		require.NoError(t, err, "the same limit, by what is enforced")
	})
}
