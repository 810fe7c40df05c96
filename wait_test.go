package peerlimit

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// waiters collects which callers returned from waiting, when, and with what.
type waiters struct {
	mu   sync.Mutex // guards done
	done []returned
}

type returned struct {
	who int
	in  time.Duration // since the test began
	err error
}

// start begins to wait in a goroutine of its own and returns when it waits.
func (w *waiters) start(who int, began time.Time, wait func() error) {
	go func() {
		err := wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.done = append(w.done, returned{who, time.Since(began), err})
	}()
	synctest.Wait()
}

// soFar returns those that have returned.
func (w *waiters) soFar() []returned {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.done)
}

func TestWaitIsNeverEarlyAndFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).WithBurst(2))
		var w waiters
		began := time.Now()
		for who := range 6 {
			w.start(who, began, func() error { return b.Wait(t.Context()) })
		}
		time.Sleep(50 * time.Millisecond)
		w.start(6, began, func() error { return b.WaitN(t.Context(), 2) })
		w.start(7, began, func() error { return b.Wait(t.Context()) }) // cheaper, but later
		assert.False(t, b.AllowN(0.1), "no call overtakes those that wait")
		time.Sleep(time.Minute)

		ms := time.Millisecond
		assert.Equal(t, []returned{
			{0, 0, nil}, {1, 0, nil}, {2, 100 * ms, nil}, {3, 200 * ms, nil}, {4, 300 * ms, nil}, {5, 400 * ms, nil},
			{6, 600 * ms, nil}, {7, 700 * ms, nil},
		}, w.soFar())
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(1))
		mustTake(t, b, 1)
		before := b.state
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(300*time.Millisecond, cancel)
		start := time.Now()
		err := b.Wait(ctx)
		require.ErrorIs(t, err, context.Canceled)
		assert.NotErrorIs(t, err, ErrLimited)
		assert.Equal(t, 300*time.Millisecond, time.Since(start))
		assert.Equal(t, before, b.state, "as if it had never waited")
	})
}

func TestWaitWithAContextThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(1))
		full := b.Peek()
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.Wait(cancelled), context.Canceled)
		expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		require.ErrorIs(t, b.Wait(expired), context.DeadlineExceeded)
		assert.Equal(t, full, b.Peek(), "nothing is taken")
	})
}

func TestWaitFailsAtOnceWhenItWouldOutlastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := PerSecond(10)
		b := mustNewBucket(t, limit)
		mustTake(t, b, 10)
		before := b.Peek()
		ctx, cancel := context.WithTimeout(t.Context(), 199*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := b.WaitN(ctx, 2)
		assert.Zero(t, time.Since(start), "at once")
		require.ErrorIs(t, err, ErrLimited)
		var limited *LimitedError
		require.ErrorAs(t, err, &limited)
		assert.Equal(t, 200*time.Millisecond, limited.Decision.RetryAfter)
		assert.Equal(t, limit, limited.Decision.Limit)
		assert.Equal(t, before, b.Peek(), "nothing is spent")
		require.NoError(t, b.Wait(ctx), "a shorter wait is in time")
	})
}

// The turn comes at the very instant of the deadline: that is in time, whichever of the timers is looked at first.
func TestWaitUntilExactlyTheDeadline(t *testing.T) {
	for range 30 { // select picks at random
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, PerSecond(10).WithBurst(1))
			mustTake(t, b, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			require.NoError(t, b.Wait(ctx))
			assert.False(t, b.Allow(), "it was taken")
		})
	}
}

// tardyContext has ended already, and takes its time to say so.
type tardyContext struct {
	context.Context
	pause time.Duration
}

func (c tardyContext) Done() <-chan struct{} {
	time.Sleep(c.pause)
	return c.Context.Done()
}

// A caller that looks only after its turn has come, and after its context has ended, has the turn.
func TestTurnThatHasComeIsNotGivenUp(t *testing.T) {
	for range 30 { // select picks at random
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, PerSecond(10).WithBurst(1))
			mustTake(t, b, 1)
			r := mustReserve(t, b, 1)
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			require.NoError(t, r.sleep(tardyContext{ended, 100 * time.Millisecond}))
		})
	}
}

