package peerlimit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/peerlimittest"
)

// Every way in refuses what is wrong, in the same words, on the owner and elsewhere.
func TestLimiterRefusesWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(10))
		ctx := context.Background()
		for _, l := range limiters {
			for _, key := range []string{"", strings.Repeat("k", 1025)} {
				_, err := l.Take(ctx, key, 1)
				require.ErrorIs(t, err, peerlimit.ErrInvalidKey)
				_, err = l.Peek(ctx, key)
				require.ErrorIs(t, err, peerlimit.ErrInvalidKey)
				require.ErrorIs(t, l.Wait(ctx, key), peerlimit.ErrInvalidKey)
				require.ErrorIs(t, l.WaitN(ctx, key, 1), peerlimit.ErrInvalidKey)
				_, err = l.Reserve(ctx, key, 1)
				require.ErrorIs(t, err, peerlimit.ErrInvalidKey)
				require.ErrorIs(t, l.Refund(ctx, key, 1), peerlimit.ErrInvalidKey)
				require.ErrorIs(t, l.Reset(ctx, key), peerlimit.ErrInvalidKey)
				require.False(t, l.Allow(ctx, key))
			}
			for _, cost := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
				_, err := l.Take(ctx, "k", cost)
				require.ErrorIs(t, err, peerlimit.ErrInvalidCost)
				require.ErrorContains(t, err, fmt.Sprint(cost))
				require.ErrorIs(t, l.WaitN(ctx, "k", cost), peerlimit.ErrInvalidCost)
				_, err = l.Reserve(ctx, "k", cost)
				require.ErrorIs(t, err, peerlimit.ErrInvalidCost)
				require.ErrorIs(t, l.Refund(ctx, "k", cost), peerlimit.ErrInvalidCost)
				require.False(t, l.AllowN(ctx, "k", cost))
			}
			_, err := l.Take(ctx, "k", 10.5)
			require.ErrorIs(t, err, peerlimit.ErrExceedsBurst)
			require.ErrorContains(t, err, "10.5")
			_, err = l.Reserve(ctx, "k", 10.5)
			require.ErrorIs(t, err, peerlimit.ErrExceedsBurst)
			require.False(t, l.AllowN(ctx, "k", 11))

			longest := strings.Repeat("k", 1024)
			require.True(t, l.Allow(ctx, longest+""))
			require.NoError(t, l.Reset(ctx, longest))
		}
	})
}

func TestNodeRefusesLimitersThatAreWrong(t *testing.T) {
	node := peerlimittest.NewNode(t)
	limit := peerlimit.PerSecond(1)
	for _, name := range []string{"", strings.Repeat("n", 256)} {
		_, err := node.Limiter(name, limit)
		require.ErrorIs(t, err, peerlimit.ErrInvalidName)
		_, err = node.LimiterFunc(name, func(context.Context, string) []peerlimit.Limit { return nil })
		require.ErrorIs(t, err, peerlimit.ErrInvalidName)
	}
	nine := make([]peerlimit.Limit, 9)
	for i := range nine {
		nine[i] = limit
	}
	for _, limits := range [][]peerlimit.Limit{
		nil, nine, {{}}, {limit, peerlimit.PerSecond(-1)}, {peerlimit.PerSecond(0)}, {peerlimit.Per(1, 0)}, {peerlimit.Per(1, -time.Second)},
		{peerlimit.PerSecond(math.NaN())}, {peerlimit.PerSecond(math.Inf(1))}, {limit.WithBurst(-1)}, {limit.WithBurst(math.NaN())},
		{limit.WithBurst(math.Inf(1))}, {{Tokens: 1, Period: 1, Algorithm: 7}},
	} {
		_, err := node.Limiter("api", limits...)
		require.ErrorIs(t, err, peerlimit.ErrInvalidLimit, "%v", limits)
		require.ErrorContains(t, err, `peerlimit: invalid limit: limiter "api": `)
	}
	_, err := node.LimiterFunc("api", nil)
	require.ErrorIs(t, err, peerlimit.ErrInvalidLimit)

	first, err := node.Limiter("api", limit, peerlimit.PerMinute(10))
	require.NoError(t, err)
	again, err := node.Limiter("api", limit, peerlimit.PerMinute(10))
	require.NoError(t, err)
	require.True(t, first.Allow(t.Context(), "k"))
	require.False(t, again.Allow(t.Context(), "k"), "the same buckets")
	_, err = node.Limiter("api", limit)
	require.ErrorIs(t, err, peerlimit.ErrNameTaken)
	require.ErrorContains(t, err, `"api"`)
	_, err = node.LimiterFunc("api", func(context.Context, string) []peerlimit.Limit { return []peerlimit.Limit{limit} })
	require.ErrorIs(t, err, peerlimit.ErrNameTaken)
}

