package peerlimittest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Everything that can be done to a cluster, in controlled time and in real time.
func TestCluster(t *testing.T) {
	t.Run("in a bubble", func(t *testing.T) { synctest.Test(t, exercise) })
	t.Run("in real time", exercise)
}

func exercise(t *testing.T) {
	cluster := peerlimittest.NewCluster(t, 3)
	require.Equal(t, 3, cluster.Len())
	limit := peerlimit.PerHour(1000)
	limiters := cluster.Limiters("api", limit)
	require.Len(t, limiters, 3)
	owner := cluster.Index(limiters[0].Owner("k").Name)
	caller := limiters[(owner+1)%3]
	require.Equal(t, peerlimit.OriginRemote, take(t, caller).Origin)

	cluster.Freeze(owner)
	require.Contains(t, alone, take(t, caller).Origin)
	cluster.Thaw(owner)
	cluster.WaitReady()
	require.Equal(t, peerlimit.OriginRemote, take(t, caller).Origin)

	cluster.Isolate(owner)
	require.Contains(t, alone, take(t, caller).Origin)
	cluster.Heal()
	require.Eventually(t, func() bool { return take(t, caller).Origin == peerlimit.OriginRemote }, 20*time.Second, 50*time.Millisecond)

	cluster.Add()
	cluster.WaitReady()
	require.Len(t, cluster.Nodes(), 4)
	require.NoError(t, cluster.Leave(context.Background(), 3))
	cluster.WaitReady()
	require.Len(t, cluster.Nodes(), 3)
	require.Equal(t, -1, cluster.Index("nobody"))

	cluster.Kill(owner)
	_, err := limiters[owner].Take(t.Context(), "k", 1)
	require.ErrorIs(t, err, peerlimit.ErrClosed)
	require.Contains(t, alone, take(t, caller).Origin)
}

// alone are the origins of decisions by a share.
var alone = []peerlimit.Origin{peerlimit.OriginStandby, peerlimit.OriginFallback}

func take(t *testing.T, l *peerlimit.Limiter) peerlimit.Decision {
	t.Helper()
	d, err := l.Take(t.Context(), "k", 1)
	require.NoError(t, err)
	return d
}

// An option reaches every node, and only what is the cluster's own is overridden.
func TestOptions(t *testing.T) {
	node := peerlimittest.NewNode(t, func(c *peerlimit.Config) {
		c.Name, c.BindAddr, c.Join = "mine", "127.0.0.1:1", []string{"nobody"}
	})
	require.Regexp(t, `^mine-`, node.Self().Name)
	require.Equal(t, "10.0.0.1:7946", node.Self().Addr)
	require.Equal(t, "10.0.0.1:7947", node.Self().RPCAddr)
}

// A service's test: whatever happens to the owner, the service answers.
func ExampleNewCluster() {
	test := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cluster := peerlimittest.NewCluster(t, 3)
			limiters := cluster.Limiters("api", peerlimit.PerSecond(100))
			owner := cluster.Index(limiters[0].Owner("bob").Name)
			cluster.Kill(owner)
			d, err := limiters[(owner+1)%3].Take(t.Context(), "bob", 1)
			if err != nil || !d.Allowed {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	fmt.Println(testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "service", F: test}}))
	// Output: true
}
