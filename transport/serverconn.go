package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/printable"
	"github.com/peerlimit/peerlimit/internal/source"
)

const (
	// flushAfter is how many bytes of answers are collected before they are
	// written although more requests are waiting in the buffer: some 80 answers,
	// which keep their callers busy while the next ones are decided.
	flushAfter = 4 << 10
	// keptAnswer is the largest buffer for one response that is kept for the next.
	keptAnswer  = 64 << 10
	firstAnswer = 512
)

// serverConn is one connection to a client. Its goroutine, run, does everything
// but later functions; those share only the answerWriter with it.
type serverConn struct {
	server   *Server
	raw      net.Conn // what was accepted; what is closed
	conn     net.Conn // raw, wrapped
	greeting *greetingConn
	source   netip.Prefix
	number   uint64    // lower ones were accepted earlier; set, as is what follows, when it gets a place
	admitted time.Time // and the handshake may begin
	from     string
	logger   *slog.Logger
	writer   answerWriter
	late     atomic.Int64 // later functions running

	out      []byte // answers not yet written
	response []byte // the buffer handlers are given
}

func newServerConn(s *Server, raw net.Conn) *serverConn {
	greeting := &greetingConn{Conn: raw, left: maxGreeting}
	conn := net.Conn(greeting)
	if s.config.WrapConn != nil {
		conn = s.config.WrapConn(greeting)
	}
	return &serverConn{
		server:   s,
		raw:      raw,
		conn:     conn,
		greeting: greeting,
		source:   source.Of(raw.RemoteAddr()),
		logger:   s.config.Logger.With("addr", raw.RemoteAddr()),
		writer:   answerWriter{conn: conn, timeout: s.config.WriteTimeout},
		response: make([]byte, 0, firstAnswer),
	}
}

func (c *serverConn) close() {
	_ = c.raw.Close()
}

// run serves the connection until it ends.
func (c *serverConn) run() {
	defer c.server.forget(c)
	defer c.close()
	if err := c.shakeHands(); err != nil {
		c.logger.Debug("handshake failed", "err", err)
		if report := c.server.config.OnRefused; report != nil && !everyday(err) {
			report(c.raw.RemoteAddr(), err)
		}
		return
	}
	c.logger = c.logger.With("member", printable.Text(c.from)) // which is what the peer says
	err := c.serve()
	c.logger.Debug("connection ended", "err", err)
}

// maxGreeting is how many bytes a connection may send before the handshake is
// finished, with all that WrapConn's needs. Of TLS, 64 kB is a chain of some thirty
// certificates, and crypto/tls would buffer 256 kB of one.
const maxGreeting = 64 << 10

// greetingConn reads as many bytes as are left, and the rest of the connection once
// left is unbounded. Only the goroutine that reads sets that.
type greetingConn struct {
	net.Conn
	left int
}

const unbounded = -1

