package peerlimittest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	_ "github.com/peerlimit/peerlimit/internal/onecore"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// ownerAndOthers returns the number of the node that owns take's key, and those of two others.
func ownerAndOthers(cluster *peerlimittest.Cluster, l *peerlimit.Limiter) (owner, one, two int) {
	owner = cluster.Index(l.Owner("k").Name)
	return owner, (owner + 1) % 3, (owner + 2) % 3
}

// inTime makes a take and returns what was decided and how long that took.
func inTime(t *testing.T, l *peerlimit.Limiter) (peerlimit.Origin, time.Duration) {
	t.Helper()
	began := time.Now()
	return take(t, l).Origin, time.Since(began)
}

// A cut is between the two it names, in the direction it names, and ends with Mend.
func TestCutsOfSingleLinks(t *testing.T) {
	for name, cut := range map[string]func(c *peerlimittest.Cluster, caller, owner int){
		"the request": func(c *peerlimittest.Cluster, caller, owner int) { c.Cut(caller, owner) },
		"the answer":  func(c *peerlimittest.Cluster, caller, owner int) { c.Cut(owner, caller) },
		"both":        func(c *peerlimittest.Cluster, caller, owner int) { c.CutBoth(owner, caller) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				limiters := cluster.Limiters("api", peerlimit.PerHour(1000))
				owner, caller, other := ownerAndOthers(cluster, limiters[0])
				cut(cluster, caller, owner)
				_, took := inTime(t, limiters[caller])
				require.GreaterOrEqual(t, took, peerlimit.DefaultRPCTimeout, "it hears nothing")
				origin, took := inTime(t, limiters[other])
				require.Equal(t, peerlimit.OriginRemote, origin)
				require.Less(t, took, 5*time.Millisecond, "the others' links stay as they are")
				cluster.Mend(owner, caller)
				require.Eventually(t, func() bool {
					origin, took := inTime(t, limiters[caller])
					return origin == peerlimit.OriginRemote && took < 5*time.Millisecond
				}, 10*time.Second, 50*time.Millisecond)
			})
		})
	}
}

// A node that is cut off from the beginning meets only the others, and all of them once it is mended.
func TestAddCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		alive := func(node *peerlimit.Node) (names []string) {
			for _, m := range node.Members() {
				if m.State == peerlimit.MemberAlive {
					names = append(names, m.Name)
				}
			}
			return names
		}
		cluster.Split([]int{0, 1}, []int{2})
		newcomer := cluster.AddCutOff([]int{0, 1})
		time.Sleep(10 * time.Second)
		require.ElementsMatch(t, []string{newcomer.Self().Name, cluster.Node(2).Self().Name}, alive(newcomer))
		require.NotContains(t, alive(cluster.Node(0)), newcomer.Self().Name)

		alone := cluster.AddCutOff([]int{0, 1, 2, 3})
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{alone.Self().Name}, alive(alone))

		cluster.Heal()
		cluster.WaitReady()
		require.Len(t, alive(alone), 5)
	})
}

// Conditions hold for one direction of one link or for the whole network, and the last word counts.
func TestDegrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerHour(1000))
		owner, caller, other := ownerAndOthers(cluster, limiters[0])
		took := func(i int) time.Duration {
			_, took := inTime(t, limiters[i])
			return took
		}
		cluster.DegradeLink(caller, owner, peerlimittest.Conditions{Latency: 30 * time.Millisecond})
		require.InDelta(t, 30*time.Millisecond, took(caller), float64(2*time.Millisecond), "one way only")
		require.Less(t, took(other), 3*time.Millisecond)

		cluster.Degrade(peerlimittest.Conditions{Latency: 10 * time.Millisecond})
		time.Sleep(30 * time.Millisecond) // a connection keeps its order: a ping that is under way holds up what is sent now
		require.Equal(t, 20*time.Millisecond, took(caller), "the whole network, and no jitter")
		require.Equal(t, 20*time.Millisecond, took(other))

		cluster.Degrade(peerlimittest.Conditions{Loss: 1})
		require.GreaterOrEqual(t, took(caller), peerlimit.DefaultRPCTimeout)

		cluster.Degrade(peerlimittest.Healthy)
		require.Eventually(t, func() bool { return took(caller) < 3*time.Millisecond }, 10*time.Second, 50*time.Millisecond)
	})
}

// Joins, leaves and kills from goroutines of their own: one cluster of those that are left, every number given once.
func TestMembersComeAndGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		var changes sync.WaitGroup
		left := make(chan error, 2)
		for i := range 2 {
			changes.Go(func() { left <- cluster.Leave(context.Background(), i) })
		}
		changes.Go(func() { cluster.Kill(2) })
		changes.Go(func() {
			time.Sleep(time.Millisecond)
			cluster.Kill(0) // it is leaving
		})
		joined := make(chan string, 3)
		for range 3 {
			changes.Go(func() { joined <- cluster.Add().Self().Name })
		}
		changes.Wait()
		<-left
		<-left // the one that was killed may have failed to say goodbye
		require.Equal(t, 8, cluster.Len())
		numbers := map[int]bool{}
		for range 3 {
			numbers[cluster.Index(<-joined)] = true
		}
		require.Equal(t, map[int]bool{5: true, 6: true, 7: true}, numbers)
		cluster.WaitReady()
		require.Len(t, cluster.Nodes(), 5)
	})
}
