package peerlimit_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/peerlimittest"
	"github.com/peerlimit/peerlimit/transport"
)

// endAll ends nodes of a cluster at the same moment, and returns what each end returned and how long the slowest took.
func endAll(nodes []*peerlimit.Node, end func(*peerlimit.Node) error) (errs []error, slowest time.Duration) {
	began := time.Now()
	errs = make([]error, len(nodes))
	var ending sync.WaitGroup
	for i, node := range nodes {
		ending.Go(func() { errs[i] = end(node) })
	}
	ending.Wait()
	return errs, time.Since(began)
}

func leaveWithin(patience time.Duration) func(*peerlimit.Node) error {
	return func(node *peerlimit.Node) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return node.Leave(ctx)
	}
}

// A service is stopped: all of its instances are told to go at the same moment. It is no error to be the last, and nobody waits
// for an answer that nobody is left to give.
func TestAllEndAtOnce(t *testing.T) {
	for name, end := range map[string]func(*peerlimit.Node) error{"Leave": leaveWithin(20 * time.Second), "Close": (*peerlimit.Node).Close} {
		for _, n := range []int{2, 3, 7} {
			t.Run(fmt.Sprintf("%s of %d", name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					nodes := peerlimittest.NewCluster(t, n).Nodes()
					errs, slowest := endAll(nodes, end)
					for _, err := range errs {
						assert.NoError(t, err)
					}
					assert.LessOrEqual(t, slowest, 2*time.Second, "as long as one takes that leaves alone")
				})
			})
		}
	}
}

// All but one are stopped at the same moment: each of them is known to have left by the one that stays.
func TestAllButOneLeaveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed, left atomic.Int32
		cluster := peerlimittest.NewCluster(t, 5, func(c *peerlimit.Config) {
			if c.Name == "node0" {
				c.OnEvent = countEnds(&failed, &left)
			}
		})
		errs, slowest := endAll(cluster.Nodes()[1:], leaveWithin(20*time.Second))
		for _, err := range errs {
			assert.NoError(t, err)
		}
		assert.LessOrEqual(t, slowest, 4*time.Second, "one witness goes after the other")
		synctest.Wait()
		assert.Equal(t, 1, cluster.Node(0).Stats().Known)
		time.Sleep(time.Minute)
		assert.Zero(t, failed.Load())
		assert.EqualValues(t, 4, left.Load())
	})
}

func countEnds(failed, left *atomic.Int32) func(peerlimit.Event) {
	return func(e peerlimit.Event) {
		switch e.Kind {
		case peerlimit.EventMemberFailed:
			failed.Add(1)
		case peerlimit.EventMemberLeft:
			left.Add(1)
		}
	}
}

// The last of a cluster has nobody to hand over to or to tell.
func TestTheLastLeavesAtOnce(t *testing.T) {
	for name, end := range map[string]func(*peerlimit.Node) error{"Leave": leaveWithin(20 * time.Second), "Close": (*peerlimit.Node).Close} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				require.NoError(t, cluster.Leave(t.Context(), 2))
				require.NoError(t, cluster.Leave(t.Context(), 1))
				began := time.Now()
				require.NoError(t, end(cluster.Node(0)))
				assert.Zero(t, time.Since(began))
			})
		})
	}
}

// A node that nobody hears does not say that it has left: the others count it as failed.
func TestLeaveUnheardIsAnError(t *testing.T) {
	for name, patience := range map[string]time.Duration{"before it is noticed": 2 * time.Second, "after": 20 * time.Second} {
		for how, end := range map[string]func(*peerlimit.Node) error{"Leave": leaveWithin(patience), "Close": (*peerlimit.Node).Close} {
			t.Run(how+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cluster := peerlimittest.NewCluster(t, 3)
					cluster.Isolate(0)
					if name == "after" && how == "Close" {
						time.Sleep(patience)
					}
					began := time.Now()
					err := end(cluster.Node(0))
					assert.ErrorContains(t, err, "peerlimit: the goodbye was confirmed by nobody")
					assert.LessOrEqual(t, time.Since(began), patience+3*time.Second+10*time.Millisecond)
					known := 3
					if name == "after" {
						known = 2 // the dead stop counting
					}
					assert.Equal(t, known, cluster.Node(1).Stats().Known)
				})
			})
		}
	}
}

