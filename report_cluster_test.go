package peerlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// spend takes single tokens until it is denied and returns how many it got.
func spend(t *testing.T, l *peerlimit.Limiter, key string) (got int) {
	t.Helper()
	for {
		d, err := l.Take(t.Context(), key, 1)
		require.NoError(t, err)
		if !d.Allowed {
			return got
		}
		got++
	}
}

// remaining returns what is left of a key's bucket, as its owner sees it.
func remaining(t *testing.T, c *peerlimittest.Cluster, limiters []*peerlimit.Limiter, key string) float64 {
	t.Helper()
	d, err := limiters[c.Index(limiters[0].Owner(key).Name)].Peek(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, peerlimit.OriginLocal, d.Origin)
	return d.Remaining
}

// An isolated node gives out its share, and reports it when it is back: once, although it goes on being there.
func TestIsolatedNodeReportsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", slowly)
		alone := (cluster.Index(limiters[0].Owner("k").Name) + 1) % 5
		cluster.Isolate(alone)
		time.Sleep(2 * time.Second) // a request sent before the cut is noticed may be spent at the owner as well
		require.Equal(t, 10, spend(t, limiters[alone], "k"), "a fifth of 50")
		time.Sleep(2 * time.Second)
		cluster.Heal()
		cluster.WaitReady()
		time.Sleep(2 * time.Second)
		require.InDelta(t, 40, remaining(t, cluster, limiters, "k"), 0.5)
		time.Sleep(5 * time.Second)
		require.InDelta(t, 40, remaining(t, cluster, limiters, "k"), 0.5)
		require.Zero(t, inspect.Unreported(cluster.Node(alone)))
	})
}

// The owner dies; until it is given up its standby gives out a share, and starts with that charged.
func TestStandbyStartsWithItsShareCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", slowly)
		owner := cluster.Index(limiters[0].Owner("k").Name)
		d, err := limiters[owner].Take(t.Context(), "k", 25)
		require.NoError(t, err)
		require.True(t, d.Allowed)
		time.Sleep(3 * peerlimit.DefaultReplicaInterval)
		cluster.Kill(owner)
		limiters = cluster.Limiters("api", slowly)
		total := 25
		for i := range limiters {
			total += spend(t, limiters[i], "k")
		}
		require.Greater(t, total, 25, "shares are given out")
		cluster.WaitReady()
		for i := range limiters {
			total += spend(t, limiters[i], "k")
		}
		require.Equal(t, 50, total)
	})
}

// Both sides of a split give out at most the limit and the share of the smaller side, and when it has healed what the
// smaller one gave out is missing.
func TestSplitIsPaidBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		limit := peerlimit.PerSecond(100)
		limiters := cluster.Limiters("api", limit)
		o, began := judge(limit), time.Now()
		saturate(t, o, began, limiters, "k", 1, 20*time.Millisecond, 2*time.Second)
		cluster.Split([]int{0, 1, 2}, []int{3, 4})
		saturate(t, o, began, limiters, "k", 1, 20*time.Millisecond, 10*time.Second)
		cluster.Heal()
		cluster.WaitReady()
		time.Sleep(time.Second)
		for _, node := range cluster.Nodes() {
			require.Zero(t, inspect.Unreported(node))
		}
		saturate(t, o, began, limiters, "k", 1, 20*time.Millisecond, 5*time.Second)
		split := 10 * limit.Tokens * 2 / 5 // two of five give out their shares beside the others' limit
		report := requireHeld(t, o, split+limit.Tokens)
		require.Greater(t, report.Run.Admitted, 17*limit.Tokens*0.8, "starved")
		settled := o.Between(16*time.Second, time.Hour).Report()
		require.True(t, settled.Within(0), "after the split: %v", settled)
	})
}

// Where the last holder is cut off together with a member that has an older copy, it gives out the share of both, to callers on
// either. The other one does not give out a share of its own when the last holder asks it.
func TestTheSideOfTheLastHolderHasOneShareForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", slowly)
		holder := cluster.Node(1).Self().Name
		var keys []string
		for i := range 100 { // node 0 held everything before it gave the others their partitions, and has some copies still
			if key := fmt.Sprint("key", i); limiters[0].Owner(key).Name == holder {
				keys = append(keys, key)
			}
		}
		require.NotEmpty(t, keys)
		cluster.Split([]int{0, 1}, []int{2, 3, 4})
		time.Sleep(3 * time.Second)
		for _, key := range keys {
			first, err := limiters[1].Take(t.Context(), key, 10)
			require.NoError(t, err)
			require.True(t, first.Allowed)
			second, err := limiters[0].Take(t.Context(), key, 20)
			require.NoError(t, err)
			require.False(t, second.Allowed, "%s: 30 of two fifths of 50", key)
			require.True(t, limiters[0].AllowN(t.Context(), key, 10))
		}
	})
}

// A node that comes to hold after a death charges what the others' shares have spent before its first decision.
func TestNewHolderStartsWithTheSharesOfOthersCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		limiters := cluster.Limiters("api", slowly)
		owner := cluster.Index(limiters[0].Owner("k").Name)
		cluster.Kill(owner)
		limiters = cluster.Limiters("api", slowly)
		spent := 0
		for _, l := range limiters {
			own := l.WithFallback(nil) // no standby decides for it
			for {
				d, err := own.Take(t.Context(), "k", 5)
				require.NoError(t, err)
				require.NotEqual(t, peerlimit.OriginLocal, d.Origin, "too slow for what this is to test")
				if !d.Allowed {
					break
				}
				spent += 5
			}
		}
		require.Equal(t, 40, spent, "four of five shares")
		part := ring.PartitionOf("api", "k")
		for {
			for i, node := range cluster.Nodes() {
				if inspect.DecidesInFull(node, part) {
					d, err := limiters[i].Peek(t.Context(), "k")
					require.NoError(t, err)
					require.InDelta(t, 10, d.Remaining, 0.5)
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
}