// The limits of a LimiterFunc are checked on every call: an empty result is never "unlimited".
func TestLimiterFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		tiers := func(_ context.Context, key string) []peerlimit.Limit {
			switch key[0] {
			case 'f':
				return []peerlimit.Limit{peerlimit.PerHour(5)}
			case 'e':
				return []peerlimit.Limit{peerlimit.PerHour(100), peerlimit.PerMinute(50)}
			case 'b':
				return []peerlimit.Limit{{Tokens: -1, Period: 1}}
			case 'm':
				return make([]peerlimit.Limit, 9)
			}
			return nil
		}
		for i, node := range cluster.Nodes() {
			l, err := node.LimiterFunc("tiers", tiers)
			require.NoError(t, err)
			for key, want := range map[string]int{"free": 5, "enterprise": 50} {
				allowed := 0
				for range 60 {
					if l.Allow(t.Context(), fmt.Sprint(key, i)) {
						allowed++
					}
				}
				require.Equal(t, want, allowed, key)
			}
			for _, key := range []string{"none", "broken", "many"} {
				_, err := l.Take(t.Context(), key, 1)
				require.ErrorIs(t, err, peerlimit.ErrInvalidLimit, key)
				require.ErrorIs(t, l.Wait(t.Context(), key), peerlimit.ErrInvalidLimit, key)
				require.ErrorContains(t, err, `peerlimit: invalid limit: limiter "tiers", key "`+key+`": `, "whoever reads it in a log finds the function and the key")
			}
		}
	})
}

func TestClosedNodeSaysSo(t *testing.T) {
	for name, end := range map[string]func(*peerlimit.Node) error{
		"Close": (*peerlimit.Node).Close,
		"Leave": func(n *peerlimit.Node) error { return n.Leave(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := peerlimittest.NewCluster(t, 2)
				l := cluster.Limiters("api", peerlimit.PerSecond(1))[0]
				node := cluster.Node(0)
				require.NoError(t, end(node))
				require.NoError(t, end(node), "again")
				require.NoError(t, node.Close())
				ctx := context.Background()
				_, err := l.Take(ctx, "k", 1)
				require.ErrorIs(t, err, peerlimit.ErrClosed)
				_, err = l.Peek(ctx, "k")
				require.ErrorIs(t, err, peerlimit.ErrClosed)
				require.ErrorIs(t, l.Wait(ctx, "k"), peerlimit.ErrClosed)
				require.ErrorIs(t, l.Refund(ctx, "k", 1), peerlimit.ErrClosed)
				require.ErrorIs(t, l.Reset(ctx, "k"), peerlimit.ErrClosed)
				require.ErrorIs(t, node.WaitReady(ctx, 1), peerlimit.ErrClosed)
				_, err = node.Limiter("other", peerlimit.PerSecond(1))
				require.ErrorIs(t, err, peerlimit.ErrClosed)
				// What only reads still answers.
				_ = node.Stats()
				_ = node.Self()
				_ = node.Members()
				_ = l.Owner("k")
			})
		})
	}
}

func TestLeaveWithTooLittleTimeStillLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 3)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := cluster.Leave(ctx, 0)
		require.Error(t, err)
		_, err = cluster.Node(0).Limiter("api", peerlimit.PerSecond(1))
		require.ErrorIs(t, err, peerlimit.ErrClosed)
		cluster.WaitReady()
	})
}

func TestWaitReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := cluster.Node(0).WaitReady(ctx, 3)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "2 of 3")
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, cluster.Node(0).WaitReady(t.Context(), 0))

		ready := make(chan error, 1)
		go func() { ready <- cluster.Node(0).WaitReady(context.Background(), 3) }()
		time.Sleep(time.Minute)
		cluster.Add()
		require.NoError(t, <-ready)

		go func() { ready <- cluster.Node(0).WaitReady(context.Background(), 9) }()
		synctest.Wait()
		require.NoError(t, cluster.Node(0).Close())
		require.ErrorIs(t, <-ready, peerlimit.ErrClosed)
	})
}

// A node that expects others and has met none gives out its share only: a cluster that starts up in pieces stays within
// its limit.
func TestNodeThatHasMetNobodyDecidesByItsShare(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*peerlimit.Config)
		allowed int
	}{
		"one seed":        {func(c *peerlimit.Config) { c.Join = []string{"10.0.0.9"} }, 30},
		"two seeds":       {func(c *peerlimit.Config) { c.Join = []string{"10.0.0.8", "10.0.0.9:1"} }, 20},
		"own address too": {func(c *peerlimit.Config) { c.Join = []string{"10.0.0.1", "10.0.0.9"} }, 30},
		"only its own":    {func(c *peerlimit.Config) { c.Join = []string{"10.0.0.1"} }, 60},
		"expected":        {func(c *peerlimit.Config) { c.ExpectMembers = 6 }, 10},
		"more expected":   {func(c *peerlimit.Config) { c.ExpectMembers, c.Join = 6, []string{"10.0.0.9"} }, 10},
		"nobody expected": {func(*peerlimit.Config) {}, 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := sim.New(1)
				defer network.Close()
				config := peerlimit.Config{
					BindAddr: "10.0.0.1", Insecure: true, Network: network.Host("10.0.0.1"), Logger: slog.New(slog.DiscardHandler),
				}
				test.change(&config)
				began := time.Now()
				node, err := peerlimit.Start(config)
				require.NoError(t, err)
				defer node.Close()
				require.LessOrEqual(t, time.Since(began), 5*time.Second)
				l, err := node.Limiter("api", peerlimit.PerHour(60))
				require.NoError(t, err)
				allowed := 0
				for range 100 {
					d, err := l.Take(t.Context(), "k", 1)
					require.NoError(t, err)
					if d.Allowed {
						allowed++
					}
				}
				require.Equal(t, test.allowed, allowed)
			})
		})
	}
}

