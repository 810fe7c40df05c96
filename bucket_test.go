package peerlimit

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustNewBucket(t require.TestingT, limits ...Limit) *Bucket {
	b, err := NewBucket(limits...)
	require.NoError(t, err)
	return b
}

// mustTake takes cost, which must pass.
func mustTake(t require.TestingT, b *Bucket, cost float64) Decision {
	d, err := b.Take(cost)
	require.NoError(t, err)
	require.True(t, d.Allowed, "%+v", d)
	return d
}

func TestNewBucketRefusesBadLimits(t *testing.T) {
	for _, limits := range [][]Limit{
		nil,
		{{}},
		{PerSecond(1), PerSecond(-1)},
		make([]Limit, MaxLimits+1),
	} {
		b, err := NewBucket(limits...)
		assert.ErrorIs(t, err, ErrInvalidLimit)
		assert.Nil(t, b)
	}
	_, err := NewBucket(PerSecond(1), Per(3, -time.Second))
	assert.EqualError(t, err, "peerlimit: invalid limit: limit 2 of 2: Period is -1s; it must be positive")
}

func TestBucketRefusesBadCosts(t *testing.T) {
	b := mustNewBucket(t, PerSecond(10))
	full := b.Peek()
	methods := map[string]func(cost float64) error{
		"Take":    func(cost float64) error { _, err := b.Take(cost); return err },
		"WaitN":   func(cost float64) error { return b.WaitN(t.Context(), cost) },
		"Reserve": func(cost float64) error { r, err := b.Reserve(cost); assert.Nil(t, r); return err },
		"Refund":  b.Refund,
	}
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			for text, cost := range map[string]float64{"0": 0, "-1": -1, "NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1)} {
				err := method(cost)
				require.ErrorIs(t, err, ErrInvalidCost)
				assert.EqualError(t, err, "peerlimit: invalid cost: "+text+"; it must be positive and finite")
				assert.False(t, b.AllowN(cost))
			}
			assert.Equal(t, full, b.Peek(), "a wrong call takes nothing")
		})
	}
}

func TestBucketRefusesWhatCanNeverPass(t *testing.T) {
	b := mustNewBucket(t, PerMinute(100), PerSecond(10))
	_, err := b.Take(11)
	require.ErrorIs(t, err, ErrExceedsBurst)
	assert.EqualError(t, err, "peerlimit: cost exceeds burst: cost 11, burst 10: raise the burst, split the cost, or use WaitN")
	_, err = b.Reserve(10.01)
	require.ErrorIs(t, err, ErrExceedsBurst)
	assert.False(t, b.AllowN(11))
	mustTake(t, b, 10)
}

// A sum of fractions may come out a hair above the burst that it makes up on paper.
func TestBucketForgivesRoundingOfCosts(t *testing.T) {
	b := mustNewBucket(t, PerSecond(1).WithBurst(0.3).WithMinCost(0.1))
	tenth := 0.1
	assert.Greater(t, 3*tenth, 0.3)
	mustTake(t, b, 3*tenth)
}

func TestBucketTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := PerSecond(10)
		b := mustNewBucket(t, limit)
		d := mustTake(t, b, 4)
		assert.Equal(t, Decision{Allowed: true, Limit: limit, Remaining: 6, ResetAfter: 400 * time.Millisecond}, d)

		d, err := b.Take(8)
		require.NoError(t, err, "a denial is not an error")
		assert.Equal(t, Decision{Limit: limit, Remaining: 6, RetryAfter: 200 * time.Millisecond, ResetAfter: 400 * time.Millisecond}, d)

		time.Sleep(d.RetryAfter - 1)
		assert.False(t, b.AllowN(8), "a nanosecond too early")
		time.Sleep(time.Nanosecond)
		assert.True(t, b.AllowN(8))
		assert.False(t, b.Allow())
		time.Sleep(100 * time.Millisecond)
		assert.True(t, b.Allow())
	})
}

func TestBucketPeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := PerSecond(10)
		b := mustNewBucket(t, limit)
		full := Decision{Allowed: true, Limit: limit, Remaining: 10}
		assert.Equal(t, full, b.Peek())
		assert.Equal(t, full, b.Peek(), "a peek takes nothing")
		mustTake(t, b, 9.5)
		assert.Equal(t, Decision{Limit: limit, Remaining: 0.5, RetryAfter: 50 * time.Millisecond, ResetAfter: 950 * time.Millisecond}, b.Peek())
		time.Sleep(time.Second)
		assert.Equal(t, full, b.Peek())
	})
}

