package peerlimit_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Many exhausted keys, on real sockets: whatever joins, leaves or is replaced, not one of them is admitted again. TestSchedules
// has the same in controlled time, as its pieces family; here partitions move at the speed of the machine.

var (
	lossKeys = flag.Int("losses.keys", 0, "how many exhausted keys TestNothingIsForgotten has; 0: a few that move in small pieces")
	lossRuns = flag.Int("losses.runs", 1, "how often TestNothingIsForgotten plays each of its parts")
)

// TestNothingIsForgotten exhausts keys, lets members come and go, and asks for all keys again when all is over.
//
//	go test . -run 'TestNothingIsForgotten$' -v -timeout 2h -losses.keys=1000000 -losses.runs=20
func TestNothingIsForgotten(t *testing.T) {
	if onecore.RaceDetector && *lossKeys == 0 {
		t.Skip("the pieces family of TestSchedules runs the same code, without pings that must be answered in time")
	}
	parts := []struct {
		name string
		play func(c *lossCluster)
	}{
		{"join", func(c *lossCluster) { c.add() }},
		{"two join at once", func(c *lossCluster) { c.add(); c.add() }},
		{"leave", func(c *lossCluster) { c.leave() }},
		{"join, and the owner leaves", func(c *lossCluster) { c.add(); c.ready(); c.leave() }},
		{"roll", func(c *lossCluster) {
			for range 3 {
				c.add()
				c.ready()
				c.leave()
			}
		}},
	}
	for _, part := range parts {
		for run := range *lossRuns {
			t.Run(fmt.Sprintf("%s/%d", part.name, run), func(t *testing.T) {
				if *lossKeys == 0 {
					t.Parallel() // mostly it waits
				}
				c := newLossCluster(t)
				c.exhaust()
				part.play(c)
				c.ready()
				require.Zero(t, c.admitted(), "of %d keys", len(c.keys))
				for _, n := range c.nodes {
					require.Zero(t, n.Stats().Evicted)
				}
			})
		}
	}
}

// lossCluster is a cluster on loopback whose keys are exhausted.
type lossCluster struct {
	t      *testing.T
	keys   []string
	small  bool
	nodes  []*peerlimit.Node // the one that has been there longest first
	joined int
}

// newLossCluster starts three nodes.
func newLossCluster(t *testing.T) *lossCluster {
	c := &lossCluster{t: t, keys: manyKeys(*lossKeys)}
	if c.small = *lossKeys == 0; c.small {
		c.keys = crowdedKeys(6000)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes { // one after the other: the last has nobody to tell
			assert.NoError(t, n.Close())
		}
	})
	for range 3 {
		c.add()
	}
	c.ready()
	return c
}

// crowdedKeys returns keys of few partitions, so that each has as many as it has else of a hundred times as many keys.
func crowdedKeys(n int) []string {
	keys := make([]string, 0, n)
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprintf("user-%d", i); ring.PartitionOf("api", key)%128 == 0 {
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *lossCluster) add() {
	config := peerlimit.Config{
		Cluster: c.t.Name(), Name: fmt.Sprintf("n%d", c.joined), MaxKeys: 8_000_000, Logger: slog.New(slog.DiscardHandler),
		Fallback: fallback.Closed, // what is admitted, a holder has admitted
	}
	for _, n := range c.nodes {
		config.Join = append(config.Join, n.Self().Addr)
	}
	if c.small {
		inspect.MoveInPieces(&config, 400, 400)
	}
	n, err := peerlimit.Start(config)
	require.NoError(c.t, err)
	c.joined++
	c.nodes = append(c.nodes, n)
}

func (c *lossCluster) ready() {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.WaitReady(ctx, len(c.nodes)); err != nil {
			for _, n := range c.nodes {
				c.t.Log(inspect.Acquiring(n))
			}
			require.NoError(c.t, err)
		}
	}
}

// leave lets the oldest node leave.
func (c *lossCluster) leave() {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	leaver := c.nodes[0]
	c.nodes = c.nodes[1:]
	require.NoError(c.t, leaver.Leave(ctx))
}

// exhaust takes the one token that each key has in an hour, until every key is denied by its holder. Mostly once is enough; on
// a machine so busy that a node stands still for half a second, as in a crash, what it had admitted last is to be taken again.
func (c *lossCluster) exhaust() {
	for range 20 {
		if c.admitted() == 0 {
			return
		}
	}
	require.Fail(c.t, "the machine is too busy: keys are not exhausted")
}

// admitted takes from every key, and returns how many were admitted. A key that nobody decided about in full, because the
// machine was too busy, is asked for again.
func (c *lossCluster) admitted() int {
	const callers = 256
	var admitted atomic.Int64
	var asking sync.WaitGroup
	for caller := range callers {
		l, err := c.nodes[caller%len(c.nodes)].Limiter("api", peerlimit.PerHour(1))
		require.NoError(c.t, err)
		asking.Go(func() {
			for i := caller; i < len(c.keys); i += callers {
				for {
					d, err := l.Take(c.t.Context(), c.keys[i], 1)
					if !assert.NoError(c.t, err) {
						return
					}
					if d.Allowed {
						admitted.Add(1)
					}
					if d.Origin != peerlimit.OriginFallback && d.Origin != peerlimit.OriginStandby {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	asking.Wait()
	return int(admitted.Load())
}

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

// When a member dies, its standbys know what was taken; and those of the standbys, when they have had the time to send it on.
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
