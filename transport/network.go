package transport

import (
	"context"
	"net"
)

// Network is where listeners and connections come from. It lets a whole cluster
// run inside one process, in memory, with faults.
//
// Implementations must be safe for concurrent use. Connections must honour
// deadlines, and Close must end a Read or Write that is under way.
type Network interface {
	// Listen accepts streams on addr ("host:port"; port 0 picks a free one).
	Listen(addr string) (net.Listener, error)
	// ListenPacket receives datagrams on addr.
	ListenPacket(addr string) (net.PacketConn, error)
	// Dial opens a stream to addr. It must return soon after ctx is done.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// TCP is the real network: TCP streams and UDP datagrams. The zero value is
// ready for use. Nagle's algorithm is off (TCP_NODELAY, Go's default), because a
// lone request must leave immediately; TCP keep-alive is on with Go's defaults, so
// a connection whose other end vanished is noticed even when it is idle.
type TCP struct{}

// Listen implements [Network] with a TCP listener.
func (TCP) Listen(addr string) (net.Listener, error) {
	return net.Listen("tcp", addr)
}

// ListenPacket implements [Network] with a UDP socket.
func (TCP) ListenPacket(addr string) (net.PacketConn, error) {
	return net.ListenPacket("udp", addr)
}

// Dial implements [Network] with a TCP connection.
func (TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", addr)
}

// Peer is another node: its identity and where it listens.
type Peer struct {
	// Name is the identity that the handshake must confirm, 1 to 255 bytes. A
	// node with another name at the same address is refused.
	Name string
	// Addr is what [Network].Dial is given.
	Addr string
}
