package peerlimit_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
		exact := func(c *peerlimit.Config) { c.NoLeases, c.NoDenialCache = true, true } // every take is a request
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

// A client that sends endless fresh keys to a node does not make it forget exhausted ones.
func TestANodeUnderEndlessFreshKeysForgetsNoExhaustedOne(t *testing.T) {
	if testing.Short() || onecore.RaceDetector {
		t.Skip("2,000,000 keys take the race detector too long, and tests of fewer have the same goroutines")
	}
	const maxKeys, exhausted, fresh = 100_000, 1000, 2_000_000
	node := peerlimittest.NewNode(t, func(c *peerlimit.Config) { c.MaxKeys = maxKeys })
	limiter, err := node.Limiter("api", peerlimit.PerHour(10))
	require.NoError(t, err)
	ctx := context.Background()
	for i := range exhausted {
		require.True(t, limiter.AllowN(ctx, fmt.Sprint("exhausted-", i), 10))
	}
	before := peerlimit.HeapInUse()
	for i := range fresh {
		if !limiter.Allow(ctx, fmt.Sprint("fresh-", i)) {
			t.Fatalf("fresh key %d is refused", i)
		}
		if i%10 == 0 {
			k := i / 10 % exhausted
			if limiter.Allow(ctx, fmt.Sprint("exhausted-", k)) {
				t.Fatalf("exhausted key %d is admitted after %d fresh ones", k, i)
			}
		}
		if i%1000 == 0 {
			require.LessOrEqual(t, node.Stats().Keys, maxKeys)
		}
	}
	require.EqualValues(t, fresh+exhausted-maxKeys, node.Stats().Evicted)
	perKey := float64(peerlimit.HeapInUse()-before) / (maxKeys - exhausted)
	t.Logf("%.0f bytes a key", perKey)
	require.Less(t, perKey, 1.05*116, "see Sizing in docs/operations.md; and what is not of keys")
}

var scaleNodes = flag.String("scale.nodes", "10", "`numbers` of nodes of the clusters of TestScale, separated by commas")

// TestScale has many nodes join at once, then one more, and then lets a third of all packets vanish. Takes go on all the time.
//
//	go test . -run 'TestScale$' -v -timeout 1h -scale.nodes 10,30,60,100
func TestScale(t *testing.T) {
	playedBySchedules(t)
	if onecore.RaceDetector {
		t.Skip("it finds out what many nodes cost; joins and losses are in TestSchedules as well")
	}
	for text := range strings.SplitSeq(*scaleNodes, ",") {
		size, err := strconv.Atoi(text)
		require.NoError(t, err, "-scale.nodes")
		t.Run(text, func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) {
				s := &scaleRun{t: t, size: size, cluster: peerlimittest.NewCluster(t, 1), limit: peerlimit.PerSecond(50).WithBurst(20)}
				s.run("join storm", 1, s.joinAll)
				s.run("one more joins", 1, func() { s.cluster.Add() })
				s.run("30 % loss", 2, func() {
					s.cluster.Degrade(peerlimittest.Conditions{Latency: peerlimittest.Healthy.Latency, Jitter: peerlimittest.Healthy.Jitter, Loss: 0.3})
					time.Sleep(10 * time.Second)
					s.cluster.Degrade(peerlimittest.Healthy)
				})
			})
			t.Logf("nodes=%d real=%v", size, time.Since(began).Round(100*time.Millisecond))
		})
	}
}

// scaleRun is a large cluster and what is asked of it.
type scaleRun struct {
	t       *testing.T
	size    int
	cluster *peerlimittest.Cluster
	limit   peerlimit.Limit
}

// joinAll starts all nodes but the first within a second.
func (s *scaleRun) joinAll() {
	var starting sync.WaitGroup
	for i := 1; i < s.size; i++ {
		starting.Go(func() {
			time.Sleep(time.Duration(i) * time.Second / time.Duration(s.size))
			s.cluster.Add()
		})
	}
	starting.Wait()
}

// run does something to the cluster while takes go on, waits until all nodes are one cluster and hold what is theirs, and
// judges the takes: each key may get factor times its limit.
func (s *scaleRun) run(what string, factor float64, do func()) {
	const keys, pause = 20, 2 * time.Millisecond
	began := time.Now()
	judges := make([]*oracle.Oracle, keys)
	for i := range judges {
		judges[i] = judge(s.limit)
	}
	before := s.counted()
	done := make(chan struct{})
	var asking sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	takes := 0
	for caller := range 3 {
		asking.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), uint64(s.size)))
			for {
				select {
				case <-done:
					return
				case <-time.After(pause):
				}
				nodes := s.cluster.Nodes()
				key, start := random.IntN(keys), time.Since(began)
				l, err := nodes[random.IntN(len(nodes))].Limiter("scale", s.limit)
				if !assert.NoError(s.t, err) {
					return
				}
				d, err := l.Take(s.t.Context(), fmt.Sprint("key-", key), 1)
				if !assert.NoError(s.t, err) {
					return
				}
				end := time.Since(began)
				if d.Allowed {
					judges[key].Admit(oracle.Take{Start: start, End: end, Cost: 1})
				}
				mu.Lock()
				takes, slowest = takes+1, max(slowest, end-start)
				mu.Unlock()
			}
		})
	}
	do()
	acted := time.Since(began)
	s.cluster.WaitReady()
	agreed := time.Since(began)
	time.Sleep(time.Second)
	close(done)
	asking.Wait()

	worst := 0.0
	for key, o := range judges {
		report := o.Against(oracle.Limit{Tokens: s.limit.Tokens, Period: s.limit.Period, Burst: s.limit.Burst}.Times(factor))
		assert.True(s.t, report.Within(0), "%s, key %d: %v", what, key, report)
		worst = max(worst, report.Worst.Admitted/report.Worst.Allowed*factor)
	}
	after := s.counted()
	s.t.Logf("nodes=%d what=%q acted=%v agreed=%v takes=%d byShare=%d slowest=%v worstWindow=%.3f ringChanges=%d gainedEmpty=%d", s.size, what,
		acted.Round(time.Millisecond), agreed.Round(time.Millisecond), takes, after.byShare-before.byShare, slowest.Round(time.Millisecond), worst,
		after.ringChanges-before.ringChanges, after.gainedEmpty-before.gainedEmpty)
}

// scaleCounts are counted by all nodes together.
type scaleCounts struct{ byShare, ringChanges, gainedEmpty uint64 }

func (s *scaleRun) counted() (c scaleCounts) {
	for _, node := range s.cluster.Nodes() {
		stats := node.Stats()
		c.ringChanges += stats.RingChanges
		c.gainedEmpty += stats.AcquiredEmpty
		for _, l := range stats.Limiters {
			for _, counts := range []map[peerlimit.Origin]uint64{l.Allowed, l.Denied} {
				c.byShare += counts[peerlimit.OriginStandby] + counts[peerlimit.OriginFallback]
			}
		}
	}
	return c
}