// Nodes of two clusters that share addresses, as pods do that are recycled, never mix.
func TestClustersNeverMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		start := func(host *sim.Host, cluster string, join ...string) *peerlimit.Node {
			node, err := peerlimit.Start(peerlimit.Config{
				Cluster: cluster, BindAddr: host.IP(), Insecure: true, Network: host, Join: join, Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			t.Cleanup(func() { _ = node.Close() })
			return node
		}
		a1 := start(network.Host("10.0.0.1"), "a")
		a2 := start(network.Host("10.0.0.2"), "a", "10.0.0.1")
		require.NoError(t, a1.WaitReady(t.Context(), 2))
		require.NoError(t, a2.WaitReady(t.Context(), 2))

		// A node of another cluster takes over the address of a2, and knows of a1.
		network.Kill("10.0.0.2")
		b := start(network.Restart("10.0.0.2"), "b", "10.0.0.1")
		limitA, err := a1.Limiter("api", peerlimit.PerHour(100))
		require.NoError(t, err)
		limitB, err := b.Limiter("api", peerlimit.PerHour(100))
		require.NoError(t, err)
		for i := range 300 {
			for _, l := range []*peerlimit.Limiter{limitA, limitB} {
				d, err := l.Take(t.Context(), fmt.Sprint(i%10), 1)
				require.NoError(t, err)
				require.NotEqual(t, peerlimit.OriginRemote, d.Origin)
			}
			time.Sleep(time.Second)
		}
		require.Len(t, b.Members(), 1)
		for _, m := range a1.Members() {
			require.NotEqual(t, b.Self().Name, m.Name)
		}
		require.Zero(t, b.Stats().Served)
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []peerlimit.Event
		cluster := peerlimittest.NewCluster(t, 2, func(c *peerlimit.Config) {
			if c.Name == "node0" {
				c.OnEvent = func(e peerlimit.Event) {
					mu.Lock()
					defer mu.Unlock()
					seen = append(seen, e)
				}
			}
		})
		l := cluster.Limiters("api", peerlimit.PerSecond(100))[0]
		joined := cluster.Add()
		cluster.WaitReady()
		key := keyOwnedBy(t, l, joined.Self().Name, "k")
		cluster.Freeze(2)
		require.Contains(t, []peerlimit.Origin{peerlimit.OriginStandby, peerlimit.OriginFallback}, mustTake(t, l, key).Origin)
		cluster.Thaw(2)
		time.Sleep(time.Second)
		require.Equal(t, peerlimit.OriginRemote, mustTake(t, l, key).Origin)
		require.NoError(t, cluster.Leave(t.Context(), 2))
		crashed := cluster.Add()
		cluster.WaitReady()
		cluster.Kill(3)
		cluster.WaitReady()
		time.Sleep(15 * time.Second) // others own its keys by now; gossip takes longer to give it up
		synctest.Wait()

		mu.Lock()
		defer mu.Unlock()
		about := func(member string) (kinds []string) {
			for _, e := range seen {
				assert.False(t, e.Time.IsZero())
				if e.Member == member && e.Kind != peerlimit.EventLinkDown {
					kinds = append(kinds, e.Kind.String())
				}
			}
			return kinds
		}
		require.Equal(t, []string{"link up", "member joined", "degraded", "recovered", "member leaving", "member left"}, about(joined.Self().Name))
		require.Equal(t, []string{"link up", "member joined", "member failed", "member forgotten"}, about(crashed.Self().Name))
		require.Contains(t, about(""), "ring changed")
	})
}

func mustTake(t *testing.T, l *peerlimit.Limiter, key string) peerlimit.Decision {
	t.Helper()
	d, err := l.Take(t.Context(), key, 1)
	require.NoError(t, err)
	return d
}

// A receiver of events that is slow, or that closes the node, holds nothing up.
func TestSlowEventReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var node *peerlimit.Node
		called := make(chan struct{})
		network := sim.New(1)
		defer network.Close()
		node, err := peerlimit.Start(peerlimit.Config{
			BindAddr: "10.0.0.1", Insecure: true, Network: network.Host("10.0.0.1"),
			OnEvent: func(peerlimit.Event) {
				<-called
				_ = node.Close()
			},
		})
		require.NoError(t, err)
		close(called)
		time.Sleep(time.Minute)
		require.NoError(t, node.Close())
	})
}

