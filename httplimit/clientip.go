package httplimit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// IPOptions say how [ClientIP] finds a client's address. The zero IPOptions take the address that the connection comes
// from.
type IPOptions struct {
	// TrustedProxies are the addresses of proxies whose word is taken for the address of their client. Anybody else can send the
	// header, too, and is not believed. None: the header is not read.
	TrustedProxies []netip.Prefix

	// Header is where the proxies write their client's address: "X-Forwarded-For", which is what "" means, or "Forwarded"
	// (RFC 7239). Only one is read: a proxy that writes one passes on whatever a client wrote into the other.
	Header string

	// IPv6Prefix is how many bits of an IPv6 address count, from 1 to 128: all addresses that agree in them share a
	// bucket. 0 means 64: a client usually has a whole /64 to choose addresses from.
	IPv6Prefix int
}

// ClientIP returns the address of a request's client as the key: "192.0.2.1" or "2001:db8:1:2::/64". IPv4 addresses that
// are written as IPv6 (::ffff:192.0.2.1) are IPv4 addresses.
//
// The header's entries are read from the last to the first, for as long as they were written by a trusted proxy: the
// client is the first address from the right that is not trusted. When an entry is no address, or all are trusted, the
// client is the leftmost address that a trusted proxy has vouched for; so nothing that a client writes into the header gets
// it a bucket that a proxy did not give it. An empty entry is no address, and neither is one of Forwarded that is not of
// RFC 7239's form: an IPv6 address or a port without quotes, a quote that nothing closes, a name that occurs twice. What
// else a proxy writes into Forwarded, such as the client's Host, it must quote when it is no token: a client that may choose
// what stands there unquoted can write entries of its own. The key function fails only when the connection has no IP
// address, as that of a Unix socket.
//
// An error of ClientIP matches [ErrInvalid] and names the field of the options that is wrong, and its value.
func ClientIP(o IPOptions) (KeyFunc, error) {
	finder := ipFinder{bits: o.IPv6Prefix, last: lastForwardedFor}
	for i, prefix := range o.TrustedProxies {
		normal, err := normalPrefix(prefix)
		if err != nil {
			return nil, fmt.Errorf("%w: TrustedProxies[%d] is %v: %w", ErrInvalid, i, prefix, err)
		}
		finder.trusted = append(finder.trusted, normal)
	}
	switch {
	case o.IPv6Prefix < 0 || o.IPv6Prefix > 128:
		return nil, fmt.Errorf("%w: IPv6Prefix is %d; it must be from 1 to 128, or 0 for 64", ErrInvalid, o.IPv6Prefix)
	case o.IPv6Prefix == 0:
		finder.bits = 64
	}
	switch finder.header = http.CanonicalHeaderKey(o.Header); finder.header {
	case "":
		finder.header = "X-Forwarded-For"
	case "X-Forwarded-For":
	case "Forwarded":
		finder.last = lastForwarded
	default:
		return nil, fmt.Errorf("%w: Header is %q; it must be \"X-Forwarded-For\" or \"Forwarded\"", ErrInvalid, o.Header)
	}
	if o.Header != "" && len(o.TrustedProxies) == 0 {
		return nil, fmt.Errorf("%w: Header is %q and there are no TrustedProxies: it would never be read", ErrInvalid, o.Header)
	}
	return finder.key, nil
}

// normalPrefix returns a prefix that addresses without IPv4-mapped ones can be compared with.
func normalPrefix(p netip.Prefix) (netip.Prefix, error) {
	switch {
	case !p.IsValid():
		return netip.Prefix{}, errors.New("no network")
	case !p.Addr().Is4In6():
		return p.Masked(), nil
	case p.Bits() < 96:
		return netip.Prefix{}, errors.New("an IPv4-mapped network has at least 96 bits")
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked(), nil
}

// ipFinder finds the address of a client.
type ipFinder struct {
	trusted []netip.Prefix
	header  string
	bits    int

	// last splits the last entry off a header line and returns its address. An empty line is an empty entry, which is none.
	last func(line string) (rest string, more bool, addr netip.Addr, ok bool)
}

// key is a KeyFunc.
func (f *ipFinder) key(r *http.Request) (string, error) {
	peer, ok := parseAddr(r.RemoteAddr)
	if !ok {
		return "", fmt.Errorf("httplimit: RemoteAddr is %q, which is no IP address", r.RemoteAddr)
	}
	client := f.client(peer, r.Header[f.header])
	if client.Is4() || f.bits == 128 {
		return client.String(), nil
	}
	return netip.PrefixFrom(client, f.bits).Masked().String(), nil
}

// client walks from the peer to the client, over the proxies that are trusted.
func (f *ipFinder) client(peer netip.Addr, lines []string) netip.Addr {
	for n := len(lines) - 1; n >= 0; n-- {
		for line, more := lines[n], true; more && f.trusts(peer); {
			rest, before, addr, ok := f.last(line)
			if !ok {
				return peer
			}
			line, more, peer = rest, before, addr
		}
	}
	return peer
}

func (f *ipFinder) trusts(addr netip.Addr) bool {
	for _, prefix := range f.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// optionalSpace is what may be around the entries of a list (RFC 9110, 5.6.3).
const optionalSpace = " \t"

// lastForwardedFor splits the last entry off a line of X-Forwarded-For. more reports whether there is another one before
// it, which then is what rest ends with.
func lastForwardedFor(line string) (rest string, more bool, addr netip.Addr, ok bool) {
	comma := strings.LastIndexByte(line, ',')
	addr, ok = parseAddr(strings.Trim(line[comma+1:], optionalSpace))
	return line[:max(comma, 0)], comma >= 0, addr, ok
}

// parseAddr reads an address with or without a port, and IPv6 with or without brackets. It has neither a zone, which is
// another host's business, nor IPv4 in IPv6.
func parseAddr(s string) (addr netip.Addr, ok bool) {
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		addr = withPort.Addr()
	} else {
		bare, bracketed := s, len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']'
		if bracketed {
			bare = s[1 : len(s)-1]
		}
		if addr, err = netip.ParseAddr(bare); err != nil || bracketed && addr.Is4() {
			return netip.Addr{}, false
		}
	}
	return addr.Unmap().WithZone(""), true
}
