package sim_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/sim"
)

// gossipPort is memberlist's.
const gossipPort = 7946

// A gossipTransport is the least that lets memberlist run over a host.
type gossipTransport struct {
	host    *sim.Host
	streams net.Listener
	packets net.PacketConn

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	closed   chan struct{}
	once     sync.Once
	loops    sync.WaitGroup
}

func newGossipTransport(host *sim.Host) (*gossipTransport, error) {
	addr := fmt.Sprintf("%s:%d", host.IP(), gossipPort)
	streams, err := host.Listen(addr)
	if err != nil {
		return nil, err
	}
	packets, err := host.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	g := &gossipTransport{
		host: host, streams: streams, packets: packets,
		packetCh: make(chan *memberlist.Packet),
		streamCh: make(chan net.Conn),
		closed:   make(chan struct{}),
	}
	g.loops.Go(g.acceptStreams)
	g.loops.Go(g.readPackets)
	return g, nil
}

func (g *gossipTransport) acceptStreams() {
	for {
		conn, err := g.streams.Accept()
		if err != nil {
			return
		}
		select {
		case g.streamCh <- conn:
		case <-g.closed:
			_ = conn.Close()
			return
		}
	}
}

func (g *gossipTransport) readPackets() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := g.packets.ReadFrom(buf)
		if err != nil {
			return
		}
		packet := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case g.packetCh <- packet:
		case <-g.closed:
			return
		}
	}
}

func (g *gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(g.host.IP()), gossipPort, nil
}

func (g *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = g.packets.WriteTo(b, to)
	return time.Now(), err
}

func (g *gossipTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return g.WriteTo(b, a.Addr)
}

func (g *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return g.host.Dial(ctx, addr)
}

func (g *gossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.DialTimeout(a.Addr, timeout)
}

func (g *gossipTransport) PacketCh() <-chan *memberlist.Packet { return g.packetCh }
func (g *gossipTransport) StreamCh() <-chan net.Conn           { return g.streamCh }

func (g *gossipTransport) Shutdown() error {
	g.once.Do(func() {
		close(g.closed)
		_ = g.streams.Close()
		_ = g.packets.Close()
	})
	g.loops.Wait()
	return nil
}

// startGossip starts a memberlist node at ip.
func startGossip(t *testing.T, n *sim.Network, ip string) *memberlist.Memberlist {
	t.Helper()
	transport, err := newGossipTransport(n.Host(ip))
	require.NoError(t, err)
	config := memberlist.DefaultLANConfig()
	config.Name = ip
	config.Label = "sim"
	config.Transport = transport
	config.BindPort = gossipPort
	config.Logger = log.New(io.Discard, "", 0)
	list, err := memberlist.Create(config)
	require.NoError(t, err)
	return list
}

// A gossip cluster of real memberlist nodes joins, notices a kill, a freeze and
// a split, and finds together again. The bubble sees to it that no goroutine is left.
func TestMemberlist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sim.New(1)
		defer n.Close()
		const count = 20
		ips := make([]string, count)
		lists := make(map[string]*memberlist.Memberlist, count)
		defer func() {
			for _, list := range lists {
				assert.NoError(t, list.Shutdown())
			}
			time.Sleep(30 * time.Second) // memberlist leaves goroutines to their timeouts
		}()
		for i := range ips {
			ips[i] = fmt.Sprintf("10.0.1.%d", i+1)
			lists[ips[i]] = startGossip(t, n, ips[i])
			_, err := lists[ips[i]].Join(ips[:1])
			require.NoError(t, err)
		}
		see := func(ips []string, want int) bool {
			for _, ip := range ips {
				if lists[ip].NumMembers() != want {
					return false
				}
			}
			return true
		}
		// eventually gives gossip five virtual minutes.
		eventually := func(what string, condition func() bool) {
			for start := time.Now(); !condition(); time.Sleep(time.Second) {
				require.Less(t, time.Since(start), 5*time.Minute, what)
			}
		}
		eventually("all join", func() bool { return see(ips, count) })

		victim, survivors := ips[7], append(append([]string(nil), ips[:7]...), ips[8:]...)
		n.Kill(victim)
		eventually("the kill is noticed", func() bool { return see(survivors, count-1) })

		frozen, others := survivors[0], survivors[1:]
		n.Freeze(frozen)
		eventually("the freeze is noticed", func() bool { return see(others, count-2) })
		n.Thaw(frozen)
		eventually("the thaw is noticed", func() bool { return see(survivors, count-1) })

		few, most := survivors[:5], survivors[5:]
		n.Split(few, most)
		eventually("the split is noticed", func() bool { return see(few, len(few)) && see(most, len(most)) })
		n.Heal()
		_, err := lists[few[0]].Join(most[:1])
		require.NoError(t, err)
		eventually("they find together", func() bool { return see(survivors, count-1) })

		n.SetDefaults(sim.Conditions{Latency: 50 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.05, Duplicate: 0.05})
		time.Sleep(20 * time.Second)
		eventually("a bad network is bearable", func() bool { return see(survivors, count-1) })
	})
}