func (c *greetingConn) Read(b []byte) (int, error) {
	switch {
	case c.left == unbounded:
		return c.Conn.Read(b)
	case c.left == 0:
		return 0, errLongHandshake
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// everyday reports whether a handshake may fail so while nothing is wrong: a probe that only connects, a connection that
// made room for another one, a peer that looks for the node that was at this address before.
func everyday(err error) bool {
	if status := refusal(err); status == HandshakeName || status == HandshakeBusy {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

// shakeHands does the server's side of the handshake.
func (c *serverConn) shakeHands() error {
	config := &c.server.config
	if err := c.conn.SetDeadline(time.Now().Add(config.HandshakeTimeout)); err != nil {
		return err
	}
	body, err := readHandshake(c.conn)
	if err != nil {
		return err
	}
	h, err := decodeHello(body)
	if err != nil {
		return err
	}
	reply := judge(h, config.Cluster, config.Self, config.MinVersion, config.MaxVersion)
	if reply.status == HandshakeOK && !c.server.promote(c) {
		reply.status, reply.version = HandshakeBusy, 0
	}
	msg, err := reply.encode()
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(msg); err != nil {
		return err
	}
	if reply.status != HandshakeOK {
		return &HandshakeError{
			Status: reply.status, Cluster: h.cluster, Name: h.from, Version: h.maxVersion,
			Err: fmt.Errorf("%q asked for %q", h.from, h.to),
		}
	}
	c.from = h.from
	c.greeting.left = unbounded
	return c.conn.SetDeadline(time.Time{})
}

// serve answers frames until the connection ends. All that have arrived are
// handled before anything is written, so that answers go out together.
func (c *serverConn) serve() error {
	reader := newFrameReader(c.conn)
	for {
		if err := reader.fill(); err != nil {
			return err
		}
		for {
			f, ok, err := reader.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := c.handle(f); err != nil {
				return err
			}
			if len(c.out) >= flushAfter {
				if err := c.flush(); err != nil {
					return err
				}
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// flush writes the collected answers.
func (c *serverConn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.writer.send(c.out)
	if c.out = c.out[:0]; cap(c.out) > keptBuffer {
		c.out = nil
	}
	return err
}

// handle deals with one frame. Unknown kinds are skipped.
func (c *serverConn) handle(f frame) error {
	switch f.kind {
	case kindPing:
		c.out = appendFrame(c.out, kindPong, f.id, nil)
	case kindRequest, kindOneWay:
		answer, later, err := c.invoke(f.payload)
		switch {
		case err != nil:
			return err
		case later != nil:
			c.startLate(f, later)
		case f.kind == kindRequest:
			c.out = appendAnswer(c.out, f.id, answer)
		}
		if len(answer) > cap(c.response) && len(answer) <= keptAnswer {
			// The handler's buffer may be its own, so it is not adopted.
			c.response = make([]byte, 0, keptAnswer)
		}
	}
	return nil
}

// appendAnswer appends a response, or the message that it is too large.
func appendAnswer(dst []byte, id uint32, answer []byte) []byte {
	if len(answer) > MaxPayload {
		return appendFrame(dst, kindTooLarge, id, nil)
	}
	return appendFrame(dst, kindResponse, id, answer)
}

// invoke calls the handler and turns a panic into an error.
func (c *serverConn) invoke(request []byte) (answer []byte, later func(context.Context) []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = c.panicked(r)
		}
	}()
	answer, later = c.server.config.Handler(c.from, request, c.response[:0])
	return answer, later, nil
}

func (c *serverConn) panicked(value any) error {
	c.logger.Error("handler panicked, closing the connection; report this", "panic", value, "stack", string(debug.Stack()))
	return fmt.Errorf("%shandler panicked: %v", errPrefix, value)
}

// startLate runs later on a goroutine of its own, or refuses when there are too
// many.
func (c *serverConn) startLate(f frame, later func(context.Context) []byte) {
	config := &c.server.config
	if c.late.Add(1) > int64(config.MaxInFlight) {
		c.late.Add(-1)
		c.refuse(f)
		return
	}
	if c.server.late.Add(1) > int64(config.MaxInFlightTotal) {
		c.server.late.Add(-1)
		c.late.Add(-1)
		c.refuse(f)
		return
	}
	c.server.running.Add(1)
	go c.runLate(f.kind, f.id, later)
}

func (c *serverConn) refuse(f frame) {
	if f.kind == kindRequest {
		c.out = appendFrame(c.out, kindBusy, f.id, nil)
	}
}

// runLate runs later and sends its response. On an error the connection's own
// goroutine finds it closed.
func (c *serverConn) runLate(kind frameKind, id uint32, later func(context.Context) []byte) {
	defer c.server.running.Done()
	defer c.server.late.Add(-1)
	defer c.late.Add(-1)
	defer func() {
		if r := recover(); r != nil {
			_ = c.panicked(r) // logged; closing says the rest
			c.close()
		}
	}()
	answer := later(c.server.ctx)
	// What later returned because it was told to end is no response.
	if kind != kindRequest || c.server.ctx.Err() != nil {
		return
	}
	msg := make([]byte, 0, headerSize+len(answer))
	if err := c.writer.send(appendAnswer(msg, id, answer)); err != nil {
		c.close()
	}
}
