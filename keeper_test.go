package peerlimit

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

// What was owned before may be noted from the next ring already while a round of the one before begins: then it is this
// node itself that owned before. Once it was asked like others, and the round waited for its answer for good.
func TestARoundDoesNotAskTheNodeItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		var nodes []*Node
		for i := range 3 {
			c := Config{BindAddr: simIP(i + 1), RPCAddr: simIP(i+1) + ":7947", Insecure: true, Network: network.Host(simIP(i + 1)), Logger: slog.New(slog.DiscardHandler)}
			for _, other := range nodes {
				c.Join = append(c.Join, other.Self().Addr)
			}
			n, err := Start(c)
			require.NoError(t, err)
			defer n.Close()
			nodes = append(nodes, n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, n := range nodes {
			require.NoError(t, n.WaitReady(ctx, 3))
		}
		n := nodes[0]
		for part := range uint16(partitionCount) {
			if p := &n.table.partitions[part]; n.table.holds(part) {
				p.mu.Lock()
				p.holding.lapse()
				n.keeper.previous[part].Store(&n.identity)
				n.table.noteHolding(part, p)
				p.mu.Unlock()
			}
		}
		n.keeper.wake()
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, n.WaitReady(ctx, 3), "it acquires again what is its own")
	})
}
