package peerlimit

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func mustReserve(t require.TestingT, b *Bucket, cost float64) *Reservation {
	r, err := b.Reserve(cost)
	require.NoError(t, err)
	return r
}

func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		r := mustReserve(t, b, 10)
		assert.Zero(t, r.Delay())
		r = mustReserve(t, b, 5)
		assert.Equal(t, 500*time.Millisecond, r.Delay())
		assert.Equal(t, Decision{
			Allowed: true, Limit: PerSecond(10), Delay: 500 * time.Millisecond, ResetAfter: 1500 * time.Millisecond,
		}, r.Decision())
		time.Sleep(200 * time.Millisecond)
		assert.Equal(t, 300*time.Millisecond, r.Delay(), "from now")
		assert.Equal(t, 500*time.Millisecond, r.Decision().Delay, "as it was")
		time.Sleep(time.Second)
		assert.Zero(t, r.Delay())
	})
}

func TestCancelGivesEverythingBackWhenNothingIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(3).WithBurst(7), PerMinute(50))
		mustTake(t, b, 0.1)
		time.Sleep(123456789)
		before := b.state.Clone()
		for _, cost := range []float64{1, 6.5, 7} {
			r := mustReserve(t, b, cost)
			assert.False(t, b.AllowN(7), "a denial is not behind it")
			b.Peek()
			r.Cancel()
			assert.Equal(t, before, b.state, "bit for bit")
		}
	})
}

func TestACancelledTurnWithAnotherBehindItIsTheNextCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		mustTake(t, b, 10)
		first, second := mustReserve(t, b, 2), mustReserve(t, b, 3)
		before := b.Peek()
		first.Cancel()
		assert.Equal(t, before, b.Peek())
		assert.Equal(t, 500*time.Millisecond, second.Delay(), "its turn stays")
		third := mustReserve(t, b, 1)
		assert.Equal(t, 200*time.Millisecond, third.Delay(), "half of the turn that was given up")
		assert.Equal(t, 700*time.Millisecond, mustReserve(t, b, 2).Delay(), "the other half is too small")
		third.Cancel()
		assert.Equal(t, 200*time.Millisecond, mustReserve(t, b, 2).Delay(), "all of it again")
	})
}

// Ten turns are reserved, one a second, and the first nine are cancelled: the next caller has the first of those.
func TestNineOfTenTurnsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(1))
		mustTake(t, b, 1)
		var turns []*Reservation
		for range 10 {
			turns = append(turns, mustReserve(t, b, 1))
		}
		for _, r := range turns[:9] {
			r.Cancel()
		}
		for second := range 9 {
			assert.Equal(t, time.Duration(second+1)*time.Second, mustReserve(t, b, 1).Delay())
		}
		assert.Equal(t, 11*time.Second, mustReserve(t, b, 1).Delay(), "behind the tenth, which keeps its turn")
	})
}

// However many turns were reserved, and in whatever order they are cancelled: when all are, the bucket is as it was.
func TestCancellingAllTurnsLeavesAFullBucket(t *testing.T) {
	for _, order := range []string{"first to last", "last to first", "any"} {
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, PerSecond(100).WithBurst(1))
			mustTake(t, b, 1)
			before := b.state.Clone()
			turns := make([]*Reservation, 5000)
			for i := range turns {
				turns[i] = mustReserve(t, b, 1)
			}
			switch order {
			case "last to first":
				slices.Reverse(turns)
			case "any":
				random := rand.New(rand.NewPCG(1, 1))
				random.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
			}
			for _, r := range turns {
				r.Cancel()
			}
			assert.Equal(t, before, b.state, order)
		})
	}
}

func TestCancelBehindATake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		r := mustReserve(t, b, 4)
		mustTake(t, b, 1)
		r.Cancel()
		assert.Equal(t, 5.0, b.Peek().Remaining, "the take is behind it")
	})
}

func TestCancelTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		r := mustReserve(t, b, 4)
		r.Cancel()
		mustReserve(t, b, 4) // the bucket is as it was when r was made
		r.Cancel()
		assert.Equal(t, 6.0, b.Peek().Remaining)
	})
}

func TestCancelAfterTheTurnCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).WithBurst(20))
		mustTake(t, b, 20)
		before := b.state.Clone()
		r := mustReserve(t, b, 10)
		time.Sleep(1500 * time.Millisecond)
		r.Cancel()
		assert.Equal(t, before, b.state)
		assert.Equal(t, 15.0, b.Peek().Remaining, "as if it had never been")
	})
}

func TestCancelOfALeakyReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).Leaky())
		mustTake(t, b, 2)
		before := b.state.Clone()
		first, second := mustReserve(t, b, 3), mustReserve(t, b, 1)
		assert.Equal(t, 200*time.Millisecond, first.Delay())
		assert.Equal(t, 500*time.Millisecond, second.Delay())
		first.Cancel()
		second.Cancel()
		assert.Equal(t, before, b.state)
	})
}

// However many wait, and in whatever order they give up: when all have, everything is back.
func TestAllWaitersGiveUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := rapid.SampledFrom([][]Limit{
			{PerSecond(1).WithBurst(5)},
			{PerSecond(1).WithBurst(5), PerHour(10)},
			{PerSecond(1).WithBurst(100).Leaky()},
		}).Draw(rt, "limits")
		costs := rapid.SliceOfN(rapid.Float64Range(0.1, 5), 1, 20).Draw(rt, "costs")
		seed := rapid.Uint64().Draw(rt, "seed")
		random := rand.New(rand.NewPCG(seed, seed))
		var before, after limit.State
		var errs []error
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, limits...)
			mustTake(t, b, 5)
			before = b.state.Clone()
			var w waiters
			var giveUp []context.CancelFunc
			for who, cost := range costs {
				ctx, cancel := context.WithCancel(t.Context())
				giveUp = append(giveUp, cancel)
				w.start(who, time.Now(), func() error { return b.WaitN(ctx, cost) })
				time.Sleep(time.Millisecond)
			}
			random.Shuffle(len(giveUp), func(i, j int) { giveUp[i], giveUp[j] = giveUp[j], giveUp[i] })
			for _, cancel := range giveUp {
				cancel()
				synctest.Wait()
				time.Sleep(time.Millisecond)
			}
			after = b.state.Clone()
			for _, r := range w.soFar() {
				errs = append(errs, r.err)
			}
			assert.Zero(t, b.state.Waiting())
		})
		require.Len(rt, errs, len(costs))
		for _, err := range errs {
			require.ErrorIs(rt, err, context.Canceled)
		}
		require.Equal(rt, before, after)
	})
}

// Cancelled reservations are remembered while others stand behind them: not forever, and not without end.
func TestWhatIsRememberedOfCancelledReservationsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		mustTake(t, b, 10)
		const turns = limit.MaxHoles + 1000
		var cancelled []*Reservation
		for range turns {
			cancelled = append(cancelled, mustReserve(t, b, 1))
		}
		mustReserve(t, b, 1)
		for _, r := range cancelled {
			r.Cancel()
		}
		assert.Equal(t, limit.MaxHoles, b.state.Holes())

		time.Sleep((turns + 100) * time.Second / 10) // all turns have come
		first := mustReserve(t, b, 10)
		mustReserve(t, b, 1)
		first.Cancel()
		assert.Less(t, b.state.Holes(), 300)
	})
}

// A leaky bucket says when its requests leave; until then a cancelled one is remembered.
func TestLeakyReservationsAreRememberedUntilTheyLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).Leaky())
		first, second := mustReserve(t, b, 2), mustReserve(t, b, 2)
		full := limit.NewState(b.set, 0)
		time.Sleep(100 * time.Millisecond)
		first.Cancel()
		second.Cancel()
		assert.Equal(t, full, b.state)
	})
}
