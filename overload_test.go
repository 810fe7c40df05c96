package peerlimit_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/peerlimittest"
	"github.com/peerlimit/peerlimit/transport"
)

// More takes at once than there is room for, of keys of an owner that does nothing: each gets a decision in time, those for
// which there was no room are counted, and however often that happens, shares are given out once. It ends by itself.
func TestFloodOfAnOwnerThatDoesNothing(t *testing.T) {
	if onecore.RaceDetector {
		t.Skip("70,000 goroutines are many times as slow with it, and what they do, others do as well")
	}
	synctest.Test(t, func(t *testing.T) {
		const callers = transport.DefaultMaxInFlight + 5000
		exact := func(c *peerlimit.Config) { c.NoLeases, c.NoDenialCache = true, true } // every take is a question
		cluster := peerlimittest.NewCluster(t, 3, exact)
		limit := peerlimit.PerHour(90)
		limiters := cluster.Limiters("api", limit)
		owner := cluster.Index(limiters[0].Owner("k").Name)
		caller := (owner + 1) % 3
		o, began := judge(limit), time.Now()
		take := func(ctx context.Context) (slowest time.Duration) {
			start := time.Since(began)
			d, err := limiters[caller].Take(ctx, "k", 1)
			end := time.Since(began)
			if assert.NoError(t, err) && d.Allowed {
				o.Admit(oracle.Take{Start: start, End: end, Cost: 1})
			}
			return end - start
		}
		stats := cluster.Node(caller).Stats
		calm := func() int { // what pings, and the runtime for finalizers, have for a moment does not count: it is not always there
			time.Sleep(time.Minute)
			least := runtime.NumGoroutine()
			for range 500 {
				time.Sleep(37 * time.Millisecond)
				least = min(least, runtime.NumGoroutine())
			}
			return least
		}
		before := calm()
		for range 3 {
			cluster.Freeze(owner)
			var flood sync.WaitGroup
			var slowest atomic.Int64
			overloaded := stats().Overloaded
			for range callers {
				flood.Go(func() {
					took := int64(take(context.Background()))
					for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
					}
				})
			}
			flood.Wait()
			assert.Greater(t, stats().Overloaded, overloaded, "it was too much")
			assert.LessOrEqual(t, time.Duration(slowest.Load()), 2*peerlimit.DefaultRPCTimeout+50*time.Millisecond)
			t.Logf("%d of %d takes found no room; the slowest took %v", stats().Overloaded-overloaded, callers, time.Duration(slowest.Load()))
			cluster.Thaw(owner)
			cluster.WaitReady()
			time.Sleep(2 * time.Second)
			remote := stats().Limiters["api"].Denied[peerlimit.OriginRemote]
			take(context.Background())
			assert.Equal(t, remote+1, stats().Limiters["api"].Denied[peerlimit.OriginRemote], "the owner decides again")
			assert.LessOrEqual(t, calm(), before)
		}
		share := limit.Tokens / 3
		allowed := stats().Limiters["api"].Allowed
		given := allowed[peerlimit.OriginFallback] + allowed[peerlimit.OriginStandby]
		assert.Positive(t, given)
		assert.LessOrEqual(t, given, uint64(2*share), "the standby's share, and the caller's when there was no room on the way to the standby: each once")
		requireHeld(t, o, 0)
	})
}
