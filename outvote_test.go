package peerlimit_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// How members go on when half of the witnesses or more have died at the same moment, and what that costs where they have not died.

// outvoting returns the configuration of a node that goes on without the others after so long, where those that are left are more than half,
// and where they are fewer after splitMemory.
func outvoting(after, splitMemory time.Duration) peerlimittest.Option {
	return func(c *peerlimit.Config) { c.OutvoteAfter, c.SplitMemory = after, splitMemory }
}

// witnessesOf returns the numbers of the nodes that are witnesses of the panel of node 0, and of those that are not.
func witnessesOf(t *testing.T, cluster *peerlimittest.Cluster) (are, areNot []int) {
	t.Helper()
	nodes := cluster.Nodes()
	p := awaitPanel(t, nodes, len(nodes)-1+len(nodes)%2, 15*time.Second)
	for i, n := range nodes {
		if p.Has(n.Self().Name) {
			are = append(are, i)
		} else {
			areNot = append(areNot, i)
		}
	}
	return are, areNot
}

// requireNobodyDecides requires that some nodes decide about no partition in full for so long.
func requireNobodyDecides(t *testing.T, cluster *peerlimittest.Cluster, nodes []int, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		require.Zero(t, heldBy(cluster, nodes), "%v before the end of %v", time.Until(end), d)
	}
}

// requireOneHolderEach waits until each partition is decided about in full by just one of some nodes, at the same moment, and all of the
// nodes have one panel and a quorum.
func requireOneHolderEach(t *testing.T, cluster *peerlimittest.Cluster, nodes []int, within time.Duration) {
	t.Helper()
	began := time.Now()
	var said string
	for ; time.Since(began) < within; time.Sleep(50 * time.Millisecond) {
		held, twice := 0, 0
		for part := range uint16(ring.Partitions) {
			deciders := 0
			for _, i := range nodes {
				if inspect.DecidesInFull(cluster.Node(i), part) {
					deciders++
				}
			}
			held += min(deciders, 1)
			twice += max(deciders-1, 0)
		}
		said = fmt.Sprintf("%d partitions held, %d of them twice", held, twice)
		first, _ := inspect.Panel(cluster.Node(nodes[0]))
		together := held == ring.Partitions && twice == 0
		for _, i := range nodes {
			p, hasQuorum := inspect.Panel(cluster.Node(i))
			said += fmt.Sprintf("\n%d: %v, quorum %v", i, p, hasQuorum)
			together = together && hasQuorum && p.Origin == first.Origin && p.Number == first.Number
		}
		if together {
			t.Logf("one cluster after %v: %v", time.Since(began), first)
			return
		}
	}
	require.Fail(t, "not one cluster", "after %v: %s", within, said)
}

// requireNoShares requires that takes on some nodes are decided in full.
func requireNoShares(t *testing.T, cluster *peerlimittest.Cluster) {
	t.Helper()
	for i, l := range cluster.Limiters("probe", peerlimit.PerSecond(100)) {
		for key := range 30 {
			d, err := l.Take(t.Context(), fmt.Sprint(key), 1)
			require.NoError(t, err)
			require.False(t, decidedByShare(d), "node %d, key %d: %v", i, key, d.Origin)
		}
	}
}

// Of four nodes two of the three witnesses die, and two newcomers start. Nobody has a majority, and nothing can be agreed on.
func TestTheLivingGoOnWithoutThoseThatDied(t *testing.T) {
	playedBySchedules(t)
	const splitMemory = 5 * time.Minute
	for name, c := range map[string]struct{ after, decide time.Duration }{
		"by outvoting them":                       {0, peerlimit.DefaultOutvoteAfter},
		"after SplitMemory where they may not be": {-1, splitMemory},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 4, outvoting(c.after, splitMemory))
				witnesses, learners := witnessesOf(t, cluster)
				cluster.Kill(witnesses[0])
				cluster.Kill(witnesses[1])
				died := time.Now()
				cluster.Add()
				cluster.Add()
				living := []int{witnesses[2], learners[0], 4, 5}
				time.Sleep(3 * time.Second)
				requireNobodyDecides(t, cluster, living, c.decide-time.Since(died))
				requireOneHolderEach(t, cluster, living, 5*time.Second)
				requireNoShares(t, cluster)
				awaitPanel(t, cluster.Nodes(), 3, 10*time.Second)
			})
		})
	}
}

// Two of five remain, and nobody comes.
func TestTheRestOfAClusterBecomesOneAfterSplitMemory(t *testing.T) {
	playedBySchedules(t)
	const splitMemory = 4 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5, outvoting(0, splitMemory))
		witnessesOf(t, cluster)
		for i := range 3 {
			cluster.Kill(i)
		}
		died := time.Now()
		living := []int{3, 4}
		time.Sleep(time.Second)
		requireNobodyDecides(t, cluster, living, splitMemory-time.Since(died))
		requireOneHolderEach(t, cluster, living, 5*time.Second)
		requireNoShares(t, cluster)
	})
}

