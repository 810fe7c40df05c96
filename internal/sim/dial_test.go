package sim_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

func TestListenAddresses(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		h := n.Host(alice)
		first := listen(t, h, alice+":7946")
		assert.Equal(t, alice+":7946", first.Addr().String())
		for _, addr := range []string{":7946", "0.0.0.0:7946", "[::]:7946", alice + ":7946"} {
			_, err := h.Listen(addr)
			assert.ErrorIs(t, err, syscall.EADDRINUSE, addr)
		}
		packets := listenPacket(t, h, ":7946")
		assert.Equal(t, alice+":7946", packets.LocalAddr().String(), "ports of packets are others")
		_, err := h.ListenPacket(":7946")
		assert.ErrorIs(t, err, syscall.EADDRINUSE)

		_, err = h.Listen(bob + ":0")
		assert.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
		_, err = h.Listen("alice:0")
		assert.ErrorContains(t, err, "no such host")
		for _, addr := range []string{"", alice, ":70000", ":http"} {
			_, err = h.Listen(addr)
			assert.Error(t, err, addr)
		}

		free, other := listen(t, h, ":0"), listen(t, h, alice+":0")
		assert.NotEqual(t, free.Addr().String(), other.Addr().String())
		assert.NotZero(t, free.Addr().(*net.TCPAddr).Port)

		require.NoError(t, first.Close())
		listen(t, h, ":7946")
	})
}

func TestEveryPortInUse(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		h := n.Host(alice)
		var err error
		count := 0
		for ; err == nil; count++ {
			_, err = h.Listen(":0")
		}
		assert.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.Equal(t, 60999-32768+1, count-1)
	})
}

func TestDialRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		n.Host(bob)
		start := time.Now()
		_, err := n.Host(alice).Dial(context.Background(), bob+":1")
		assert.ErrorIs(t, err, syscall.ECONNREFUSED)
		var opErr *net.OpError
		require.ErrorAs(t, err, &opErr)
		assert.Equal(t, "dial", opErr.Op)
		assert.Equal(t, 2*time.Millisecond, time.Since(start), "one round trip")
	})
}

func TestDialWithoutAHost(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		h := n.Host(alice)
		listen(t, h, ":1")
		for _, addr := range []string{":1", "0.0.0.0:1", "[::]:1"} {
			c, err := h.Dial(context.Background(), addr)
			require.NoError(t, err, addr)
			assert.Equal(t, alice+":1", c.RemoteAddr().String())
		}
		assert.Same(t, h, n.Host("::ffff:"+alice), "IPv4, however it is written")
	})
}

func TestDialBadAddress(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		for _, addr := range []string{"", bob, "bob:1", bob + ":x", bob + ":-1"} {
			_, err := n.Host(alice).Dial(context.Background(), addr)
			assert.Error(t, err, addr)
		}
	})
}

func TestDialSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		a := n.Host(alice)
		listen(t, n.Host(bob), ":1")
		n.Host(carol)
		n.Cut(alice, bob)
		n.PowerOff(carol)
		for _, addr := range []string{bob + ":1", carol + ":1", "10.9.9.9:1"} {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			start := time.Now()
			_, err := a.Dial(ctx, addr)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 5*time.Second, time.Since(start))
			cancel()

			start = time.Now()
			_, err = a.Dial(context.Background(), addr)
			assert.ErrorIs(t, err, syscall.ETIMEDOUT)
			assert.Equal(t, 127*time.Second, time.Since(start))
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := a.Dial(ctx, bob+":1")
		assert.ErrorIs(t, err, context.Canceled)
	})
}

func TestDialGoesOnWhenHealed(t *testing.T) {
	for name, cut := range map[string][2]string{"request": {alice, bob}, "answer": {bob, alice}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *sim.Network) {
				n.SetDefaults(steady)
				a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
				n.Cut(cut[0], cut[1])
				time.AfterFunc(4*time.Second, n.Heal)
				start := time.Now()
				accepting := inBackground(func() {
					server, err := l.Accept()
					assert.NoError(t, err)
					assert.Equal(t, 7*time.Second+time.Millisecond, time.Since(start))
					read(t, server, "hello")
				})
				client, err := a.Dial(context.Background(), bob+":1")
				require.NoError(t, err)
				assert.Equal(t, 7*time.Second+2*time.Millisecond, time.Since(start), "asked at 0, 1, 3 and 7 s")
				write(t, client, "hello")
				accepting()
			})
		})
	}
}

// A lost answer must not make two connections of one.
func TestDialWithLostAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetLink(bob, alice, sim.Conditions{Latency: time.Millisecond, Loss: 0.2})
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		const dials = 50
		for range dials {
			client, err := a.Dial(context.Background(), bob+":1")
			require.NoError(t, err)
			server, err := l.Accept()
			require.NoError(t, err)
			assert.Equal(t, client.LocalAddr(), server.RemoteAddr())
		}
	})
}

