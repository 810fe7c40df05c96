package peerlimit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/sim"
)

// What was owned before may be noted from the next ring already while a round of the one before begins: then it is this
// node itself that owned before. Once it was asked like others, and the round waited for its answer forever.
func TestARoundDoesNotAskTheNodeItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		nodes := startNodes(t, network, nil, 3)
		n := nodes[0]
		n.history.Note(n.rings.Build([]string{n.identity}), n.route.Load().ring.Without(n.identity), true)
		for part := range uint16(ring.Partitions) {
			require.Empty(t, n.history.PreviousOwner(part))
			if n.table.Holds(part) {
				p := n.table.Lock(part)
				p.Holding.Lapse()
				p.Unlock()
			}
		}
		n.keeper.Wake()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, n.WaitReady(ctx, 3), "it acquires again what is its own")
	})
}

// startNodes starts so many nodes that join those there are, and returns all when they know each other and hold what is
// theirs. They end with the test.
func startNodes(t *testing.T, network *sim.Network, nodes []*Node, count int) []*Node {
	var seeds []string
	for _, n := range nodes {
		seeds = append(seeds, n.Self().Addr)
	}
	for range count {
		ip := hostIP(len(nodes) + 1)
		c := Config{BindAddr: ip, RPCAddr: ip + ":7947", Insecure: true, Network: network.Host(ip), Logger: slog.New(slog.DiscardHandler), Join: seeds}
		n, err := Start(c)
		require.NoError(t, err)
		t.Cleanup(func() { n.Close() })
		if nodes = append(nodes, n); len(seeds) == 0 {
			seeds = []string{n.Self().Addr}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range nodes {
		if err := n.WaitReady(ctx, len(nodes)); err != nil {
			for _, n := range nodes {
				t.Log(acquiring(n))
			}
			require.NoError(t, err)
		}
	}
	return nodes
}

// Where rings differ for a moment, as they do while several nodes join, partitions are contended for. Each of them once
// chose the moment of its next attempt by itself, so that thousands of rounds for one or two partitions each were begun,
// and on a busy machine takes were not answered in time.
func TestJoinsTakeFewRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		nodes := startNodes(t, network, nil, 3)
		before := nodes[0].reach.Heard.Load()
		began := time.Now()
		nodes = startNodes(t, network, nodes, 6)
		rounds := nodes[0].reach.Heard.Load() - before
		t.Logf("ballots went up by %d in %v", rounds, time.Since(began))
		require.Less(t, rounds, uint64(150)) // sixteen to fifty; a thousand when each partition is on its own
	})
}

// A node whose seeds are not there yet may have met others before it reaches them. Then two clusters meet of which each has
// held everything, and a node decides by its own copy what another one decides as well. Nobody is ready as long as that lasts.
func TestNobodyIsReadyWhileTwoHoldTheSame(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			network := sim.New(seed)
			defer network.Close()
			var nodes []*Node
			start := func(i int, join ...int) {
				config := Config{BindAddr: hostIP(i), Insecure: true, Network: network.Host(hostIP(i)), Logger: slog.New(slog.DiscardHandler)}
				for _, other := range join {
					config.Join = append(config.Join, hostIP(other))
				}
				n, err := Start(config)
				require.NoError(t, err)
				t.Cleanup(func() { n.Close() })
				nodes = append(nodes, n)
			}
			start(2, 1)
			start(3, 1, 2)
			time.Sleep(time.Duration(seed) * 250 * time.Millisecond)
			start(1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, n := range nodes {
				require.NoError(t, n.WaitReady(ctx, 3))
			}
			for key := range 100 {
				admitted := 0
				for _, n := range nodes {
					l, err := n.Limiter("api", PerHour(10))
					require.NoError(t, err)
					for range 10 {
						if l.Allow(ctx, fmt.Sprint(key)) {
							admitted++
						}
					}
				}
				require.Equal(t, 10, admitted, "seed %d, key %d", seed, key)
			}
		})
	}
}

// hostIP returns the address of a simulated machine.
func hostIP(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }
