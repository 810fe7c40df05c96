package main

import (
	"context"
	"net"
	"sync"

	"github.com/peerlimit/peerlimit/transport"
)

// cuttable is the real network, from which other nodes can be cut off as by a firewall that drops all there is between
// them. Streams that were open then stay silent, and are closed when the network is whole again. A node refuses what it
// would send, and what comes on connections it has opened; what comes on the others, the node at their other end refuses.
type cuttable struct {
	transport.TCP

	mu      sync.Mutex // guards what follows; nothing is sent or waited for under it
	away    map[string]bool
	changed chan struct{} // closed when away is replaced
	streams map[*cutStream]bool
}

func newCuttable() *cuttable {
	return &cuttable{changed: make(chan struct{}), streams: make(map[*cutStream]bool)}
}

// cut makes addresses unreachable, and all others reachable.
func (c *cuttable) cut(addresses []string) {
	away := make(map[string]bool)
	for _, a := range addresses {
		away[a] = true
	}
	var stale []*cutStream
	c.mu.Lock()
	for s := range c.streams {
		switch {
		case away[s.addr]:
			s.silence()
		case s.isSilent():
			stale = append(stale, s)
		}
	}
	c.away = away
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	for _, s := range stale {
		_ = s.Close() // the other end learns of it only now
	}
}

// isAway reports whether an address is cut off, and returns what is closed when that changes.
func (c *cuttable) isAway(addr string) (away bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away[addr], c.changed
}

// Dial implements [transport.Network].
func (c *cuttable) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for {
		away, changed := c.isAway(addr)
		if !away {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}
	}
	conn, err := c.TCP.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	s := &cutStream{Conn: conn, network: c, addr: addr, silent: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away[addr] {
		s.silence()
	}
	c.streams[s] = true
	return s, nil
}

// ListenPacket implements [transport.Network].
func (c *cuttable) ListenPacket(addr string) (net.PacketConn, error) {
	conn, err := c.TCP.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	return &cutPackets{conn, c}, nil
}

// cutPackets loses what is sent to a node that is cut off.
type cutPackets struct {
	net.PacketConn
	network *cuttable
}

// WriteTo implements [net.PacketConn].
func (p *cutPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if away, _ := p.network.isAway(to.String()); away {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

// cutStream is a stream that this node has opened.
type cutStream struct {
	net.Conn
	network *cuttable
	addr    string
	once    sync.Once
	silent  chan struct{} // closed when it has been cut
}

func (s *cutStream) silence() { s.once.Do(func() { close(s.silent) }) }

func (s *cutStream) isSilent() bool {
	select {
	case <-s.silent:
		return true
	default:
		return false
	}
}

// Read implements [net.Conn]. What arrives on a stream that was cut is lost.
func (s *cutStream) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if !s.isSilent() {
			return n, err
		}
		if err != nil {
			return 0, err
		}
	}
}

// Write implements [net.Conn].
func (s *cutStream) Write(b []byte) (int, error) {
	if s.isSilent() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// Close implements [net.Conn].
func (s *cutStream) Close() error {
	s.network.mu.Lock()
	delete(s.network.streams, s)
	s.network.mu.Unlock()
	return s.Conn.Close()
}
