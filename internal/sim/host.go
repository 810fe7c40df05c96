package sim

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// Ports that are handed out for port 0 and for the near end of a dialled
// connection: Linux's default range.
const (
	firstEphemeralPort = 32768
	lastEphemeralPort  = 60999
)

// A machine is what stands at one address: a kernel with its ports. It
// outlives its processes. Guarded by the network's lock.
type machine struct {
	addr     netip.Addr
	powered  bool                   // false until the first process starts: nothing answers
	process  *Host                  // the latest one, perhaps dead; nil until the first starts
	streams  map[uint16]*listener   // by port; no port 0
	packets  map[uint16]*packetConn // by port; no port 0
	nextPort uint16                 // where the search for a free port starts
}

// A Host is the network as one process at one address sees it. Get one from
// [Network.Host] or [Network.Restart]. Its methods are safe for concurrent use.
// Once its process has been killed they all fail with net.ErrClosed.
type Host struct {
	net     *Network
	machine *machine

	// Guarded by the network's lock.
	dead      bool // no call succeeds any more
	unplugged bool // dead, and its machine lost power under it: not even its kernel sends
	frozen    bool // no call makes progress, though the kernel does
	sockets   map[socket]struct{}
}

// A socket is whatever a process can be waiting in or be stripped of. Both
// methods are called with the network's lock held.
type socket interface {
	// wake lets every waiting call look again at what it waits for.
	wake()
	// die makes every call fail with net.ErrClosed. The kernel resets peers
	// when reset is set.
	die(reset bool)
}

// IP returns the host's address as text.
func (h *Host) IP() string { return h.machine.addr.String() }

// Listen opens a stream listener at addr, "ip:port". The IP must be the host's
// own, unspecified or empty (the last two mean the host's own); port 0 picks a
// free one. A port in use gives syscall.EADDRINUSE, another host's IP
// syscall.EADDRNOTAVAIL.
func (h *Host) Listen(addr string) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	local, err := h.bindable(addr, func(port uint16) bool { return h.machine.streams[port] != nil })
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: textAddr{"tcp", addr}, Err: err}
	}
	l := newListener(h, net.TCPAddrFromAddrPort(local))
	h.machine.streams[local.Port()] = l
	h.sockets[l] = struct{}{}
	return l, nil
}

// ListenPacket opens a packet socket at addr, under the same rules as
// [Host.Listen]. Ports of streams and of packets are separate.
func (h *Host) ListenPacket(addr string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	local, err := h.bindable(addr, func(port uint16) bool { return h.machine.packets[port] != nil })
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: textAddr{"udp", addr}, Err: err}
	}
	c := newPacketConn(h, net.UDPAddrFromAddrPort(local))
	h.machine.packets[local.Port()] = c
	h.sockets[c] = struct{}{}
	return c, nil
}

// bindable resolves addr to an address of this host whose port is free. Called
// with mu held.
func (h *Host) bindable(addr string, used func(port uint16) bool) (netip.AddrPort, error) {
	if h.dead {
		return netip.AddrPort{}, net.ErrClosed
	}
	want, err := parseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if want.Addr().IsValid() && !want.Addr().IsUnspecified() && want.Addr() != h.machine.addr {
		return netip.AddrPort{}, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	port := want.Port()
	if port == 0 {
		port = h.machine.freePort(used)
	}
	if port == 0 || used(port) {
		return netip.AddrPort{}, os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	return netip.AddrPortFrom(h.machine.addr, port), nil
}

// freePort returns an ephemeral port that is not used, or 0 when all are. It
// goes round the range, so that a port just let go of is not the next to be
// handed out. Called with mu held.
func (m *machine) freePort(used func(port uint16) bool) uint16 {
	for range lastEphemeralPort - firstEphemeralPort + 1 {
		port := m.nextPort
		m.nextPort++
		if m.nextPort > lastEphemeralPort {
			m.nextPort = firstEphemeralPort
		}
		if !used(port) {
			return port
		}
	}
	return 0
}

// parseAddr parses "ip:port"; the IP may be empty and is then invalid in the
// result. Host names are not resolved: the network has no DNS.
func parseAddr(addr string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	if host == "" {
		return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// textAddr is the address of an attempt whose address may not even parse.
type textAddr struct{ network, text string }

func (a textAddr) Network() string { return a.network }
func (a textAddr) String() string  { return a.text }
