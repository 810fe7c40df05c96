package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/peerlimit/peerlimit/transport"
)

// gossipTransport is what memberlist sends and receives through. It is listening from the start, and Shutdown, which can
// be called more than once, ends everything it has open and waits for its goroutines.
type gossipTransport interface {
	memberlist.NodeAwareTransport

	// bound returns the address it listens on, for packets and streams. The host may be unspecified.
	bound() netip.AddrPort

	// gate returns what judges all that comes in.
	gate() *gossipGate

	// injected returns where a packet is put that memberlist is to take for one from the network, and localAddr from which
	// address.
	injected() chan<- *memberlist.Packet
	localAddr() net.Addr
}

// listenAttempts is how many times a port that is free for streams is sought before one is found that is free for packets
// too, when any port will do. memberlist tries as often.
const listenAttempts = 10

// listenGossip binds the gossip address of c on its network. An error wraps the cause and names the field.
func listenGossip(c *Config, logger *log.Logger) (gossipTransport, error) {
	gate, err := newGossipGate(c)
	if err != nil {
		return nil, fmt.Errorf("peerlimit: the keys of gossip: %w", err)
	}
	attempts := 1
	if c.Bind.Port() == 0 {
		attempts = listenAttempts
	}
	for range attempts {
		var t gossipTransport
		if c.Network == nil {
			t, err = listenSockets(c.Bind, gate, logger)
		} else {
			t, err = listenNetwork(c.Network, c.Bind, gate)
		}
		if err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("peerlimit: BindAddr is %q: cannot listen for gossip: %w", c.BindText, err)
}

// networkGossip carries gossip over a transport.Network.
type networkGossip struct {
	network  transport.Network
	listener net.Listener
	packets  net.PacketConn
	address  netip.AddrPort
	streams  *gossipStreams
	streamCh chan net.Conn
	packetCh chan *memberlist.Packet
	loops    sync.WaitGroup // accept and receive
}

var _ gossipTransport = (*networkGossip)(nil)

func listenNetwork(network transport.Network, addr netip.AddrPort, gate *gossipGate) (*networkGossip, error) {
	listener, err := network.Listen(addr.String())
	if err != nil {
		return nil, err
	}
	address, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("the network's listener has the address %q: %w", listener.Addr(), err)
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	packets, err := network.ListenPacket(address.String())
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	t := &networkGossip{
		network:  network,
		listener: listener,
		packets:  packets,
		address:  address,
		streams:  newGossipStreams(gate),
		streamCh: make(chan net.Conn),
		packetCh: make(chan *memberlist.Packet),
	}
	t.loops.Go(t.accept)
	t.loops.Go(t.receive)
	return t, nil
}

func (t *networkGossip) bound() netip.AddrPort               { return t.address }
func (t *networkGossip) injected() chan<- *memberlist.Packet { return t.packetCh }
func (t *networkGossip) localAddr() net.Addr                 { return net.UDPAddrFromAddrPort(t.address) }
func (t *networkGossip) gate() *gossipGate                   { return t.streams.gate }
func (t *networkGossip) StreamCh() <-chan net.Conn           { return t.streamCh }
func (t *networkGossip) PacketCh() <-chan *memberlist.Packet { return t.packetCh }
func (t *networkGossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet and returns about when it left, unless Shutdown is called first.
func (t *networkGossip) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if !t.gate().noteSent(b) || t.streams.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteTo(b, net.UDPAddrFromAddrPort(addr))
	return time.Now(), err
}

func (t *networkGossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream, unless Shutdown is called first.
func (t *networkGossip) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.streams.dial(to.Addr, timeout, func(ctx context.Context) (net.Conn, error) { return t.network.Dial(ctx, to.Addr) })
}

// FinalAdvertiseAddr returns what it is given: the address to advertise is settled before memberlist starts.
func (t *networkGossip) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return finalAdvertise(ip, port)
}

func (t *networkGossip) Shutdown() error {
	t.streams.close()
	err := errors.Join(closeOnce(t.listener), closeOnce(t.packets))
	t.loops.Wait()
	return err
}

// closeOnce makes closing what is closed already no error.
func closeOnce(c interface{ Close() error }) error {
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (t *networkGossip) accept() {
	for failures := 0; ; {
		conn, err := t.listener.Accept()
		if err == nil {
			failures = 0
			t.streams.deliver(conn, t.streamCh)
			continue
		}
		if failures++; !t.mayRetry(err, failures) {
			return
		}
	}
}

// maxPacketLen is the largest UDP datagram. Gossip keeps to memberlist's UDPBufferSize, 1,400 bytes, but that can be
// configured, and differently at the sender.
const maxPacketLen = 65_536

func (t *networkGossip) receive() {
	buffer := make([]byte, maxPacketLen)
	for failures := 0; ; {
		n, from, err := t.packets.ReadFrom(buffer)
		if err != nil {
			if failures++; !t.mayRetry(err, failures) {
				return
			}
			continue
		}
		failures = 0
		if n == 0 {
			continue // memberlist takes a packet for at least a type byte
		}
		packet := &memberlist.Packet{Buf: buffer[:n], From: from, Timestamp: time.Now()}
		if !t.gate().admit(packet) {
			continue
		}
		packet.Buf = bytes.Clone(packet.Buf) // memberlist keeps it after the next one is received
		select {
		case t.packetCh <- packet:
		case <-t.streams.ctx.Done():
			return
		}
	}
}

// mayRetry waits a moment after a failed accept or read, longer after several in a row: too many open files, for one,
// pass. It reports false when there is nothing left to wait for.
func (t *networkGossip) mayRetry(err error, failures int) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	pause := time.NewTimer(min(5*time.Millisecond<<min(failures-1, 8), time.Second))
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-t.streams.ctx.Done():
		return false
	}
}

