package membership

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
	"github.com/peerlimit/peerlimit/transport"
)

// testGate returns the gate of a node of the test's cluster, with a secret or without.
func testGate(t testing.TB, secret []byte) *gossipGate {
	t.Helper()
	gate, err := newGossipGate(gateConfig(t, secret))
	require.NoError(t, err)
	return gate
}

// gateConfig returns as much of a configuration as a gate needs.
func gateConfig(t testing.TB, secret []byte) *Config {
	t.Helper()
	c := &Config{Cluster: testLabel, Logger: slog.New(slog.DiscardHandler)}
	if secret != nil {
		key := sha256.Sum256(secret)
		var err error
		c.Keyring, err = memberlist.NewKeyring(nil, key[:])
		require.NoError(t, err)
	}
	return c
}

// userPacket is a note of the default cluster in a packet; userStream is one on a stream.
func userPacket(text string) []byte {
	return append(labelHeader(), "\x08"+text...)
}

func userStream(text string) []byte {
	return append(labelHeader(), "\x08\x81\xaaUserMsgLen"+string(rune(len(text)))+text...)
}

func labelHeader() []byte {
	return append([]byte{gossipHasLabel, byte(len(testLabel))}, testLabel...)
}

// gossipPair runs a test with two connected gossip transports of either kind.
func gossipPair(t *testing.T, test func(t *testing.T, a, b gossipTransport)) {
	shutDown := func(t *testing.T, transports ...gossipTransport) {
		for _, g := range transports {
			require.NoError(t, g.Shutdown())
			require.NoError(t, g.Shutdown(), "a second time")
		}
	}
	t.Run("simulated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			network := sim.New(1)
			defer network.Close()
			a, err := listenNetwork(network.Host("10.0.0.1"), netip.MustParseAddrPort("10.0.0.1:0"), testGate(t, nil))
			require.NoError(t, err)
			b, err := listenNetwork(network.Host("10.0.0.2"), netip.MustParseAddrPort("10.0.0.2:7946"), testGate(t, nil))
			require.NoError(t, err)
			test(t, a, b)
			shutDown(t, a, b)
		})
	})
	t.Run("sockets", func(t *testing.T) {
		a, err := listenSockets(netip.MustParseAddrPort("127.0.0.1:0"), testGate(t, nil), log.Default())
		require.NoError(t, err)
		b, err := listenSockets(netip.MustParseAddrPort("127.0.0.1:0"), testGate(t, nil), log.Default())
		require.NoError(t, err)
		test(t, a, b)
		shutDown(t, a, b)
	})
}

func TestGossipTransportCarriesPacketsAndStreams(t *testing.T) {
	gossipPair(t, func(t *testing.T, a, b gossipTransport) {
		assert.NotZero(t, a.bound().Port())

		var received []*memberlist.Packet
		for _, text := range []string{"one", "two"} {
			sent, err := a.WriteTo(userPacket(text), b.bound().String())
			require.NoError(t, err)
			assert.False(t, sent.IsZero())
			received = append(received, <-b.PacketCh())
		}
		for i, text := range []string{"one", "two"} { // the first is still intact when the second has come
			assert.Equal(t, userPacket(text), received[i].Buf)
			assert.Equal(t, a.bound().String(), received[i].From.String())
			assert.False(t, received[i].Timestamp.IsZero())
		}
		_, err := a.WriteTo([]byte("x"), "not an address")
		assert.Error(t, err)

		near, err := a.DialTimeout(b.bound().String(), time.Second)
		require.NoError(t, err)
		far := <-b.StreamCh()
		_, err = near.Write(userStream("question"))
		require.NoError(t, err)
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		assert.Equal(t, userStream("question"), got)
		require.NoError(t, far.Close())
		assert.Empty(t, streamsOf(b).open)
		require.NoError(t, near.Close())
		assert.Empty(t, streamsOf(a).open)
	})
}

func streamsOf(g gossipTransport) *gossipStreams {
	if n, ok := g.(*networkGossip); ok {
		return n.streams
	}
	return g.(*socketGossip).streams
}

func TestGossipTransportShutdownEndsEverything(t *testing.T) {
	gossipPair(t, func(t *testing.T, a, b gossipTransport) {
		for range 3 { // nobody takes the second and third
			_, err := a.WriteTo(userPacket("packet"), b.bound().String())
			require.NoError(t, err)
		}
		<-b.PacketCh()
		near, err := a.DialTimeout(b.bound().String(), time.Minute)
		require.NoError(t, err)
		far := <-b.StreamCh()
		ended := make(chan error, 2)
		read := func(conn net.Conn) {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}
		go read(near)
		go read(far)

		waiting, err := a.DialTimeout(b.bound().String(), time.Minute) // nobody takes it
		require.NoError(t, err)
		defer waiting.Close()

		require.NoError(t, b.Shutdown())
		assert.Error(t, <-ended)
		assert.Error(t, <-ended)
		_, err = b.DialTimeout(a.bound().String(), time.Minute)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Empty(t, streamsOf(b).open)
	})
}

// brokenConn fails to write.
type brokenConn struct {
	net.Conn
	closed bool
}

func (c *brokenConn) Write([]byte) (int, error)   { return 0, errors.New("broken") }
func (c *brokenConn) Read([]byte) (int, error)    { return 0, errors.New("broken") }
func (c *brokenConn) Close() error                { c.closed = true; return nil }
func (c *brokenConn) SetDeadline(time.Time) error { return nil }

