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

// All nodes say the same, and after the owner's end it is as was said.
func TestPlacementNamesWhoIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(1))
		before := make(map[string]peerlimit.Placement)
		for i := range 100 {
			key := fmt.Sprint("user-", i)
			p := limiters[0].Placement(key)
			before[key] = p
			require.Equal(t, limiters[0].Owner(key), p.Owner)
			require.Len(t, p.Standbys, 1)
			require.NotEmpty(t, p.Standbys[0].Name)
			require.NotEqual(t, p.Owner.Name, p.Standbys[0].Name)
			for _, l := range limiters {
				require.Equal(t, p.Partition, l.Placement(key).Partition)
				require.Equal(t, p.Standbys[0].Name, l.Placement(key).Standbys[0].Name)
			}
		}
		gone := cluster.Node(2).Self().Name
		cluster.Kill(2)
		time.Sleep(5 * time.Second)
		for key, p := range before {
			next := p.Owner.Name
			if next == gone {
				next = p.Standbys[0].Name
			}
			require.Equal(t, next, limiters[0].Placement(key).Owner.Name)
		}
	})
}

func TestPlacementWithoutOthersHasNoStandby(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{})
	require.NoError(t, err)
	defer node.Close()
	limiter, err := node.Limiter("api", peerlimit.PerSecond(1))
	require.NoError(t, err)
	p := limiter.Placement("user")
	require.True(t, p.Owner.Self)
	require.Empty(t, p.Standbys)
}
