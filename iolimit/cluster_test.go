package iolimit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/iolimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Three nodes, each with a few transfers of different kinds on one key: together they are at the limit, and not above.
func TestNodesShareBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limit := peerlimit.PerSecond(2e6).WithBurst(200_000)
		limiters := cluster.Limiters("bandwidth", limit)
		judged := newJudge(t, limit)
		const duration = 5 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), duration)
		defer cancel()
		var all sync.WaitGroup
		got := make([]int, len(limiters))
		for node, limiter := range limiters {
			var writers sync.WaitGroup
			var mu sync.Mutex
			for _, size := range []int{200, 1400, 1 << 20} {
				w, err := iolimit.NewWriter(ctx, judged, iolimit.Bandwidth{Taker: limiter, Key: "k"})
				require.NoError(t, err)
				writers.Go(func() {
					for p := make([]byte, size); ctx.Err() == nil; {
						n, _ := w.Write(p)
						mu.Lock()
						got[node] += n
						mu.Unlock()
					}
					assert.NoError(t, w.Close())
				})
			}
			all.Go(writers.Wait)
		}
		all.Wait()
		ideal := limit.Burst + limit.Tokens*duration.Seconds()
		assert.GreaterOrEqual(t, float64(judged.total()), 0.95*ideal, "and not much less")
		for node := range got {
			assert.InEpsilon(t, ideal/3, float64(got[node]), 0.25, "node %d of %v", node, got)
		}

		// What was taken and not used has come back: a second later the bucket is full but for what passes meanwhile.
		time.Sleep(time.Second)
		d, err := limiters[0].Peek(t.Context(), "k")
		require.NoError(t, err)
		assert.InDelta(t, limit.Burst, d.Remaining, 1e-3)
	})
}
