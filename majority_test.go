package peerlimit_test

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/internal/oracle"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Who has a majority while members are replaced: newcomers of a side that has none do not outvote the others, and members that were
// killed stop counting.

// heldBy returns of how many partitions one of some nodes decides in full.
func heldBy(cluster *peerlimittest.Cluster, nodes []int) (held int) {
	var union [64]uint64
	for _, i := range nodes {
		for word, decides := range inspect.FullDeciders(cluster.Node(i)) {
			union[word] |= decides
		}
	}
	for _, word := range union {
		held += bits.OnesCount64(word)
	}
	return held
}

func decidedByShare(d peerlimit.Decision) bool {
	return d.Origin == peerlimit.OriginFallback || d.Origin == peerlimit.OriginStandby
}

// A few of a cluster are cut off, and newcomers start that reach nobody else. However many those are, the others decide in full, alone.
func TestNewcomersOfAMinorityDoNotOutvoteTheOthers(t *testing.T) {
	playedBySchedules(t)
	for _, c := range []struct{ nodes, apart, newcomers int }{{5, 2, 3}, {5, 1, 5}, {3, 1, 1}, {3, 1, 3}, {4, 1, 2}} {
		t.Run(fmt.Sprintf("%d of %d and %d newcomers", c.apart, c.nodes, c.newcomers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newcomersOfAMinority(t, c.nodes, c.apart, c.newcomers) })
		})
	}
}

func newcomersOfAMinority(t *testing.T, nodes, apart, newcomers int) {
	cluster := peerlimittest.NewCluster(t, nodes, func(c *peerlimit.Config) { c.OutvoteAfter = -1 }) // else for a minute
	awaitPanel(t, cluster.Nodes(), nodes-1+nodes%2, 15*time.Second)
	var few, others []int
	for i := range nodes {
		if i < apart {
			few = append(few, i)
		} else {
			others = append(others, i)
		}
	}
	cluster.Split(few, others)
	time.Sleep(3 * time.Second)
	bound := 1 + float64(apart)/float64(nodes) // the limit, and what shares may give out beside it
	var starting sync.WaitGroup
	for i := range newcomers {
		few = append(few, nodes+i)
		bound += 1 / float64(nodes+i+1)
		starting.Go(func() { cluster.AddCutOff(others) })
	}
	starting.Wait()
	for range 25 {
		time.Sleep(time.Second)
		assert.Zero(t, heldBy(cluster, few), "partitions that the smaller side and its newcomers decide about in full")
		assert.Equal(t, ring.Partitions, heldBy(cluster, others), "and the larger side")
	}
	exhaustBothSides(t, cluster, others, bound)

	cluster.Heal()
	cluster.WaitReady()
	require.Len(t, cluster.Nodes(), nodes+newcomers)
}

// exhaustBothSides takes more of a key than there is on each node in turn, and asserts that those that are not of the larger side decide by
// shares, and that all together admit no more than so many times the limit.
func exhaustBothSides(t *testing.T, cluster *peerlimittest.Cluster, larger []int, bound float64) {
	limit := peerlimit.PerHour(100)
	o := oracle.New(oracle.Limit{Tokens: limit.Tokens, Period: limit.Period, Burst: limit.Tokens}.Times(bound))
	began := time.Now()
	for i, l := range cluster.Limiters("api", limit) {
		inFull := 0
		for range 120 {
			start := time.Since(began)
			d, err := l.Take(t.Context(), "k", 1)
			require.NoError(t, err)
			if !d.Allowed {
				continue
			}
			o.Admit(oracle.Take{Start: start, End: time.Since(began), Cost: 1})
			if !decidedByShare(d) {
				inFull++
			}
		}
		if !slices.Contains(larger, i) {
			assert.Zero(t, inFull, "tokens that node %d admitted in full", i)
		}
	}
	report := o.Report()
	assert.True(t, report.Within(0), "over-admitted: %v", report)
}

