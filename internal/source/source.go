// Package source tells peers that have not authenticated apart, as well as their addresses allow.
package source

import (
	"net"
	"net/netip"
)

// Of returns what stands for the peer behind an address: the host, and of an IPv6 one its /64, in which a host can have as
// many addresses as it likes. Of an address that has no IP it is the zero Prefix.
func Of(addr net.Addr) netip.Prefix {
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}
	}
	host := parsed.Addr().Unmap().WithZone("")
	bits := host.BitLen()
	if host.Is6() {
		bits = 64
	}
	source, _ := host.Prefix(bits)
	return source
}