// A burst below one is a limit for costs below one: Allow always says no, Peek and Wait ask for the burst.
func TestBucketWithABurstBelowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(1).WithBurst(0.25).WithMinCost(0.25))
		assert.False(t, b.Allow())
		assert.True(t, b.Peek().Allowed)
		require.NoError(t, b.Wait(t.Context()))
		assert.False(t, b.Peek().Allowed)
		start := time.Now()
		require.NoError(t, b.Wait(t.Context()))
		assert.Equal(t, 250*time.Millisecond, time.Since(start))
	})
}

func TestBucketRefund(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10), PerMinute(20))
		mustTake(t, b, 10)
		require.NoError(t, b.Refund(4))
		assert.Equal(t, 4.0, b.Peek().Remaining)
		mustTake(t, b, 4)
		require.NoError(t, b.Refund(1000))
		assert.Equal(t, 10.0, mustPeekAllowed(t, b).Remaining, "never more than the burst")
		assert.Zero(t, b.Peek().ResetAfter, "under no limit")

		mustTake(t, b, 10)
		assert.False(t, b.Allow())
	})
}

func mustPeekAllowed(t require.TestingT, b *Bucket) Decision {
	d := b.Peek()
	require.True(t, d.Allowed)
	return d
}

// What is given back shortens the turns of calls that come later, not of those that have theirs.
func TestRefundLeavesTurnsAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		mustTake(t, b, 10)
		first := mustReserve(t, b, 5)
		require.NoError(t, b.Refund(5))
		assert.Equal(t, 500*time.Millisecond, first.Delay())
		assert.Equal(t, 500*time.Millisecond, mustReserve(t, b, 5).Delay())
	})
}

func TestBucketReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10), PerMinute(10))
		full := b.Peek()
		mustTake(t, b, 10)
		cancelled, turn := mustReserve(t, b, 1), mustReserve(t, b, 1)
		cancelled.Cancel()
		require.Equal(t, 1, b.state.Holes())
		b.Reset()
		assert.Equal(t, full, b.Peek())
		assert.Zero(t, b.state.Holes())
		assert.Equal(t, 12*time.Second, turn.Delay(), "reservations keep their turns")
		time.Sleep(time.Second)
		mustTake(t, b, 10)
		assert.False(t, b.Allow())
	})
}

// A bucket that was reset can come to look as it did before, within one reading of the clock. What was reserved before
// must not be given back to it.
func TestResetVoidsReservationsOfTheSameInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		before := mustReserve(t, b, 5)
		b.Reset()
		mustTake(t, b, 5)
		before.Cancel()
		assert.Equal(t, 5.0, b.Peek().Remaining)
	})
}

// However many take at once: exactly the burst passes when nothing comes in.
func TestBucketIsExactUnderConcurrency(t *testing.T) {
	const goroutines, burst = 64, 1000
	b := mustNewBucket(t, PerHour(1).WithBurst(burst))
	var admitted atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range 2 * burst / goroutines {
				if b.Allow() {
					admitted.Add(1)
				}
				b.Peek()
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, burst, admitted.Load())
}

// Everything at once: what passes stays within the burst and what the rate added in the time that it took.
func TestBucketUnderConcurrencyNeverExceedsTheLimit(t *testing.T) {
	const goroutines, rounds, perSecond, burst = 64, 40, 20_000, 100
	start := time.Now()
	b := mustNewBucket(t, PerSecond(perSecond).WithBurst(burst))
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var admitted atomic.Int64
	var all sync.WaitGroup
	for i := range goroutines {
		all.Go(func() {
			for round := range rounds {
				switch (i + round) % 5 {
				case 0:
					if b.AllowN(2) {
						admitted.Add(2)
					}
				case 1:
					if b.WaitN(ctx, 3) == nil {
						admitted.Add(3)
					}
				case 2:
					if r, err := b.Reserve(5); assert.NoError(t, err) {
						r.Cancel()
					}
				case 3:
					ended, end := context.WithTimeout(ctx, time.Duration(round)*100*time.Microsecond)
					if b.Wait(ended) == nil {
						admitted.Add(1)
					}
					end()
				default:
					b.Peek()
				}
			}
		})
	}
	all.Wait()
	assert.LessOrEqual(t, float64(admitted.Load()), burst+perSecond*time.Since(start).Seconds()+0.001)
	assert.GreaterOrEqual(t, admitted.Load(), int64(burst))
}