// All others have crashed. Their machines refuse connections, so nobody is there to be told.
func TestLeaveAfterAllOthersWereKilled(t *testing.T) {
	for _, noticed := range []bool{false, true} {
		t.Run(fmt.Sprintf("noticed %v", noticed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 3)
				cluster.Kill(1)
				cluster.Kill(2)
				if noticed {
					time.Sleep(20 * time.Second)
				}
				began := time.Now()
				require.NoError(t, leaveWithin(20*time.Second)(cluster.Node(0)))
				if noticed {
					assert.LessOrEqual(t, time.Since(began), 100*time.Millisecond)
				}
			})
		})
	}
}

// One of five has failed behind the network, and a majority knows it: it is nobody that a leaving node could tell.
func TestLeaveBesideAFailedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 5)
		nodes := cluster.Nodes()
		cluster.Isolate(4)
		time.Sleep(20 * time.Second)
		errs, slowest := endAll(nodes[:4], leaveWithin(20*time.Second))
		for _, err := range errs {
			assert.NoError(t, err)
		}
		assert.LessOrEqual(t, slowest, 4*time.Second)
	})
}

// Close during Leave ends it, and both say the same of the goodbye.
func TestCloseDuringLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		for i, after := range []time.Duration{0, 300 * time.Millisecond} {
			node := cluster.Node(i)
			began := time.Now()
			left := make(chan error)
			go func() { left <- cluster.Leave(context.Background(), i) }()
			time.Sleep(after)
			require.NoError(t, node.Close())
			require.NoError(t, <-left)
			assert.LessOrEqual(t, time.Since(began), after+time.Second)
		}
		synctest.Wait()
		assert.Equal(t, 1, cluster.Node(2).Stats().Known)
	})
}

// A network that carries streams and loses every packet without a word.
type withoutPackets struct{ transport.Network }

func (n withoutPackets) ListenPacket(addr string) (net.PacketConn, error) {
	conn, err := n.Network.ListenPacket(addr)
	return lostPackets{conn}, err
}

type lostPackets struct{ net.PacketConn }

func (lostPackets) WriteTo(p []byte, _ net.Addr) (int, error) { return len(p), nil }

// Where packets are dropped, a Leave that returns nil was heard, and counts as none of a member that failed.
func TestGoodbyesWithoutPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		t.Cleanup(network.Close)
		var failed, left atomic.Int32
		var nodes []*peerlimit.Node
		for i := range 4 {
			config := peerlimit.Config{
				Name: fmt.Sprintf("node%d", i), BindAddr: fmt.Sprintf("10.0.0.%d:7946", i+1), Insecure: true, Logger: slog.New(slog.DiscardHandler),
				Network: withoutPackets{network.Host(fmt.Sprintf("10.0.0.%d", i+1))},
			}
			if i > 0 {
				config.Join = []string{"10.0.0.1"}
			}
			if i == 3 {
				config.OnEvent = countEnds(&failed, &left)
			}
			node, err := peerlimit.Start(config)
			require.NoError(t, err)
			defer node.Close()
			nodes = append(nodes, node)
		}
		for _, node := range nodes {
			require.NoError(t, node.WaitReady(t.Context(), 4))
		}
		time.Sleep(time.Minute) // until nobody asks for what a start may have missed
		for i, node := range nodes[:3] {
			began := time.Now()
			require.NoError(t, leaveWithin(30*time.Second)(node))
			assert.LessOrEqual(t, time.Since(began), 2*time.Second)
			synctest.Wait()
			assert.Equal(t, 3-i, nodes[3].Stats().Known)
		}
		time.Sleep(time.Minute)
		assert.Zero(t, failed.Load())
		assert.EqualValues(t, 3, left.Load())
	})
}
