package peerlimit

import (
	"context"
	"net"
	"sync"
	"time"
)

// maxInboundStreams bounds the streams that others have open to gossip at once, each of which costs a goroutine for up
// to memberlist's TCPTimeout. memberlist itself serves 128 push/pulls at a time; the rest is room for probes over TCP.
// Who is turned away tries again.
const maxInboundStreams = 256

// gossipStreams is the set of streams that gossip has open. Closing it ends at once what waits in any of them or in a
// dial, which memberlist's Shutdown leaves to deadlines; so nobody who closes a node waits for a peer that is silent.
type gossipStreams struct {
	ctx  context.Context // ends when the set is closed
	stop context.CancelFunc

	mu      sync.Mutex // guards the fields below; nothing is read, written or closed under it
	open    map[*gossipStream]struct{}
	inbound int // of those that are open
	closed  bool
}

func newGossipStreams() *gossipStreams {
	ctx, stop := context.WithCancel(context.Background())
	return &gossipStreams{ctx: ctx, stop: stop, open: make(map[*gossipStream]struct{})}
}

// dial opens a stream and gives it until timeout for what comes first, the cluster's label: memberlist writes that before
// it sets a deadline of its own.
func (s *gossipStreams) dial(timeout time.Duration, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	stream, ok := s.adopt(conn, false)
	if !ok {
		return nil, net.ErrClosed
	}
	if err := stream.SetDeadline(time.Now().Add(timeout)); err != nil {
		_ = stream.Close()
		return nil, err
	}
	return stream, nil
}

// adopt takes a stream into the set. It closes the stream when the set is closed or has as many inbound ones as it may.
func (s *gossipStreams) adopt(conn net.Conn, inbound bool) (*gossipStream, bool) {
	stream := &gossipStream{Conn: conn, set: s, inbound: inbound}
	s.mu.Lock()
	ok := !s.closed && (!inbound || s.inbound < maxInboundStreams)
	if ok {
		s.open[stream] = struct{}{}
		if inbound {
			s.inbound++
		}
	}
	s.mu.Unlock()
	if !ok {
		_ = conn.Close()
	}
	return stream, ok
}

// deliver adopts an inbound stream and hands it over, unless the set is closed meanwhile.
func (s *gossipStreams) deliver(conn net.Conn, to chan<- net.Conn) {
	stream, ok := s.adopt(conn, true)
	if !ok {
		return
	}
	select {
	case to <- stream:
	case <-s.ctx.Done():
		_ = stream.Close()
	}
}

// close closes every stream and ends every dial, now and from now on.
func (s *gossipStreams) close() {
	s.stop()
	s.mu.Lock()
	s.closed = true
	streams := make([]*gossipStream, 0, len(s.open))
	for stream := range s.open {
		streams = append(streams, stream)
	}
	s.mu.Unlock()
	for _, stream := range streams {
		_ = stream.Close()
	}
}

// gossipStream is a stream in a set of them.
type gossipStream struct {
	net.Conn
	set     *gossipStreams
	inbound bool
}

// Write closes the stream when it fails. memberlist drops a stream to which it could not write the label without
// closing it.
func (s *gossipStream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		_ = s.Close()
	}
	return n, err
}

// Close takes the stream out of its set and closes it. It can be called more than once.
func (s *gossipStream) Close() error {
	s.set.mu.Lock()
	if _, ok := s.set.open[s]; ok {
		delete(s.set.open, s)
		if s.inbound {
			s.set.inbound--
		}
	}
	s.set.mu.Unlock()
	return s.Conn.Close()
}