// A cut swallows requests and answers that are under way.
func TestDialCutUnderWay(t *testing.T) {
	for name, cut := range map[string]struct {
		after    time.Duration
		from, to string
	}{
		"request": {500 * time.Microsecond, alice, bob},
		"answer":  {1500 * time.Microsecond, bob, alice},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *sim.Network) {
				n.SetDefaults(steady)
				a := n.Host(alice)
				listen(t, n.Host(bob), ":1")
				time.AfterFunc(cut.after, func() { n.Cut(cut.from, cut.to) })
				time.AfterFunc(100*time.Millisecond, n.Heal)
				start := time.Now()
				_, err := a.Dial(context.Background(), bob+":1")
				require.NoError(t, err)
				assert.Equal(t, time.Second+2*time.Millisecond, time.Since(start))
			})
		})
	}
}

// Repeated requests do not put off those and the answers that are under way.
func TestDialOverASlowLink(t *testing.T) {
	for _, latency := range [][2]time.Duration{{3500 * time.Millisecond, 0}, {100 * time.Millisecond, 10 * time.Second}} {
		inBubble(t, func(t *testing.T, n *sim.Network) {
			n.SetLink(alice, bob, sim.Conditions{Latency: latency[0]})
			n.SetLink(bob, alice, sim.Conditions{Latency: latency[1]})
			listen(t, n.Host(bob), ":1")
			start := time.Now()
			_, err := n.Host(alice).Dial(context.Background(), bob+":1")
			require.NoError(t, err)
			assert.Equal(t, latency[0]+latency[1], time.Since(start))
		})
	}
}

// The far kernel has accepted though its listener is gone when it is asked again.
func TestDialAnsweredAgainAfterTheListenerClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetLink(bob, alice, sim.Conditions{Loss: 1})
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		dialling := inBackground(func() {
			client, err := a.Dial(context.Background(), bob+":1")
			if assert.NoError(t, err) {
				read(t, client, "hello")
			}
		})
		server, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, l.Close())
		n.SetLink(bob, alice, steady)
		write(t, server, "hello")
		dialling()
	})
}

func TestDialThatNeverHearsAnAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetLink(bob, alice, sim.Conditions{Loss: 1})
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		_, err := a.Dial(context.Background(), bob+":1")
		assert.ErrorIs(t, err, syscall.ETIMEDOUT)
		server, err := l.Accept()
		require.NoError(t, err)
		assert.ErrorIs(t, readError(server), syscall.ECONNRESET)
	})
}

func TestAnAbandonedRequestIsNotAccepted(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(sim.Conditions{Latency: 5 * time.Second})
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := a.Dial(ctx, bob+":1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		accepting := inBackground(func() {
			_, err := l.Accept()
			assert.ErrorIs(t, err, net.ErrClosed)
		})
		time.Sleep(time.Minute)
		require.NoError(t, l.Close())
		accepting()
	})
}

func TestAbandonedDialResetsTheServer(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		n.SetDefaults(steady)
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Microsecond)
		defer cancel()
		_, err := a.Dial(ctx, bob+":1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		server, err := l.Accept()
		require.NoError(t, err, "the answer was under way")
		assert.ErrorIs(t, readError(server), syscall.ECONNRESET)
	})
}

func TestListenerClose(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		client, err := a.Dial(context.Background(), bob+":1")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		assert.ErrorIs(t, readError(client), syscall.ECONNRESET, "in the backlog")
		_, err = l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
		assert.ErrorIs(t, l.Close(), net.ErrClosed)
		_, err = a.Dial(context.Background(), bob+":1")
		assert.ErrorIs(t, err, syscall.ECONNREFUSED)
	})
}

func TestListenerCloseEndsAccept(t *testing.T) {
	inBubble(t, func(t *testing.T, n *sim.Network) {
		l := listen(t, n.Host(bob), ":1")
		accepting := inBackground(func() {
			_, err := l.Accept()
			assert.ErrorIs(t, err, net.ErrClosed)
		})
		synctest.Wait()
		require.NoError(t, l.Close())
		accepting()
	})
}

func TestManyConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, n *sim.Network) {
		a, l := n.Host(alice), listen(t, n.Host(bob), ":1")
		const count = 100
		var group sync.WaitGroup
		for range count {
			group.Go(func() {
				c, err := a.Dial(context.Background(), bob+":1")
				if assert.NoError(t, err) {
					write(t, c, c.LocalAddr().String())
				}
			})
		}
		for range count {
			c, err := l.Accept()
			require.NoError(t, err)
			read(t, c, c.RemoteAddr().String())
		}
		group.Wait()
	})
}