// Instalments that need no waiting end with the context too.
func TestInstalmentsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := 0
	err := waitInTurn(ctx, limit.NewSet([]limit.Limit{perSecond(10)}), 1000, time.Hour,
		func(turnWanted) error {
			if calls++; calls == 3 {
				cancel()
			}
			return nil
		})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 3, calls)
}

func TestWaitNAboveTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		start := time.Now()
		require.NoError(t, b.WaitN(t.Context(), 35))
		assert.Equal(t, 2500*time.Millisecond, time.Since(start), "10 at once, 10 and 10 a second later each, and 5")
		assert.False(t, b.Allow())
	})
}

func TestWaitNAboveTheBurstKnowsItsEndBeforehand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		full := b.Peek()
		short, cancel := context.WithTimeout(t.Context(), 2400*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := b.WaitN(short, 35)
		require.ErrorIs(t, err, ErrLimited)
		assert.Zero(t, time.Since(start))
		assert.Equal(t, full, b.Peek(), "nothing is spent")
		var limited *LimitedError
		require.ErrorAs(t, err, &limited)
		assert.Equal(t, 100*time.Millisecond, limited.Decision.RetryAfter)

		enough, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		require.NoError(t, b.WaitN(enough, 35))
	})
}

func TestWaitNAboveTheBurstEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		require.ErrorIs(t, b.WaitN(ctx, 35), context.Canceled)
		assert.Equal(t, 5.0, b.Peek().Remaining, "two instalments stay spent, the third is given back")
	})
}

// Costs that no number of instalments can count down are refused: the wait would never end.
func TestWaitNForMoreThanCanBeCounted(t *testing.T) {
	b := mustNewBucket(t, Per(math.MaxFloat64, 1).WithBurst(1))
	err := b.WaitN(t.Context(), 1e300)
	require.ErrorIs(t, err, ErrExceedsBurst)
	assert.ErrorContains(t, err, "1e+300")
	assert.Equal(t, 1.0, b.Peek().Remaining)
}

func TestWaitForLongerThanAnybodyLives(t *testing.T) {
	b := mustNewBucket(t, Per(1, math.MaxInt64))
	mustTake(t, b, 1)
	before := b.Peek()
	require.ErrorIs(t, b.Wait(t.Context()), ErrLimited, "without a deadline there is still an end")
	_, err := b.Reserve(1)
	require.ErrorIs(t, err, ErrLimited)
	assert.InDelta(t, before.Remaining, b.Peek().Remaining, 1e-9)
}

func TestLeakyWaitsAreSpacedEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).WithBurst(3).Leaky())
		var w waiters
		began := time.Now()
		for who := range 4 {
			w.start(who, began, func() error { return b.Wait(t.Context()) })
		}
		done := w.soFar()
		require.Len(t, done, 2, "the first goes at once, and the last finds the bucket full")
		assert.Equal(t, returned{0, 0, nil}, done[0])
		assert.Equal(t, 3, done[1].who)
		require.ErrorIs(t, done[1].err, ErrLimited)
		time.Sleep(time.Second)
		assert.Equal(t, []returned{{1, 100 * time.Millisecond, nil}, {2, 200 * time.Millisecond, nil}}, w.soFar()[2:])
	})
}

func TestLeakyBucketThatIsFullSpendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).WithBurst(3).Leaky())
		mustTake(t, b, 3)
		before := b.Peek()
		require.ErrorIs(t, b.Wait(t.Context()), ErrLimited)
		_, err := b.Reserve(1)
		require.ErrorIs(t, err, ErrLimited)
		var limited *LimitedError
		require.ErrorAs(t, err, &limited)
		assert.Equal(t, 100*time.Millisecond, limited.Decision.RetryAfter)
		assert.Equal(t, before, b.Peek())
	})
}

func TestLeakyWaitNAboveTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNewBucket(t, PerSecond(10).WithBurst(3).Leaky())
		full := b.Peek()
		for _, timeout := range []time.Duration{450 * time.Millisecond, 599 * time.Millisecond} {
			short, cancel := context.WithTimeout(t.Context(), timeout)
			start := time.Now()
			require.ErrorIs(t, b.WaitN(short, 7), ErrLimited)
			cancel()
			assert.Zero(t, time.Since(start), "it fails at once")
			assert.Equal(t, full, b.Peek(), "nothing is spent")
		}
		enough, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		start := time.Now()
		require.NoError(t, b.WaitN(enough, 7))
		assert.Equal(t, 600*time.Millisecond, time.Since(start), "3 leave in 300ms, 3 more in 300ms, and the last goes")
	})
}

// How long a wait takes is known beforehand, for any cost and any limits: with that long a deadline it comes through,
// with a shorter one it fails at once.
func TestWaitKnowsItsEndBeforehand(t *testing.T) {
	limit := rapid.Custom(func(t *rapid.T) Limit {
		l := PerSecond(rapid.Float64Range(0.5, 50).Draw(t, "tokens")).WithBurst(rapid.Float64Range(1, 20).Draw(t, "burst"))
		if rapid.Bool().Draw(t, "leaky") {
			l = l.Leaky()
		}
		return l
	})
	rapid.Check(t, func(rt *rapid.T) {
		limits := rapid.SliceOfN(limit, 1, 3).Draw(rt, "limits")
		cost := rapid.Float64Range(0.1, 100).Draw(rt, "cost")
		taken := rapid.Float64Range(0, 1).Draw(rt, "part of the burst that was taken before")
		wait := func(timeout time.Duration) (elapsed time.Duration, err error, spent bool) {
			synctest.Test(t, func(t *testing.T) {
				b := mustNewBucket(t, limits...)
				if taken > 0 {
					mustTake(t, b, taken*b.set.SmallestBurst())
				}
				before := b.state.Clone()
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				start := time.Now()
				err = b.WaitN(ctx, cost)
				elapsed = time.Since(start)
				spent = !assert.ObjectsAreEqual(before, b.state)
			})
			return elapsed, err, spent
		}
		needed, err, spent := wait(24 * time.Hour)
		if errors.Is(err, ErrLimited) { // a leaky bucket is full
			require.Zero(rt, needed)
			require.False(rt, spent)
			return
		}
		require.NoError(rt, err)
		const rounding = time.Microsecond // a nanosecond an instalment
		elapsed, err, _ := wait(needed + rounding)
		require.NoError(rt, err)
		require.Equal(rt, needed, elapsed)
		if needed > rounding {
			elapsed, err, spent = wait(needed - rounding)
			require.ErrorIs(rt, err, ErrLimited)
			require.Zero(rt, elapsed, "it fails at once")
			require.False(rt, spent)
		}
	})
}