// Three newcomers make the smaller side of a split the larger one. Until OutvoteAfter they outvote nobody; from then on both sides decide,
// which is the price of going on without members that have died; and after the split all are one cluster again.
func TestBothSidesDecideWhereNewcomersMakeTheSmallerOneTheLarger(t *testing.T) {
	playedBySchedules(t)
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		witnessesOf(t, cluster)
		few, others := []int{0, 1}, []int{2, 3, 4}
		cluster.Split(few, others)
		split := time.Now()
		for i := range 3 {
			cluster.AddCutOff(others)
			few = append(few, 5+i)
		}
		time.Sleep(3 * time.Second)
		for time.Since(split) < peerlimit.DefaultOutvoteAfter {
			require.Zero(t, heldBy(cluster, few))
			require.Equal(t, ring.Partitions, heldBy(cluster, others))
			time.Sleep(100 * time.Millisecond)
		}
		requireOneHolderEach(t, cluster, few, 5*time.Second)
		requireOneHolderEach(t, cluster, others, 5*time.Second)
		time.Sleep(30 * time.Second)
		later, _ := inspect.Panel(cluster.Node(0))

		cluster.Heal()
		all := slices.Concat(few, others)
		requireOneHolderEach(t, cluster, all, 10*time.Second)
		for _, i := range all {
			p, _ := inspect.Panel(cluster.Node(i))
			assert.Equal(t, later.Origin, p.Origin, "the later era stays")
		}
		awaitPanel(t, cluster.Nodes(), 7, 20*time.Second)
		requireNoShares(t, cluster)
	})
}

// Of two one is the witness: the other one's death costs nothing. When the witness dies, the other one is half of all, and decides by
// shares until SplitMemory, or for OutvoteAfter once somebody has come.
func TestOneOfTwoDies(t *testing.T) {
	const splitMemory = 3 * time.Minute
	for name, c := range map[string]struct {
		witness, newcomer bool
		decides           time.Duration
	}{
		"that is no witness":           {},
		"the witness":                  {witness: true, decides: splitMemory},
		"the witness, and one follows": {witness: true, newcomer: true, decides: peerlimit.DefaultOutvoteAfter},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 2, outvoting(0, splitMemory))
				witnesses, learners := witnessesOf(t, cluster)
				dies, lives := learners[0], witnesses[0]
				if c.witness {
					dies, lives = lives, dies
				}
				cluster.Kill(dies)
				died := time.Now()
				living := []int{lives}
				if c.newcomer {
					cluster.Add()
					living = append(living, 2)
				}
				if c.decides > 0 {
					time.Sleep(3 * time.Second)
					requireNobodyDecides(t, cluster, living, c.decides-time.Since(died))
				}
				requireOneHolderEach(t, cluster, living, 5*time.Second)
				requireNoShares(t, cluster)
			})
		})
	}
}

// The founder of the later era dies as soon as there is one, and takes the only witness with it.
func TestTheFounderOfALaterEraDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 6, outvoting(10*time.Second, 0))
		witnesses, _ := witnessesOf(t, cluster)
		for _, i := range witnesses[:3] {
			cluster.Kill(i)
			cluster.Add()
		}
		var first wire.Origin
		for began := time.Now(); first.Era == 0; time.Sleep(5 * time.Millisecond) {
			require.Less(t, time.Since(began), 20*time.Second)
			for _, n := range cluster.Nodes() {
				if p, _ := inspect.Panel(n); p.Origin.Era == 1 {
					first = p.Origin
				}
			}
		}
		cluster.Kill(cluster.Index(first.Name))
		var living []int
		for _, n := range cluster.Nodes() {
			living = append(living, cluster.Index(n.Self().Name))
		}
		requireOneHolderEach(t, cluster, living, 20*time.Second)
		p, _ := inspect.Panel(cluster.Nodes()[0])
		assert.NotEqual(t, first, p.Origin)
		requireNoShares(t, cluster)
	})
}

// A split of which no side has a majority lasts for longer than SplitMemory: each side goes on alone, and after it they are one again.
func TestSidesOfALongSplitBecomeOneAgain(t *testing.T) {
	playedBySchedules(t)
	const splitMemory = 2 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5, outvoting(0, splitMemory))
		witnessesOf(t, cluster)
		sides := [][]int{{0, 1}, {2, 3}, {4}}
		cluster.Split(sides...)
		split := time.Now()
		time.Sleep(time.Second)
		requireNobodyDecides(t, cluster, slices.Concat(sides...), splitMemory-time.Since(split))
		for _, side := range sides {
			requireOneHolderEach(t, cluster, side, 5*time.Second)
		}
		time.Sleep(10 * time.Second)
		cluster.Heal()
		requireOneHolderEach(t, cluster, slices.Concat(sides...), 15*time.Second)
		awaitPanel(t, cluster.Nodes(), 5, 20*time.Second)
		requireNoShares(t, cluster)
	})
}

// A member that is cut off from the witnesses, but not from a member that has a majority, is not left behind by dead ones: it would take
// the cluster over.
func TestWhoReachesAMemberWithAMajorityFoundsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 4, outvoting(time.Second, 10*time.Second))
		witnesses, learners := witnessesOf(t, cluster)
		apart, rest := witnesses[0], []int{witnesses[1], witnesses[2], learners[0]}
		cluster.CutBoth(apart, witnesses[1])
		cluster.CutBoth(apart, witnesses[2])
		time.Sleep(3 * time.Second)
		for range 60 {
			time.Sleep(time.Second)
			require.Zero(t, heldBy(cluster, []int{apart}))
			p, hasQuorum := inspect.Panel(cluster.Node(learners[0]))
			require.True(t, hasQuorum && p.Origin.Era == 0, "%v", p)
		}
		require.Equal(t, ring.Partitions, heldBy(cluster, rest))
		cluster.Heal()
		requireOneHolderEach(t, cluster, append(rest, apart), 15*time.Second)
	})
}
