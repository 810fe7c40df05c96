package sim

import (
	"net"
	"sync"
)

// backlog is how many connections wait to be accepted before further requests
// are ignored: the classic SOMAXCONN, small enough for a test to fill.
const backlog = 128

// A listener implements net.Listener. Guarded by the network's lock.
type listener struct {
	host    *Host
	local   *net.TCPAddr
	waiting []*conn   // established, not yet accepted; at most backlog
	ready   sync.Cond // waiting, closed or host changed
	closed  bool
}

func newListener(h *Host, local *net.TCPAddr) *listener {
	l := &listener{host: h, local: local}
	l.ready.L = &h.net.mu
	return l
}

// Addr returns a *net.TCPAddr.
func (l *listener) Addr() net.Addr { return l.local }

// Accept waits for the next connection, or until the listener is closed.
func (l *listener) Accept() (net.Conn, error) {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	for {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.local, Err: net.ErrClosed}
		}
		if len(l.waiting) > 0 && !l.host.frozen {
			c := l.waiting[0]
			l.waiting = l.waiting[1:]
			return c, nil
		}
		l.ready.Wait()
	}
}

// Close frees the port and resets the connections that nobody accepted. A
// second Close fails with net.ErrClosed.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.local, Err: net.ErrClosed}
	}
	delete(l.host.sockets, l)
	delete(l.host.machine.streams, uint16(l.local.Port))
	for _, c := range l.waiting {
		c.abort()
	}
	l.die(false)
	return nil
}

func (l *listener) wake() { l.ready.Broadcast() }

// die leaves the connections in the backlog to the host: they are its sockets
// too.
func (l *listener) die(bool) {
	l.closed = true
	l.waiting = nil
	l.ready.Broadcast()
}
