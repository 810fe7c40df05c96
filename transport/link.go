package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var errGivenUp = errors.New(errPrefix + "link given up")

// linkErrors are the errors of one link, made once so that failing costs nothing.
type linkErrors struct {
	unreachable, broken, timeout, busy, tooLarge, suspect, closed error
}

func newLinkErrors(peer string) *linkErrors {
	return &linkErrors{
		unreachable: &Error{Peer: peer, Err: ErrUnreachable},
		broken:      &Error{Peer: peer, Err: ErrBroken},
		timeout:     &Error{Peer: peer, Err: ErrTimeout},
		busy:        &Error{Peer: peer, Err: ErrBusy},
		tooLarge:    &Error{Peer: peer, Err: ErrTooLarge},
		suspect:     &Error{Peer: peer, Err: ErrUnreachable, Cause: errSilent},
		closed:      &Error{Peer: peer, Err: ErrClosed},
	}
}

// linkStatus is what a call needs to know, in one atomic load. Immutable.
type linkStatus struct {
	state   LinkState
	session *session // when up or suspect
	err     error    // what calls fail with, unless connecting or up
}

// link keeps a connection to one peer. Its goroutine, run, dials, watches over
// the session, and is the only one that changes the status, so changes are
// reported in order.
type link struct {
	client *Client
	peer   Peer
	errs   *linkErrors

	status  atomic.Pointer[linkStatus]
	settled chan struct{} // closed when the first attempt has succeeded or failed
	waiting atomic.Int64  // calls waiting for settled

	ctx    context.Context // ends when the link is given up
	cancel context.CancelFunc

	// mu guards what stop needs to end whatever is under way. Nothing is closed
	// while it is held.
	mu      sync.Mutex
	stopped error    // why, once stop has been called
	conn    net.Conn // during a handshake, not wrapped
	session *session // after it
}

func newLink(c *Client, peer Peer) *link {
	l := &link{
		client:  c,
		peer:    peer,
		errs:    newLinkErrors(peer.Name),
		settled: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.status.Store(&linkStatus{state: LinkConnecting})
	return l
}

// call sends a request as soon as the link is up, fails immediately when it is not.
// The response is appended to dst.
func (l *link) call(ctx context.Context, dst, request []byte, timeout time.Duration) ([]byte, error) {
	if timeout <= 0 {
		return nil, l.errs.timeout
	}
	status := l.status.Load()
	if status.state == LinkConnecting {
		began := l.client.clock()
		if err := l.waitSettled(ctx, timeout); err != nil {
			return nil, err
		}
		status = l.status.Load()
		if timeout -= time.Duration(l.client.clock() - began); timeout <= 0 {
			return nil, l.errs.unreachable // nothing was sent
		}
	}
	if status.state != LinkUp {
		return nil, status.err
	}
	return status.session.call(ctx, dst, request, timeout)
}

// waitSettled waits for the outcome of the first attempt to connect.
func (l *link) waitSettled(ctx context.Context, timeout time.Duration) error {
	if l.waiting.Add(1) > int64(l.client.config.MaxInFlight) {
		l.waiting.Add(-1)
		return l.errs.busy
	}
	defer l.waiting.Add(-1)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-l.settled:
		return nil
	case <-timer.C:
		return l.errs.unreachable // nothing was sent
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *link) post(request []byte) error {
	status := l.status.Load()
	switch status.state {
	case LinkUp, LinkSuspect: // nobody waits for an answer: a peer that is only slow gets it yet
		return status.session.post(request)
	case LinkConnecting:
		return l.errs.unreachable
	default:
		return status.err
	}
}

// run keeps the link until stop is called.
func (l *link) run() {
	defer l.client.running.Done()
	redial := backoff{least: l.client.config.RedialMin, most: l.client.config.RedialMax}
	for {
		cause := l.connectAndWatch(&redial)
		if l.ctx.Err() != nil {
			break
		}
		l.down(cause)
		if !sleep(l.ctx, redial.next()) {
			break
		}
	}
	l.set(&linkStatus{state: LinkDown, err: l.stopError()})
}

// stopError is what calls fail with after stop.
func (l *link) stopError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.stopped, ErrClosed) {
		return l.errs.closed
	}
	return l.errs.unreachable
}

// connectAndWatch opens a session and stays with it until it has ended. It
// returns why there is no connection (any more).
func (l *link) connectAndWatch(redial *backoff) error {
	s, err := l.open()
	if err != nil {
		return err
	}
	began := l.client.clock()
	s.start()
	l.up(s)
	l.watch(s)
	s.loops.Wait()
	// A peer that accepts and then hangs up immediately is redialled no faster than
	// one that refuses.
	if time.Duration(l.client.clock()-began) >= l.client.config.RedialMax {
		redial.reset()
	}
	return s.cause
}