// Nothing that arrives on the port for takes disturbs the node.
func TestHostileBytesOnTheRPCPort(t *testing.T) {
	node, err := peerlimit.Start(peerlimit.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer node.Close()
	l, err := node.Limiter("api", peerlimit.PerSecond(1e6))
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	garbage := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	huge := binary.BigEndian.AppendUint32(nil, math.MaxUint32)
	for i, b := range [][]byte{
		nil, {0}, garbage(3), garbage(100), garbage(100_000), huge, append(huge, garbage(1000)...),
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("PLMT"), append([]byte("PLMT"), garbage(300)...),
		bytes.Repeat([]byte{0}, 1<<16), bytes.Repeat([]byte{255}, 1<<16), []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	} {
		conn, err := net.Dial("tcp", node.Self().RPCAddr)
		require.NoError(t, err)
		_, _ = conn.Write(b) // the node may well have hung up
		if i%2 == 0 {
			_ = conn.(*net.TCPConn).CloseWrite() // likewise
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, err := io.Copy(io.Discard, conn)
			var timeout net.Error
			require.False(t, err != nil && assert.ErrorAs(t, err, &timeout) && timeout.Timeout(), "the node hangs up: %v", err)
		}
		require.NoError(t, conn.Close())
		require.True(t, l.Allow(t.Context(), "k"))
	}
	packet, err := net.Dial("udp", node.Self().Addr)
	require.NoError(t, err)
	defer packet.Close()
	for range 100 {
		_, _ = packet.Write(garbage(random.IntN(2000) + 1))
	}
	require.True(t, l.Allow(t.Context(), "k"))
}

// Close and Leave leave no goroutine behind, on real sockets.
func TestNoGoroutineIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 2 {
		var nodes []*peerlimit.Node
		for i := range 3 {
			config := peerlimit.Config{Logger: slog.New(slog.DiscardHandler), OnEvent: func(peerlimit.Event) {}}
			if i > 0 {
				config.Join = []string{nodes[0].Self().Addr}
			}
			node, err := peerlimit.Start(config)
			require.NoError(t, err)
			nodes = append(nodes, node)
		}
		var wg sync.WaitGroup
		for _, node := range nodes {
			require.NoError(t, node.WaitReady(t.Context(), 3))
			l, err := node.Limiter("api", peerlimit.PerSecond(1000))
			require.NoError(t, err)
			for i := range 100 {
				wg.Go(func() { l.Allow(t.Context(), fmt.Sprint(i)) })
			}
		}
		wg.Wait()
		require.NoError(t, nodes[0].Leave(t.Context()))
		for _, node := range nodes {
			require.NoError(t, node.Close())
		}
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the runtime counts a goroutine for a moment after its last statement
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}

// Config.Memberlist has the last word on timing, and not on what is the node's own.
func TestMemberlistTimingIsTheUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		cluster := peerlimittest.NewCluster(t, 3, func(c *peerlimit.Config) {
			c.Memberlist = func(m *memberlist.Config) {
				asked++
				m.ProbeInterval, m.ProbeTimeout, m.SuspicionMult = 200*time.Millisecond, 100*time.Millisecond, 2
				m.Name, m.Label, m.BindPort, m.Delegate, m.Events = "mine", "mine", 1, nil, nil
			}
		})
		require.Equal(t, 3, asked)
		cluster.Kill(0)
		began := time.Now()
		cluster.WaitReady()
		require.Less(t, time.Since(began), 4*time.Second, "found out sooner than by default")
	})
}

// Takes while everything around them closes and joins, also for the race detector. A deadline beyond two RPC timeouts and 50 ms
// is never missed; a shorter one is answered with its error at the worst.
func TestTakesDuringMembershipChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := peerlimittest.NewCluster(t, 4)
		limiters := cluster.Limiters("api", peerlimit.PerSecond(1000))
		var wg sync.WaitGroup
		for i, l := range limiters {
			for range 3 {
				wg.Go(func() {
					for j := range 300 {
						key := fmt.Sprint(j % 17)
						patience := 2*peerlimit.DefaultRPCTimeout + 51*time.Millisecond
						if j%3 == 0 {
							patience = 150 * time.Millisecond
						}
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						_, err := l.Take(ctx, key, 1)
						switch {
						case err == nil:
						case i == 0 && errors.Is(err, peerlimit.ErrClosed):
						default:
							assert.Less(t, patience, 2*peerlimit.DefaultRPCTimeout, "%v", err)
							assert.ErrorIs(t, err, context.DeadlineExceeded)
						}
						if r, err := l.Reserve(ctx, key, 2); err == nil && j%2 == 0 {
							r.Cancel()
						}
						_ = l.Refund(ctx, key, 1)
						_, _ = l.Peek(ctx, key)
						cancel()
						time.Sleep(20 * time.Millisecond)
					}
				})
			}
		}
		time.Sleep(500 * time.Millisecond)
		cluster.Add()
		time.Sleep(500 * time.Millisecond)
		cluster.Kill(0)
		time.Sleep(500 * time.Millisecond)
		cluster.Split([]int{1, 2}, []int{3, 4})
		time.Sleep(2 * time.Second)
		cluster.Heal()
		wg.Wait()
	})
}
