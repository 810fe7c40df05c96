package iolimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Conn is a stream connection that reads and writes no faster than its bandwidths allow. Make one with [NewConn]; it is
// safe for concurrent use as every [net.Conn] is. The embedded Conn is the one below, whose bytes are not counted.
type Conn struct {
	net.Conn

	in      *inflow  // nil: reads are not limited
	out     *outflow // nil: writes are not limited
	reading *deadline
	writing *deadline
	close   context.CancelCauseFunc
}

// NewConn returns conn with reads that draw on read and writes that draw on write; the zero Bandwidth means that this
// direction is not limited. It takes conn over: Close closes it. Bytes are counted as they pass through it, so put it
// below TLS to limit what is on the wire, and above to limit content.
//
// Datagrams would be cut, so a conn whose network is udp, ip, unixgram or unixpacket is refused. Errors match
// [ErrInvalid]; conn is left open.
func NewConn(conn net.Conn, read, write Bandwidth) (*Conn, error) {
	if conn == nil {
		return nil, fmt.Errorf("%w conn: nil", ErrInvalid)
	}
	if network := networkOf(conn); isDatagram(network) {
		return nil, fmt.Errorf("%w conn: its network is %q; it must be a stream", ErrInvalid, network)
	}
	for direction, b := range map[string]Bandwidth{"read": read, "write": write} {
		if err := b.validate(); err != nil && !b.unlimited() {
			return nil, fmt.Errorf("%w, to %s", err, direction)
		}
	}
	open, closeCause := context.WithCancelCause(context.Background())
	c := &Conn{Conn: conn, reading: newDeadline(open), writing: newDeadline(open), close: closeCause}
	if !read.unlimited() {
		c.in = &inflow{source: conn, account: newAccount(open, read)}
	}
	if !write.unlimited() {
		c.out = &outflow{sink: conn, account: newAccount(open, write)}
	}
	return c, nil
}

// Read reads once and returns when what was read may pass; see [Reader.Read]. The read deadline and Close end its
// waiting, with errors that match [os.ErrDeadlineExceeded] and [net.ErrClosed]; bytes that were read when the deadline
// came are there for the next Read.
func (c *Conn) Read(p []byte) (int, error) {
	if c.in == nil {
		return c.Conn.Read(p)
	}
	n, err := c.in.read(c.reading.context(), p)
	return n, c.wrap("read", err)
}

// Write writes p in pieces, each when it may pass. The write deadline and Close end its waiting, with errors that match
// [os.ErrDeadlineExceeded] and [net.ErrClosed]; it says how much was written until then.
func (c *Conn) Write(p []byte) (int, error) {
	if c.out == nil {
		return c.Conn.Write(p)
	}
	n, err := c.out.write(c.writing.context(), p)
	return n, c.wrap("write", err)
}

// Close ends reads and writes, closes the connection below and gives back what was taken and not used.
func (c *Conn) Close() error {
	c.close(net.ErrClosed)
	err := c.Conn.Close()
	c.reading.stop()
	c.writing.stop()
	if c.in != nil {
		c.in.account.close()
	}
	if c.out != nil {
		c.out.account.close()
	}
	return err
}

// CloseWrite shuts down the writing side of the connection below, and fails with an error that matches
// [errors.ErrUnsupported] when that cannot be done, unlike with TCP, Unix sockets and TLS.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("iolimit: CloseWrite of a %T: %w", c.Conn, errors.ErrUnsupported)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline with the same time.
func (c *Conn) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline ends reads at t, also those that wait for bandwidth, and those that wait already. The zero time is
// never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.reading.set(t)
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline ends writes at t, also those that wait for bandwidth, and those that wait already. The zero time is
// never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writing.set(t)
	return c.Conn.SetWriteDeadline(t)
}

// wrap makes what ends a wait look as the errors of other connections do.
func (c *Conn) wrap(op string, err error) error {
	if err != os.ErrDeadlineExceeded && err != net.ErrClosed {
		return err
	}
	return &net.OpError{Op: op, Net: networkOf(c.Conn), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func networkOf(conn net.Conn) string {
	if addr := conn.LocalAddr(); addr != nil {
		return addr.Network()
	}
	return ""
}

func isDatagram(network string) bool {
	return strings.HasPrefix(network, "udp") || strings.HasPrefix(network, "ip") || network == "unixgram" || network == "unixpacket"
}
