package sim

import (
	"fmt"
	"net/netip"
)

// SetDefaults sets the conditions of every link that has none of its own, from
// now on: what is already under way arrives as it was sent.
func (n *Network) SetDefaults(c Conditions) {
	c.mustBeValid()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.defaults = c
}

// SetLink sets the conditions of what from sends to to.
func (n *Network) SetLink(from, to string, c Conditions) {
	c.mustBeValid()
	a, b := mustIP(from), mustIP(to)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(a, b).own = &c
}

// ResetLinks lets every link that has conditions of its own follow the defaults
// again.
func (n *Network) ResetLinks() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.own = nil
	}
}

// Cut makes everything vanish that from sends to to, including what is under
// way: once Cut has returned nothing of from's reaches to, until [Network.Mend]
// or [Network.Heal]. The other direction stays as it is.
func (n *Network) Cut(from, to string) { n.setCut(from, to, true) }

// CutBoth cuts both directions between a and b.
func (n *Network) CutBoth(a, b string) {
	a1, b1 := mustIP(a), mustIP(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cutBoth(a1, b1)
}

// Mend ends the cut of what from sends to to. Streams that lost bytes go on at
// their next retransmission, not before.
func (n *Network) Mend(from, to string) { n.setCut(from, to, false) }

func (n *Network) setCut(from, to string, cut bool) {
	a, b := mustIP(from), mustIP(to)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(a, b).cut = cut
}

func (n *Network) cutBoth(a, b netip.Addr) {
	n.link(a, b).cut = true
	n.link(b, a).cut = true
}

// Split cuts both directions between any two named hosts that share no group.
// A host may be in several groups (overlapping views: it sees hosts that do
// not see each other); a host in none keeps all its links. Cuts that there are
// already stay.
func (n *Network) Split(groups ...[]string) {
	membership := make(map[netip.Addr]map[int]bool)
	for i, group := range groups {
		for _, ip := range group {
			addr := mustIP(ip)
			if membership[addr] == nil {
				membership[addr] = make(map[int]bool)
			}
			membership[addr][i] = true
		}
	}
	share := func(a, b netip.Addr) bool {
		for i := range membership[a] {
			if membership[b][i] {
				return true
			}
		}
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range membership {
		for b := range membership {
			if !share(a, b) {
				n.cutBoth(a, b)
			}
		}
	}
}

// Heal mends every cut there is. It changes neither conditions nor hosts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.cut = false
	}
}

// Freeze stops the process at ip as SIGSTOP does, as far as the network can
// see: none of its reads, writes, accepts and dials goes forward until
// [Network.Thaw]. Its kernel goes on: it sends what was written before,
// acknowledges and keeps what arrives, up to the buffers, and accepts
// connections up to the backlog of 128. The process's own goroutines and
// timers do run on, so deadlines and contexts still end its calls, and so does
// closing a socket. Freezing a frozen or dead process does nothing.
func (n *Network) Freeze(ip string) { n.setFrozen(ip, true) }

// Thaw lets a frozen process go on, with everything its kernel has kept.
func (n *Network) Thaw(ip string) { n.setFrozen(ip, false) }

func (n *Network) setFrozen(ip string, frozen bool) {
	addr := mustIP(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.mustProcess(addr)
	h.frozen = frozen
	for s := range h.sockets {
		s.wake()
	}
}

// Kill ends the process at ip as SIGKILL does: its listeners are gone, its
// streams are reset towards the peers (a cut swallows the reset), packets to
// it vanish, dialling it is refused. Every call of the process, through its
// [Host] and whatever came from it, fails with net.ErrClosed forever. Killing
// a dead process does nothing.
func (n *Network) Kill(ip string) {
	addr := mustIP(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end(n.mustProcess(addr), true)
}

// PowerOff ends the process at ip and its machine with it: like [Network.Kill],
// but no peer is told and none gets a response.
func (n *Network) PowerOff(ip string) {
	addr := mustIP(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.mustProcess(addr)
	n.end(h, false)
	h.unplugged = true
	h.machine.powered = false
}

// Restart starts a new process at ip, after killing the one that runs there if
// there is one, and returns its view. All ports are free again immediately. Streams
// of the old process are unknown to the new one: a peer that still uses one
// gets a reset.
func (n *Network) Restart(ip string) *Host {
	addr := mustIP(ip)
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.mustProcess(addr)
	n.end(old, true)
	n.boot(old.machine)
	return old.machine.process
}

// mustProcess returns the process at addr. Called with mu held.
func (n *Network) mustProcess(addr netip.Addr) *Host {
	m := n.machines[addr]
	if m == nil || m.process == nil {
		panic(fmt.Sprintf("sim: no host was ever started at %s", addr))
	}
	return m.process
}
