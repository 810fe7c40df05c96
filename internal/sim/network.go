package sim

import (
	"fmt"
	"net/netip"
	"sync"
)

// A Network is a set of hosts and the links between them. Make one with [New]
// and end it with [Network.Close]. All methods are safe for concurrent use.
//
// Methods that name hosts take IP addresses as text and panic when one does
// not parse: a misspelt address in a test must not pass as a fault that never
// happened.
type Network struct {
	// mu guards everything the network, its hosts and their sockets consist
	// of: one lock, so that a fault strikes at one instant for all of them.
	// Nothing blocks under it, except sync.Cond.Wait, which lets go of it.
	mu       sync.Mutex
	clock    schedule
	seed     uint64
	defaults Conditions
	links    map[route]*link
	machines map[netip.Addr]*machine
	closed   bool
}

// New returns an empty network in which every random choice follows from seed.
// Links start with [DefaultConditions].
func New(seed uint64) *Network {
	n := &Network{
		seed:     seed,
		defaults: DefaultConditions,
		links:    make(map[route]*link),
		machines: make(map[netip.Addr]*machine),
	}
	n.clock.init(&n.mu)
	return n
}

// Host returns the view that the process at address ip has of the network, and
// starts that process if the address has had none. After [Network.Kill] or
// [Network.PowerOff] it returns the dead process until [Network.Restart].
func (n *Network) Host(ip string) *Host {
	addr := mustIP(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machine(addr)
	if m.process == nil {
		n.boot(m)
	}
	return m.process
}

// Close ends the network: every call into it, blocked or new, fails with
// net.ErrClosed, nothing is delivered any more, and nothing of the network
// runs once Close has returned. It is idempotent.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, m := range n.machines {
		if m.process != nil {
			n.end(m.process, false)
		}
	}
	n.clock.close()
}

// machine returns what stands at an address: nothing yet, unless it was known.
// Called with mu held.
func (n *Network) machine(addr netip.Addr) *machine {
	m := n.machines[addr]
	if m == nil {
		m = &machine{addr: addr, nextPort: firstEphemeralPort}
		n.machines[addr] = m
	}
	return m
}

// boot starts a new process on m. Called with mu held.
func (n *Network) boot(m *machine) {
	m.powered = true
	m.streams = make(map[uint16]*listener)
	m.packets = make(map[uint16]*packetConn)
	m.process = &Host{net: n, machine: m, dead: n.closed, sockets: make(map[socket]struct{})}
}

// end makes every call of h's process fail from now on. Its kernel tells the
// peers when reset is set. Called with mu held.
func (n *Network) end(h *Host, reset bool) {
	h.dead = true
	for s := range h.sockets {
		s.die(reset)
	}
	clear(h.sockets)
	clear(h.machine.streams)
	clear(h.machine.packets)
}

// mustIP parses an address that a test wrote.
func mustIP(ip string) netip.Addr {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		panic(fmt.Sprintf("sim: host %q is not an IP address", ip))
	}
	return addr.Unmap()
}