// Beyond so many at one bucket none may wait, whoever decides: the error says so, and when to come back.
func TestMoreThanMayWaitAreRefused(t *testing.T) {
	requireFull := func(t *testing.T, err error, rate float64) {
		require.ErrorIs(t, err, ErrQueueFull)
		require.ErrorIs(t, err, ErrLimited)
		var limited *LimitedError
		require.ErrorAs(t, err, &limited)
		assert.InDelta(t, limit.MaxTurns, limited.Decision.RetryAfter.Seconds()*rate, 1000, "when its turn would have come")
		assert.ErrorContains(t, err, "too many are waiting")
	}
	t.Run("bucket", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, PerSecond(1000).WithBurst(1))
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range limit.MaxTurns + 1 {
				all.Go(func() { _ = b.Wait(ctx) })
			}
			synctest.Wait()
			assert.Equal(t, limit.MaxTurns, b.state.Waiting())
			requireFull(t, b.Wait(ctx), 1000)
			cancel()
			all.Wait()
			assert.Zero(t, b.state.Waiting())
			assert.Zero(t, b.line.Len())
		})
	})
	t.Run("cluster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := sim.New(1)
			t.Cleanup(network.Close)
			nodes := startNodes(t, network, nil, 2)
			var limiters []*Limiter
			for _, n := range nodes {
				l, err := n.Limiter("api", PerSecond(10).WithBurst(1))
				require.NoError(t, err)
				limiters = append(limiters, l)
			}
			owner := 0
			if limiters[0].Owner("k").Name != nodes[0].identity {
				owner = 1
			}
			r := limiters[owner].rule
			for i := range uint64(limit.MaxTurns + 1) {
				m := wire.Message{
					Kind: wire.KindAwait, Key: "k", Cost: 1, Total: 1, MaxDelay: 24 * time.Hour,
					Turn: wire.Turn{Node: nodes[1-owner].identity, Number: 1<<32 + i},
				}
				_, ok := nodes[owner].table.Answer(r, r.Hash.Partition("k"), &m, nodes[owner].now())
				require.True(t, ok)
			}
			assert.Equal(t, limit.MaxTurns, nodes[owner].Stats().QueuedTurns)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for _, l := range limiters {
				l.node.settings.MaxWait = 24 * time.Hour
				requireFull(t, l.Wait(ctx, "k"), 10) // no turn comes until it is there
			}
			stats := nodes[owner].Stats()
			assert.EqualValues(t, 2, stats.RefusedTurns)
			assert.Zero(t, stats.Waiting)
			time.Sleep(12 * time.Second)
			assert.Zero(t, nodes[owner].Stats().QueuedTurns, "nobody asks again")
			require.NoError(t, limiters[0].Wait(ctx, "k"))
		})
	})
}

// What waits, is served and leaves is counted at the node whose caller it is, and at the node that decides.
func TestWaitsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		t.Cleanup(network.Close)
		nodes := startNodes(t, network, nil, 2)
		limiters := make([]*Limiter, 2)
		for i, n := range nodes {
			l, err := n.Limiter("api", PerSecond(1).WithBurst(1))
			require.NoError(t, err)
			limiters[i] = l
		}
		owner := 0
		if limiters[0].Owner("k").Name != nodes[0].identity {
			owner = 1
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 7 {
			all.Go(func() { _ = limiters[(owner+i%3)%2].Wait(ctx, "k") })
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		here, there := nodes[owner].Stats(), nodes[1-owner].Stats()
		assert.Equal(t, 4, here.Waiting+there.Waiting)
		assert.NotZero(t, there.Waiting)
		assert.Equal(t, 4, here.QueuedTurns)
		assert.EqualValues(t, 2, here.ServedTurns)
		assert.Zero(t, there.QueuedTurns)
		cancel()
		all.Wait()
		time.Sleep(10 * time.Millisecond)
		here = nodes[owner].Stats()
		assert.EqualValues(t, 4, here.LeftTurns)
		assert.Zero(t, here.QueuedTurns)
		assert.Zero(t, here.Waiting)
	})
}

// What is given back makes room for the first that waits as of then, and not of a moment before.
func TestWhatIsGivenBackCountsFromThenOn(t *testing.T) {
	for _, give := range []string{"cancel", "refund"} {
		synctest.Test(t, func(t *testing.T) {
			b := mustNewBucket(t, PerSecond(1).WithBurst(1))
			r := mustReserve(t, b, 1)
			var w waiters
			began := time.Now()
			w.start(1, began, func() error { return b.Wait(t.Context()) })
			time.Sleep(900 * time.Millisecond)
			if give == "cancel" {
				r.Cancel()
			} else {
				require.NoError(t, b.Refund(1))
			}
			assert.Equal(t, []returned{{1, 900 * time.Millisecond, nil}}, w.soFar())
			time.Sleep(time.Second - time.Millisecond)
			assert.False(t, b.Allow(), "the next token comes a second later: %s", give)
			time.Sleep(time.Millisecond)
			assert.True(t, b.Allow(), give)
		})
	}
}
