package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memNetwork is a network inside the test: streams with a bounded buffer, which
// can be stalled, cut and refused. It works in a synctest bubble.
type memNetwork struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	conns     []*memConn
	lastPort  int
	window    int           // bytes a stream holds before writing blocks
	dialDelay time.Duration // before a dial is decided
	stalled   bool
	dials     []time.Time // when each dial began
}

func newMemNetwork() *memNetwork {
	return &memNetwork{listeners: make(map[string]*memListener), window: 64 << 10}
}

func (n *memNetwork) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
		n.lastPort++
		addr = fmt.Sprintf("mem:%d", n.lastPort)
	}
	if n.listeners[addr] != nil {
		return nil, errors.New("mem: address in use")
	}
	l := &memListener{network: n, addr: memAddr(addr), queue: make(chan net.Conn, 1024), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

func (n *memNetwork) ListenPacket(string) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

func (n *memNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	delay := n.dialDelay
	n.mu.Unlock()
	if delay > 0 && !sleep(ctx, delay) {
		return nil, ctx.Err()
	}
	n.mu.Lock()
	stalled, listener := n.stalled, n.listeners[addr]
	window := n.window
	n.mu.Unlock()
	if stalled { // packets vanish, nobody refuses
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if listener == nil {
		return nil, errors.New("mem: connection refused")
	}
	there, back := newMemStream(window), newMemStream(window)
	dialled := &memConn{in: back, out: there, remote: listener.addr}
	accepted := &memConn{in: there, out: back, remote: "mem:dialler"}
	n.mu.Lock()
	n.conns = append(n.conns, dialled, accepted)
	n.mu.Unlock()
	select {
	case listener.queue <- accepted:
		return dialled, nil
	case <-listener.closed:
		return nil, errors.New("mem: connection refused")
	}
}

// stall stops all bytes on the way, and new dials, until it is called with
// false. What was written before and meanwhile arrives then, as with TCP.
func (n *memNetwork) stall(stalled bool) {
	n.mu.Lock()
	n.stalled = stalled
	conns := append([]*memConn(nil), n.conns...)
	n.mu.Unlock()
	for _, c := range conns {
		c.out.change(func() { c.out.stalled = stalled })
	}
}

// breakAll ends every connection, as when the other process has died.
func (n *memNetwork) breakAll() {
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// written is the number of bytes ever written to connections that still count.
func (n *memNetwork) written() int {
	n.mu.Lock()
	conns := n.conns
	n.mu.Unlock()
	total := 0
	for _, c := range conns {
		c.out.change(func() { total += c.out.total })
	}
	return total
}

func (n *memNetwork) dialTimes() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]time.Time(nil), n.dials...)
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	network *memNetwork
	addr    memAddr
	queue   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, string(l.addr))
		l.network.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

// memStream is one direction of a connection.
type memStream struct {
	mu            sync.Mutex
	changed       chan struct{} // closed and replaced whenever something changes
	buf           []byte
	window        int
	total         int
	stalled       bool
	writerClosed  bool
	readerClosed  bool
	readDeadline  time.Time
	writeDeadline time.Time
}

func newMemStream(window int) *memStream {
	return &memStream{changed: make(chan struct{}), window: window}
}

// change does something to the stream and wakes all goroutines that wait for it.
func (s *memStream) change(what func()) {
	s.mu.Lock()
	what()
	changed := s.changed
	s.changed = make(chan struct{})
	s.mu.Unlock()
	close(changed)
}

// try repeats an attempt until it reports that it is done, whenever something has
// changed or the deadline has come.
func (s *memStream) try(deadline *time.Time, attempt func() bool) error {
	for {
		s.mu.Lock()
		done := attempt()
		changed, until := s.changed, *deadline
		s.mu.Unlock()
		if done {
			s.change(func() {})
			return nil
		}
		if until.IsZero() {
			<-changed
			continue
		}
		left := time.Until(until)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (s *memStream) read(b []byte) (n int, err error) {
	late := s.try(&s.readDeadline, func() bool {
		switch {
		case s.readerClosed:
			err = net.ErrClosed
		case s.stalled:
			return false
		case len(s.buf) > 0:
			n = copy(b, s.buf)
			s.buf = append(s.buf[:0], s.buf[n:]...)
		case s.writerClosed:
			err = io.EOF
		default:
			return false
		}
		return true
	})
	if late != nil {
		return 0, late
	}
	return n, err
}

func (s *memStream) write(b []byte) (n int, err error) {
	late := s.try(&s.writeDeadline, func() bool {
		if s.writerClosed || s.readerClosed {
			err = net.ErrClosed
			return true
		}
		part := min(len(b)-n, s.window-len(s.buf))
		s.buf = append(s.buf, b[n:n+part]...)
		s.total += part
		n += part
		if part > 0 && n < len(b) { // let the reader make room
			changed := s.changed
			s.changed = make(chan struct{})
			close(changed)
		}
		return n == len(b)
	})
	if late != nil {
		return n, late
	}
	return n, err
}

// memConn is one end of a connection.
type memConn struct {
	in, out *memStream
	remote  memAddr
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memConn) Close() error {
	c.in.change(func() { c.in.readerClosed = true })
	c.out.change(func() { c.out.writerClosed = true })
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return memAddr("mem:here") }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.change(func() { c.in.readDeadline = t })
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.change(func() { c.out.writeDeadline = t })
	return nil
}