// open dials and shakes hands.
func (l *link) open() (*session, error) {
	config := &l.client.config
	ctx, cancel := context.WithTimeout(l.ctx, config.ConnectTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	raw, err := config.Network.Dial(ctx, l.peer.Addr)
	if err != nil {
		return nil, err
	}
	if !l.adopt(raw, nil) {
		return nil, l.discard(raw, errGivenUp)
	}
	conn := raw
	if config.WrapConn != nil {
		conn = config.WrapConn(raw)
	}
	version, err := l.shakeHands(conn, deadline)
	if err != nil {
		return nil, l.discard(raw, err)
	}
	s := newSession(conn, raw, version, l.client, l.errs)
	if !l.adopt(nil, s) {
		return nil, l.discard(raw, errGivenUp)
	}
	return s, nil
}

// shakeHands returns the version to speak on conn, which has no deadline then.
func (l *link) shakeHands(conn net.Conn, deadline time.Time) (uint8, error) {
	config := &l.client.config
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	version, err := greet(conn, hello{
		minVersion: config.MinVersion,
		maxVersion: config.MaxVersion,
		cluster:    config.Cluster,
		from:       config.Self,
		to:         l.peer.Name,
	})
	if err != nil {
		return 0, err
	}
	return version, conn.SetDeadline(time.Time{})
}

// adopt makes conn or s known to stop and reports false when it came too late.
func (l *link) adopt(conn net.Conn, s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.session = conn, s
	return l.stopped == nil
}

// discard closes a connection that did not become a session, and returns err.
func (l *link) discard(conn net.Conn, err error) error {
	l.adopt(nil, nil)
	_ = conn.Close()
	return err
}

// watch lets the session check itself whenever it is due, and follows what it
// finds, until the session has ended.
func (l *link) watch(s *session) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-s.attention:
		case <-timer.C:
		}
		found := s.check()
		if found.lost {
			s.fail(errSilent)
			return
		}
		if suspect := l.status.Load().state == LinkSuspect; suspect != found.suspect {
			l.setSuspect(s, found.suspect)
		}
		if found.next == never {
			timer.Stop()
		} else {
			timer.Reset(time.Duration(found.next - s.clock()))
		}
	}
}

// stop gives the link up. The cause is ErrClosed, which is then what calls in
// flight and later ones end with, or errGivenUp.
func (l *link) stop(cause error) {
	l.mu.Lock()
	if l.stopped != nil {
		l.mu.Unlock()
		return
	}
	l.stopped = cause
	conn, s := l.conn, l.session
	l.mu.Unlock()

	l.cancel()
	if conn != nil {
		_ = conn.Close()
	}
	if s != nil {
		s.fail(cause)
	}
}

// set publishes a status. The first one that is not connecting settles the link.
func (l *link) set(status *linkStatus) {
	first := l.status.Swap(status).state == LinkConnecting
	if first {
		close(l.settled)
	}
}

func (l *link) up(s *session) {
	l.set(&linkStatus{state: LinkUp, session: s})
	l.report(LinkChange{Peer: l.peer, State: LinkUp, Version: s.version})
}

func (l *link) setSuspect(s *session, suspect bool) {
	if suspect {
		l.set(&linkStatus{state: LinkSuspect, session: s, err: l.errs.suspect})
		l.report(LinkChange{Peer: l.peer, State: LinkSuspect, Version: s.version, Err: l.errs.suspect})
		return
	}
	l.set(&linkStatus{state: LinkUp, session: s})
	l.report(LinkChange{Peer: l.peer, State: LinkUp, Version: s.version})
}

// down notes that there is no connection. Every attempt of a redial that keeps
// failing comes here; only a change is reported.
func (l *link) down(cause error) {
	before := l.status.Load()
	err := &Error{Peer: l.peer.Name, Err: ErrUnreachable, Cause: cause}
	l.set(&linkStatus{state: LinkDown, err: err})
	if before.state == LinkDown && refusal(before.err) == refusal(err) {
		return
	}
	l.report(LinkChange{Peer: l.peer, State: LinkDown, Err: err})
}

// report tells the owner of the client, unless the link has been given up.
func (l *link) report(change LinkChange) {
	if l.client.config.OnLink != nil && l.ctx.Err() == nil {
		l.client.config.OnLink(change)
	}
}

// refusal returns what the handshake was refused for, and HandshakeOK when
// no peer was there to refuse: failures to dial and broken connections are the
// same failure, though their texts differ from one to the next.
func refusal(err error) HandshakeStatus {
	var refused *HandshakeError
	if errors.As(err, &refused) && refused.Status != HandshakeUnfinished {
		return refused.Status
	}
	return HandshakeOK
}
