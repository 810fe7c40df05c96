package sim

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A conn is one end of a stream connection and implements net.Conn. Guarded by
// the network's lock.
type conn struct {
	host          *Host
	local, remote *net.TCPAddr
	in, out       *stream

	closed   bool          // by its own process, or with it
	parting  segmentKind   // what tells the peer so; sent immediately, or at the thaw
	detained bool          // closed while frozen: parting is still to be sent
	broken   syscall.Errno // why the connection ended by itself; 0 while it has not
	writing  bool          // a Write has sent a part and waits for room

	readable, writable          sync.Cond
	readDeadline, writeDeadline deadline
}

// newConnPair makes an established connection. Both ends are sockets of their
// hosts from now on, so that a fault finds them before a process has them.
func newConnPair(clientHost, serverHost *Host, client, server netip.AddrPort, there, back *link) (*conn, *conn) {
	c := newConn(clientHost, client, server)
	s := newConn(serverHost, server, client)
	c.out = newStream(c, s, there, back)
	s.out = newStream(s, c, back, there)
	c.in, s.in = s.out, c.out
	return c, s
}

func newConn(h *Host, local, remote netip.AddrPort) *conn {
	c := &conn{host: h, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote)}
	c.readable.L = &h.net.mu
	c.writable.L = &h.net.mu
	c.readDeadline.init(&h.net.clock, &c.readable)
	c.writeDeadline.init(&h.net.clock, &c.writable)
	h.sockets[c] = struct{}{}
	return c
}

// LocalAddr returns a *net.TCPAddr.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns a *net.TCPAddr.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Read waits for bytes. After those comes io.EOF when the peer has closed, or
// an error that is syscall.ECONNRESET when the peer was killed or had closed
// before it got all, syscall.ETIMEDOUT when it was silent for too long.
func (c *conn) Read(p []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for {
		if err := c.unusable(&c.readDeadline); err != nil {
			return 0, c.opError("read", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if !c.host.frozen {
			switch {
			case len(c.in.received) > 0:
				return c.in.read(p), nil
			case c.in.finished:
				return 0, io.EOF
			case c.broken != 0:
				return 0, c.opError("read", os.NewSyscallError("read", c.broken))
			}
		}
		c.readable.Wait()
	}
}

// Write sends p, copied, and waits while the window is full. The bytes of
// concurrent Writes do not mix. After an error as in Read, or syscall.EPIPE
// when the peer had closed and then refused more, the count says what was sent.
func (c *conn) Write(p []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	written := 0
	for {
		err := c.unusable(&c.writeDeadline)
		if err == nil {
			err = c.unwritable()
		}
		if err != nil {
			c.stopWriting(written)
			return written, c.opError("write", err)
		}
		mayWrite := !c.host.frozen && (written > 0 || !c.writing)
		if n := min(len(p)-written, c.out.room()); mayWrite && n > 0 {
			c.out.outstanding += n
			c.out.send(segment{data: append([]byte(nil), p[written:written+n]...)})
			c.writing = true
			written += n
		}
		if written == len(p) {
			c.stopWriting(written)
			return written, nil
		}
		c.writable.Wait()
	}
}

// stopWriting lets the next Write begin, if this one had.
func (c *conn) stopWriting(written int) {
	if written > 0 {
		c.writing = false
		c.writable.Broadcast()
	}
}

// unwritable returns why nothing more can be sent on an ended connection.
func (c *conn) unwritable() error {
	switch {
	case c.broken == 0:
		return nil
	case c.in.finished:
		return os.NewSyscallError("write", syscall.EPIPE)
	}
	return os.NewSyscallError("write", c.broken)
}

// Close ends the connection: the peer reads what was sent and then io.EOF, or
// syscall.ECONNRESET when something it had sent was not read here, as on Linux.
// What it sends from now on is answered with a reset. A second Close fails with
// net.ErrClosed.
func (c *conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.part(finSegment)
	return nil
}

// abort resets a connection that its process never got to see.
func (c *conn) abort() {
	if !c.closed {
		c.part(resetSegment)
	}
}

// part closes this end and tells the peer in the given way, but not before the
// host is thawed: a stopped process closes nothing.
func (c *conn) part(how segmentKind) {
	c.parting, c.detained = how, true
	c.shut()
	c.wake()
}

// shut makes every call of the process fail from now on.
func (c *conn) shut() {
	c.closed = true
	c.readDeadline.reset(time.Time{})
	c.writeDeadline.reset(time.Time{})
}

func (c *conn) wake() {
	c.readable.Broadcast()
	c.writable.Broadcast()
	if !c.detained || c.host.frozen {
		return
	}
	c.detained = false
	delete(c.host.sockets, c)
	unread := len(c.in.received) > 0
	c.in.received = nil
	switch {
	case c.broken != 0:
	case unread || c.parting == resetSegment:
		c.out.reset()
	default:
		c.out.send(segment{kind: finSegment})
	}
}

func (c *conn) die(reset bool) {
	c.detained = false
	c.shut()
	c.in.received = nil
	switch {
	case c.broken != 0:
	case reset:
		c.out.reset()
	default:
		c.out.stop()
		c.in.probe()
	}
	c.wake()
}

// fail ends a connection that the peer or the network has ended.
func (c *conn) fail(errno syscall.Errno) {
	c.out.stop()
	if c.broken == 0 {
		c.broken = errno
	}
	c.readable.Broadcast()
	c.writable.Broadcast()
}

// gone reports whether the kernel would answer bytes for this end with a reset.
func (c *conn) gone() bool { return c.closed && !c.detained || c.broken != 0 }

// SetDeadline sets both deadlines; see net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readDeadline, &c.writeDeadline)
}

// SetReadDeadline ends Read at t; the zero time means never.
func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readDeadline)
}

// SetWriteDeadline ends Write at t; the zero time means never.
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.writeDeadline)
}

func (c *conn) setDeadlines(t time.Time, which ...*deadline) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, d := range which {
		d.reset(t)
	}
	return nil
}

// unusable returns the error of a call that must end now.
func (c *conn) unusable(d *deadline) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case d.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
