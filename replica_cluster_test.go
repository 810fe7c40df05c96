package peerlimit_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// slowly refills so slowly that what was taken stays taken for the length of a test.
var slowly = peerlimit.PerHour(50)

// exhaust takes all tokens of some keys.
func exhaust(t *testing.T, l *peerlimit.Limiter, keys []string) {
	t.Helper()
	for _, key := range keys {
		d, err := l.Take(t.Context(), key, 50)
		require.NoError(t, err)
		require.True(t, d.Allowed, key)
	}
}

// admitted returns for how many of some keys a node admits one more token.
func admitted(t *testing.T, l *peerlimit.Limiter, keys []string) (n int) {
	t.Helper()
	for _, key := range keys {
		d, err := l.Take(t.Context(), key, 1)
		require.NoError(t, err)
		require.NotEqual(t, peerlimit.OriginFallback, d.Origin)
		if d.Allowed {
			n++
		}
	}
	return n
}

func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user-%d", i)
	}
	return keys
}

func replicating(every time.Duration) peerlimittest.Option {
	return func(c *peerlimit.Config) { c.ReplicaInterval = every }
}

// Whoever dies, its standbys know what was taken; and those of the standbys, when they have had the time to send it on.
func TestKilledNodesTakeNothingWithThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		keys := manyKeys(300)
		exhaust(t, cluster.Limiters("api", slowly)[0], keys)
		for _, dies := range []int{4, 3} {
			time.Sleep(3 * peerlimit.DefaultReplicaInterval)
			cluster.Kill(dies)
			cluster.WaitReady()
			for _, l := range cluster.Limiters("api", slowly) {
				require.Zero(t, admitted(t, l, keys), "after the death of %d", dies)
			}
			time.Sleep(time.Second)
		}
	})
}

// Without replication a killed node's counts are gone, and leaving still hands over.
func TestReplicationCanBeTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5, replicating(-1))
		keys := manyKeys(300)
		exhaust(t, cluster.Limiters("api", slowly)[0], keys)
		require.NoError(t, cluster.Leave(t.Context(), 4))
		cluster.WaitReady()
		require.Zero(t, admitted(t, cluster.Limiters("api", slowly)[0], keys))
		time.Sleep(time.Second)
		cluster.Kill(3)
		cluster.WaitReady()
		require.Positive(t, admitted(t, cluster.Limiters("api", slowly)[0], keys))
	})
}

// When a leave has ended, what was held is with its new holder and with a standby: the crash of either loses nothing.
func TestCrashRightAfterALeaveLosesNothing(t *testing.T) {
	for dies := range 3 {
		t.Run(fmt.Sprint(dies), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 4)
				keys := manyKeys(300)
				exhaust(t, cluster.Limiters("api", slowly)[0], keys)
				require.NoError(t, cluster.Leave(t.Context(), 3))
				cluster.Kill(dies)
				cluster.WaitReady()
				for _, l := range cluster.Limiters("api", slowly) {
					require.Zero(t, admitted(t, l, keys))
				}
			})
		})
	}
}

// What nobody needs any more is dropped: each bucket is kept by its holder and its standby.
func TestCopiesThatNobodyNeedsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		keys := manyKeys(300)
		exhaust(t, cluster.Limiters("api", slowly)[0], keys)
		for range 3 {
			cluster.Add()
		}
		cluster.WaitReady()
		time.Sleep(5 * time.Second)
		kept := 0
		for _, node := range cluster.Nodes() {
			kept += node.Stats().Keys
		}
		require.Equal(t, 2*len(keys), kept)
	})
}

// Of two nodes one goes without handing over: the other starts from its replicas and asks nobody, for there is nobody.
func TestTheLastOneKnowsWhereItsCopiesCameFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		keys := manyKeys(50)
		limiter := cluster.Limiters("api", slowly)[0]
		exhaust(t, limiter, keys)
		time.Sleep(3 * peerlimit.DefaultReplicaInterval)
		last, gone := cluster.Node(0), cluster.Node(1).Stats().PartitionsHeld
		require.Positive(t, gone)
		before := last.Stats()
		require.NoError(t, cluster.Node(1).Close())
		time.Sleep(5 * time.Second)
		after := last.Stats()
		require.Equal(t, before.PartitionsHeld+gone, after.PartitionsHeld)
		require.Equal(t, uint64(gone), after.AcquiredFromReplica-before.AcquiredFromReplica)
		require.Zero(t, after.AcquiredEmpty-before.AcquiredEmpty, "nobody got a fresh bucket")
		require.Zero(t, admitted(t, limiter, keys))
	})
}
