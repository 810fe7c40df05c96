package sim

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// packetBuffer bounds what a packet socket keeps for its reader: Linux's
	// default rmem. A packet takes its length and packetOverhead of it, about
	// what the kernel's bookkeeping takes, so small packets fill it too.
	packetBuffer   = 212_992
	packetOverhead = 768

	// maxPacket is the greatest payload of a UDP datagram over IPv4.
	maxPacket = 65_507
)

// A packetConn implements net.PacketConn. Guarded by the network's lock.
type packetConn struct {
	host     *Host
	local    *net.UDPAddr
	received []*packet
	buffered int // bytes of packetBuffer in use
	closed   bool

	changed       sync.Cond // received, deadlines, closed or host
	readDeadline  deadline
	writeDeadline deadline
}

// A packet is one datagram under way, or waiting to be read. Its payload is
// never written to, because duplicates share it.
type packet struct {
	link    *link
	from    *net.UDPAddr
	port    uint16 // at link.to
	payload []byte
	arrival event
}

func newPacketConn(h *Host, local *net.UDPAddr) *packetConn {
	c := &packetConn{host: h, local: local}
	c.changed.L = &h.net.mu
	c.readDeadline.init(&h.net.clock, &c.changed)
	c.writeDeadline.init(&h.net.clock, &c.changed)
	return c
}

// LocalAddr returns a *net.UDPAddr.
func (c *packetConn) LocalAddr() net.Addr { return c.local }

// ReadFrom waits for a packet. What does not fit p is lost. The address is a
// *net.UDPAddr, shared with other readers: it must not be changed.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for {
		if err := c.unusable(&c.readDeadline); err != nil {
			return 0, nil, c.opError("read", nil, err)
		}
		if len(c.received) > 0 && !c.host.frozen {
			got := c.received[0]
			c.received = c.received[1:]
			c.buffered -= got.size()
			return copy(p, got.payload), got.from, nil
		}
		c.changed.Wait()
	}
}

// WriteTo sends a packet, copied, to a *net.UDPAddr or any address whose text
// is "ip:port". It fails only for what the sender can know: a bad address, a
// payload over 65,507 bytes (syscall.EMSGSIZE), a closed socket, a deadline.
func (c *packetConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	remote, err := packetDestination(addr)
	if err == nil && len(p) > maxPacket {
		err = os.NewSyscallError("sendto", syscall.EMSGSIZE)
	}
	if err != nil {
		return 0, c.opError("write", addr, err)
	}
	payload := append([]byte(nil), p...)

	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for {
		if err := c.unusable(&c.writeDeadline); err != nil {
			return 0, c.opError("write", addr, err)
		}
		if !c.host.frozen {
			break
		}
		c.changed.Wait()
	}
	c.send(payload, remote)
	return len(p), nil
}

// packetDestination converts an address for WriteTo.
func packetDestination(addr net.Addr) (netip.AddrPort, error) {
	if udp, ok := addr.(*net.UDPAddr); ok {
		to := udp.AddrPort()
		if to.Addr().IsValid() {
			return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil
		}
	}
	if addr == nil {
		return netip.AddrPort{}, &net.AddrError{Err: "missing address"}
	}
	to, err := parseAddr(addr.String())
	if err == nil && !to.Addr().IsValid() {
		err = &net.AddrError{Err: "missing host", Addr: addr.String()}
	}
	return to, err
}

// send puts a packet on the wire, or two. Called with mu held.
func (c *packetConn) send(payload []byte, to netip.AddrPort) {
	n := c.host.net
	l := n.link(c.host.machine.addr, to.Addr())
	fate := l.roll()
	if fate.lost || !l.open() {
		return
	}
	post := func(latency time.Duration) {
		p := &packet{link: l, from: c.local, port: to.Port(), payload: payload}
		p.arrival.fire = p.arrive
		n.clock.set(&p.arrival, n.clock.now()+latency)
	}
	post(fate.latency)
	if fate.doubled {
		post(fate.copyLatency)
	}
}

// arrive hands the packet to the socket that has its port now, if it has room.
func (p *packet) arrive() {
	c := p.link.to.packets[p.port]
	if !p.link.open() || c == nil || c.buffered+p.size() > packetBuffer {
		return
	}
	c.received = append(c.received, p)
	c.buffered += p.size()
	c.changed.Broadcast()
}

func (p *packet) size() int { return len(p.payload) + packetOverhead }

// Close frees the port. A second Close fails with net.ErrClosed.
func (c *packetConn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("close", nil, net.ErrClosed)
	}
	delete(c.host.sockets, c)
	delete(c.host.machine.packets, uint16(c.local.Port))
	c.die(false)
	return nil
}

func (c *packetConn) wake() { c.changed.Broadcast() }

func (c *packetConn) die(bool) {
	c.closed = true
	c.received, c.buffered = nil, 0
	c.readDeadline.reset(time.Time{})
	c.writeDeadline.reset(time.Time{})
	c.changed.Broadcast()
}

// SetDeadline sets both deadlines; see net.PacketConn.
func (c *packetConn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readDeadline, &c.writeDeadline)
}

// SetReadDeadline ends ReadFrom at t; the zero time means never.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readDeadline)
}

// SetWriteDeadline ends WriteTo at t, which waits only while the host is frozen.
func (c *packetConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.writeDeadline)
}

func (c *packetConn) setDeadlines(t time.Time, which ...*deadline) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("set", nil, net.ErrClosed)
	}
	for _, d := range which {
		d.reset(t)
	}
	return nil
}

// unusable returns the error of a call that must end now.
func (c *packetConn) unusable(d *deadline) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case d.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *packetConn) opError(op string, addr net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.local, Addr: addr, Err: err}
}
