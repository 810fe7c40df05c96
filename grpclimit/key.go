package grpclimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// ErrNoKey means that a call has left out what it is to be limited by, such as the metadata that a key function looks for.
var ErrNoKey = errors.New("grpclimit: no key")

// Call is a call, or a message of a stream, as functions for keys and costs see it.
type Call struct {
	// Method is the full name, "/package.Service/Method".
	Method string

	// Message is the request of a unary call, or the message of a stream that [Options.MessageCost] is for. It is nil when a
	// stream begins, and must not be changed.
	Message any

	// Client is set in a client's interceptors, and Target there is what the connection was made for.
	Client bool
	Target string
}

// KeyFunc returns the key of a call: calls with the same key share a bucket. A key is 1 to 1,024 bytes of anything. It is
// called once for each call, also for a stream of many messages, by many goroutines at once.
type KeyFunc func(ctx context.Context, call Call) (string, error)

// PeerIP is for servers: the address of the client that has opened the connection, an IPv6 address without its last 64 bits,
// which a client can change at will. Behind a proxy that is the proxy; take [Metadata] that the proxy sets. A connection
// without an IP address, such as one over a Unix socket, has [ErrNoKey].
func PeerIP(ctx context.Context, _ Call) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "", fmt.Errorf("%w: the peer has no address", ErrNoKey)
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		host = p.Addr.String()
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%w: the peer's address %q is no IP address", ErrNoKey, p.Addr)
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String(), nil
	}
	return netip.PrefixFrom(addr, 64).Masked().String(), nil
}

// Metadata returns the first value of that name, such as "x-api-key", as the key: of incoming metadata in a server, of
// outgoing in a client. A call without it, or with an empty one, has [ErrNoKey]. Clients choose what they send: limit by
// metadata only behind something that has checked it.
func Metadata(name string) KeyFunc {
	name = strings.ToLower(name)
	return func(ctx context.Context, call Call) (string, error) {
		var values []string
		if call.Client {
			md, _ := metadata.FromOutgoingContext(ctx)
			values = md.Get(name)
		} else {
			values = metadata.ValueFromIncomingContext(ctx, name)
		}
		if len(values) == 0 || values[0] == "" {
			return "", fmt.Errorf("%w: metadata %q is missing or empty", ErrNoKey, name)
		}
		return values[0], nil
	}
}

// Method returns the full method as the key: one bucket for each.
func Method(_ context.Context, call Call) (string, error) { return call.Method, nil }

// Target is for clients: what the connection was made for, one bucket for each. A server's call has [ErrNoKey].
func Target(_ context.Context, call Call) (string, error) {
	if call.Target == "" {
		return "", fmt.Errorf("%w: the call has no target", ErrNoKey)
	}
	return call.Target, nil
}

// Join returns a key made of several, such as a client and a method. Different parts never make the same key. It fails
// with the first error of its parts, and when there are none.
func Join(parts ...KeyFunc) KeyFunc {
	return func(ctx context.Context, call Call) (string, error) {
		if len(parts) == 0 {
			return "", errors.New("grpclimit: Join of no parts")
		}
		values := make([]string, len(parts))
		for i, part := range parts {
			value, err := part(ctx, call)
			if err != nil {
				return "", err
			}
			values[i] = escaper.Replace(value)
		}
		return strings.Join(values, "|"), nil
	}
}

// escaper keeps what stands between the parts of a key out of the parts.
var escaper = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