// Six members are replaced one by one, for minutes, by crashes: the newcomer starts first, as in a rolling deploy, or after the crash. Each
// newcomer holds what is its own in 3 s, and 10 s after its end a member counts no more.
func TestMembersAreReplacedByCrashes(t *testing.T) {
	playedBySchedules(t)
	for name, c := range map[string]struct {
		first bool // the newcomer
		times int
		every time.Duration
	}{
		"a newcomer first": {first: true, times: 6, every: 30 * time.Second},
		"a crash first":    {times: 12, every: 25 * time.Second},
	} {
		if onecore.RaceDetector && c.times > 6 {
			continue // the same goroutines
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const nodes = 6
				cluster := peerlimittest.NewCluster(t, nodes)
				awaitPanel(t, cluster.Nodes(), nodes-1+nodes%2, 15*time.Second)
				for i := range c.times {
					if c.first {
						assertHoldsItsOwn(t, cluster.Add())
						time.Sleep(5 * time.Second)
						cluster.Kill(i)
					} else {
						cluster.Kill(i)
						time.Sleep(500 * time.Millisecond)
						assertHoldsItsOwn(t, cluster.Add())
					}
					time.Sleep(10 * time.Second)
					assertAllDecideInFull(t, cluster, nodes)
					time.Sleep(c.every - 15*time.Second)
				}
				time.Sleep(5 * time.Minute)
				assertAllDecideInFull(t, cluster, nodes)
			})
		})
	}
}

// assertHoldsItsOwn asserts that a node that has just started comes to hold all that is its own within 3 s.
func assertHoldsItsOwn(t *testing.T, node *peerlimit.Node) {
	t.Helper()
	var stats peerlimit.Stats
	for range 300 {
		if stats = node.Stats(); stats.HasQuorum && stats.Members > 1 && stats.PartitionsHeld >= stats.PartitionsOwned {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	assert.Fail(t, "not ready", "%s counts %d members, reaches %d, and holds %d of %d partitions of its own",
		node.Self().Name, stats.Known, stats.Reachable, stats.PartitionsHeld, stats.PartitionsOwned)
}

// assertAllDecideInFull asserts that the living members count each other and nobody else, hold all that is their own, and decide by no
// share about any of some keys.
func assertAllDecideInFull(t *testing.T, cluster *peerlimittest.Cluster, nodes int) {
	t.Helper()
	for i, l := range cluster.Limiters("probe", peerlimit.PerSecond(100)) {
		node := cluster.Nodes()[i]
		name, stats := node.Self().Name, node.Stats()
		assert.Equal(t, nodes, stats.Known, "members that %s counts", name)
		assert.Equal(t, stats.PartitionsOwned, stats.PartitionsHeld, "partitions that %s holds, of its own", name)
		byShares := 0
		for key := range 30 {
			d, err := l.Take(t.Context(), fmt.Sprint(key), 1)
			require.NoError(t, err)
			if decidedByShare(d) {
				byShares++
			}
		}
		assert.Zero(t, byShares, "of 30 takes on %s by shares", name)
	}
}

// All of three members are killed one after the other, and each is restarted under another name: 8 s after the last the whole limit
// is given out, and nothing above it.
func TestThreeAreReplacedByCrashes(t *testing.T) {
	playedBySchedules(t)
	for _, every := range []time.Duration{4 * time.Second, 30 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				awaitPanel(t, cluster.Nodes(), 3, 15*time.Second)
				for i := range 3 {
					time.Sleep(every)
					cluster.Kill(i)
					cluster.Add()
				}
				time.Sleep(8 * time.Second)
				limit := peerlimit.PerSecond(200)
				began, limiters := time.Now(), cluster.Limiters("api", limit)
				var load sync.WaitGroup
				for i := range 3 {
					load.Go(func() {
						key, o := fmt.Sprint("k", i), judge(limit)
						saturate(t, o, began, limiters, key, 2, 5*time.Millisecond, 10*time.Second)
						report := o.Report()
						assert.True(t, report.Within(0), "over-admitted: %v", report)
						assert.GreaterOrEqual(t, report.Run.Admitted, 0.9*limit.Tokens*10, "admitted of %s", key)
					})
				}
				load.Wait()
				assertAllDecideInFull(t, cluster, 3)
			})
		})
	}
}
