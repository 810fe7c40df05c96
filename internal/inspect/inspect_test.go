package inspect_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/inspect"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/peerlimittest"

	// With the race detector all of a bubble runs on one core.
	_ "github.com/peerlimit/peerlimit/internal/onecore"
)

// The two ways to ask which node decides in full agree, also once a node is closed.
func TestFullDeciders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		nodes := cluster.Nodes()
		count := func() (deciders int) {
			for _, node := range nodes {
				bitmap := inspect.FullDeciders(node)
				for partition := range uint16(ring.Partitions) {
					decides := bitmap[partition/64]&(1<<(partition%64)) != 0
					require.Equal(t, inspect.DecidesInFull(node, partition), decides)
					if decides {
						deciders++
					}
				}
			}
			return deciders
		}
		require.Equal(t, ring.Partitions, count())
		cluster.Kill(0)
		require.Less(t, count(), ring.Partitions)
	})
}