func TestGossipStreamThatCannotBeWrittenToIsClosed(t *testing.T) {
	streams, conn := newGossipStreams(testGate(t, nil)), &brokenConn{}
	stream, err := streams.dial("10.0.0.2:7946", time.Minute, func(context.Context) (net.Conn, error) { return conn, nil })
	require.NoError(t, err)
	require.Error(t, memberlist.AddLabelHeaderToStream(stream, "cluster"))
	assert.True(t, conn.closed)
	assert.Empty(t, streams.open)
}

func TestGossipDialHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		g, err := listenNetwork(network.Host("10.0.0.1"), netip.MustParseAddrPort("10.0.0.1:7946"), testGate(t, nil))
		require.NoError(t, err)
		defer g.Shutdown()
		begin := time.Now()
		_, err = g.DialTimeout("10.0.0.2:7946", 2*time.Second) // never started: nothing answers
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 2*time.Second, time.Since(begin))

		_, err = network.Host("10.0.0.3").Listen("10.0.0.3:7946") // accepts and says nothing
		require.NoError(t, err)
		conn, err := g.DialTimeout("10.0.0.3:7946", 2*time.Second)
		require.NoError(t, err)
		begin = time.Now()
		_, err = conn.Read(make([]byte, 1))
		assert.Error(t, err)
		assert.InDelta(t, 2, time.Since(begin).Seconds(), 0.1)
	})
}

func TestGossipAddressInUse(t *testing.T) {
	check := func(t *testing.T, s *Config) {
		_, err := listenGossip(s, log.Default())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		assert.ErrorContains(t, err, `peerlimit: BindAddr is "`+s.BindText+`"`)
	}
	t.Run("simulated", func(t *testing.T) {
		for name, occupy := range map[string]func(transport.Network) error{
			"streams": func(n transport.Network) error { _, err := n.Listen("10.0.0.1:7946"); return err },
			"packets": func(n transport.Network) error { _, err := n.ListenPacket("10.0.0.1:7946"); return err },
		} {
			t.Run(name, func(t *testing.T) {
				network := sim.New(1)
				defer network.Close()
				require.NoError(t, occupy(network.Host("10.0.0.1")))
				check(t, testConfig(network, "10.0.0.1"))
				if name == "packets" {
					listener, err := network.Host("10.0.0.1").Listen("10.0.0.1:7946")
					require.NoError(t, err, "nothing is kept open")
					require.NoError(t, listener.Close())
				}
			})
		}
	})
	t.Run("sockets, streams", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		check(t, testSocketConfig(t, listener.Addr().String()))
	})
	t.Run("sockets, packets", func(t *testing.T) {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer packets.Close()
		check(t, testSocketConfig(t, packets.LocalAddr().String()))
	})
}

func TestGossipAnyPortIsFreeForPacketsToo(t *testing.T) {
	network := sim.New(1)
	defer network.Close()
	host := network.Host("10.0.0.1")
	probe, err := host.Listen("10.0.0.1:0")
	require.NoError(t, err)
	last := netip.MustParseAddrPort(probe.Addr().String())
	for i := range uint16(listenAttempts - 1) { // the ports that come next
		_, err = host.ListenPacket(netip.AddrPortFrom(last.Addr(), last.Port()+1+i).String())
		require.NoError(t, err)
	}
	s := testConfig(network, "10.0.0.1")
	s.Bind = netip.AddrPortFrom(s.Bind.Addr(), 0)
	g, err := listenGossip(s, log.Default())
	require.NoError(t, err)
	require.NoError(t, g.Shutdown())
}

func TestGossipAdvertises(t *testing.T) {
	bound := func(addr string) gossipTransport { return &networkGossip{address: netip.MustParseAddrPort(addr)} }
	for _, test := range []struct{ name, bound, advertise, want string }{
		{"what is bound", "10.0.0.1:7946", "", "10.0.0.1:7946"},
		{"another host", "10.0.0.1:7946", "1.2.3.4:0", "1.2.3.4:7946"},
		{"another host and port", "0.0.0.0:7946", "1.2.3.4:99", "1.2.3.4:99"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Config{}
			if test.advertise != "" {
				s.Advertise = netip.MustParseAddrPort(test.advertise)
			}
			got, err := advertisedGossip(s, bound(test.bound))
			require.NoError(t, err)
			assert.Equal(t, test.want, got.String())
			ip, port, err := finalAdvertise(got.Addr().String(), int(got.Port()))
			require.NoError(t, err)
			assert.Equal(t, net.IP(got.Addr().AsSlice()), ip)
			assert.Equal(t, int(got.Port()), port)
		})
	}
	for _, addr := range []string{"0.0.0.0:7946", "[::]:7946"} {
		_, err := advertisedGossip(&Config{BindText: addr}, bound(addr))
		require.ErrorIs(t, err, ErrAdvertise, addr)
		assert.ErrorContains(t, err, "AdvertiseAddr")
	}
}

// testSocketConfig returns the configuration of a node on real sockets.
func testSocketConfig(t testing.TB, bind string, join ...string) *Config {
	t.Helper()
	return &Config{
		Name: NewIdentity("n"), Cluster: testLabel, Bind: netip.MustParseAddrPort(bind), BindText: bind, ProtocolMin: 1, ProtocolMax: 1,
		Seeds: testSeeds(join...), Fate: fateWithQuorum(nil), Logger: slog.New(slog.DiscardHandler),
	}
}