// socketGossip is memberlist's own transport over real sockets, with streams that end when it is shut down.
type socketGossip struct {
	*memberlist.NetTransport
	address  netip.AddrPort
	streams  *gossipStreams
	streamCh chan net.Conn
	packetCh chan *memberlist.Packet
	closed   chan struct{}  // closed when NetTransport has been shut down
	shutdown func() error   // once
	loops    sync.WaitGroup // forward and filter
}

var _ gossipTransport = (*socketGossip)(nil)

func listenSockets(addr netip.AddrPort, gate *gossipGate, logger *log.Logger) (*socketGossip, error) {
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{addr.Addr().String()},
		BindPort:  int(addr.Port()),
		Logger:    logger,
	})
	if err != nil {
		return nil, whyNotBound(addr, err)
	}
	t := &socketGossip{
		NetTransport: inner,
		address:      netip.AddrPortFrom(addr.Addr(), uint16(inner.GetAutoBindPort())),
		streams:      newGossipStreams(gate),
		streamCh:     make(chan net.Conn),
		packetCh:     make(chan *memberlist.Packet),
		closed:       make(chan struct{}),
	}
	t.shutdown = sync.OnceValue(t.tearDown)
	t.loops.Go(t.forward)
	t.loops.Go(t.filter)
	return t, nil
}

// whyNotBound returns an error that wraps what the system said, which memberlist only has as text: it binds the address
// once more. When that succeeds, the text is all there is.
func whyNotBound(addr netip.AddrPort, err error) error {
	listener, cause := net.Listen("tcp", addr.String())
	if cause != nil {
		return cause
	}
	defer listener.Close()
	packets, cause := net.ListenPacket("udp", addr.String())
	if cause != nil {
		return cause
	}
	_ = packets.Close()
	return err
}

func (t *socketGossip) bound() netip.AddrPort               { return t.address }
func (t *socketGossip) injected() chan<- *memberlist.Packet { return t.packetCh }
func (t *socketGossip) localAddr() net.Addr                 { return net.UDPAddrFromAddrPort(t.address) }
func (t *socketGossip) gate() *gossipGate                   { return t.streams.gate }
func (t *socketGossip) StreamCh() <-chan net.Conn           { return t.streamCh }
func (t *socketGossip) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

func (t *socketGossip) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet and returns about when it left, unless Shutdown is called first.
func (t *socketGossip) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if !t.gate().noteSent(b) || t.streams.ctx.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	return t.NetTransport.WriteToAddress(b, to)
}

func (t *socketGossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream, unless Shutdown is called first.
func (t *socketGossip) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.streams.dial(to.Addr, timeout, func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", to.Addr)
	})
}

// FinalAdvertiseAddr returns what it is given: the address to advertise is settled before memberlist starts.
func (t *socketGossip) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return finalAdvertise(ip, port)
}

func (t *socketGossip) Shutdown() error { return t.shutdown() }

func (t *socketGossip) tearDown() error {
	t.streams.close()
	err := t.NetTransport.Shutdown()
	close(t.closed)
	t.loops.Wait()
	return err
}

// forward hands inbound streams on. It goes on until the listener is closed, which waits for a stream to be taken.
func (t *socketGossip) forward() {
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			t.streams.deliver(conn, t.streamCh)
		case <-t.closed:
			return
		}
	}
}

// filter hands on the packets that the gate admits. It goes on until the socket is closed, which waits for a packet to be
// taken, so it drops them when nobody takes them any more.
func (t *socketGossip) filter() {
	for {
		select {
		case packet := <-t.NetTransport.PacketCh():
			if !t.gate().admit(packet) {
				continue
			}
			packet.Buf = bytes.Clone(packet.Buf) // NetTransport has a buffer of 64 kB for each
			select {
			case t.packetCh <- packet:
			case <-t.streams.ctx.Done():
			}
		case <-t.closed:
			return
		}
	}
}

func finalAdvertise(ip string, port int) (net.IP, int, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, err
	}
	return addr.AsSlice(), port, nil
}

// advertisedGossip returns the address of gossip that others are told.
func advertisedGossip(c *Config, t gossipTransport) (netip.AddrPort, error) {
	bound := t.bound()
	if c.Advertise.Addr().IsValid() {
		port := c.Advertise.Port()
		if port == 0 {
			port = bound.Port()
		}
		return netip.AddrPortFrom(c.Advertise.Addr(), port), nil
	}
	if !bound.Addr().IsUnspecified() {
		return bound, nil
	}
	const hint = "AdvertiseAddr is empty and BindAddr is %q; %w"
	sockets, ok := t.(*socketGossip)
	if !ok || !bound.Addr().Is4() {
		return netip.AddrPort{}, fmt.Errorf(hint, c.BindText, ErrAdvertise)
	}
	// memberlist picks the private address of the interface that has the default route.
	ip, _, err := sockets.NetTransport.FinalAdvertiseAddr("", 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf(hint+": %w", c.BindText, ErrAdvertise, err)
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf(hint, c.BindText, ErrAdvertise)
	}
	return netip.AddrPortFrom(addr.Unmap(), bound.Port()), nil
}
