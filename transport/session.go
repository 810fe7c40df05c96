package transport

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
)

const (
	// keptBuffer is the largest write buffer that is kept for the next batch. It
	// holds what a few thousand callers send at once; a burst of large requests
	// must not stay in memory for as long as the link lives.
	keptBuffer = 256 << 10

	// maxDirect is the largest request that its caller writes itself: any socket buffer that is nearly empty has room for
	// it.
	maxDirect = 4 << 10

	// expiryStep is the shortest time between two searches for calls that have
	// timed out. With a stalled peer and tens of thousands of callers a search is a
	// good part of a millisecond (BenchmarkExpiry), and one for every deadline would
	// keep a core busy. A timeout can be late by this much.
	expiryStep = time.Millisecond

	// maxYields is how often a writer lets others run before it writes, at most: when two processors wake callers at the same
	// time, a few times bring all of them. Once that has taken yieldTime it is not done again: what runs then is not callers,
	// and where something computes, each time can take the 10 ms that the scheduler lets it.
	maxYields = 8
	yieldTime = int64(50 * time.Microsecond)
)

var errSilent = errors.New(errPrefix + "no answer")

// session is one connection to a peer, from the end of the handshake until it
// breaks. Three goroutines work on it, all owned by its link: writeLoop,
// readLoop and the link's own, which calls check when the time has come.
type session struct {
	conn    net.Conn
	raw     net.Conn // what conn wraps, if it does: closing it never waits
	version uint8
	config  *ClientConfig
	clock   func() int64 // nanoseconds since the client was made, monotonic
	pool    *sync.Pool   // of *call
	errs    *linkErrors
	loops   sync.WaitGroup // writeLoop and readLoop

	wake      chan struct{} // capacity 1: writeLoop has something to do
	attention signal.Signal // capacity 1: check must be called
	ended     chan struct{} // closed by fail

	// mu guards everything below. It is held for copying a request at most; I/O,
	// channel operations and waking callers happen outside.
	mu       sync.Mutex
	calls    callTable
	queue    []byte // frames not yet handed to the connection
	writing  bool   // writeLoop is awake, or a token for it is or will be in wake, or a caller writes in its place
	closed   bool
	cause    error // why, once closed
	lastWake int64 // when check will be called at the latest

	// What the silence of the peer means. Any byte received ends it.
	silent   bool  // something was sent and nothing has come back since
	pingAt   int64 // while silent: when to ask
	pings    int   // asked since the silence began
	timeouts int   // calls that timed out since it began, or would have
	suspect  bool  // timeouts has reached SuspectAfter

	// unawaited are the deadlines, still to come, of calls that ended with their context: that a caller cannot wait makes
	// silence no better. It is bounded by SuspectAfter.
	unawaited []int64
}

func newSession(conn, raw net.Conn, version uint8, c *Client, errs *linkErrors) *session {
	return &session{
		conn:      conn,
		raw:       raw,
		version:   version,
		config:    &c.config,
		clock:     c.clock,
		pool:      &c.pool,
		errs:      errs,
		wake:      make(chan struct{}, 1),
		attention: signal.New(),
		ended:     make(chan struct{}),
		calls:     newCallTable(),
		lastWake:  never,
	}
}

// start runs the two loops.
func (s *session) start() {
	s.loops.Go(s.writeLoop)
	s.loops.Go(s.readLoop)
}

// call sends a request, waits for its response and appends it to dst.
func (s *session) call(ctx context.Context, dst, request []byte, timeout time.Duration) ([]byte, error) {
	now := s.clock()
	c := s.pool.Get().(*call)
	c.deadline = later(now, timeout)

	s.mu.Lock()
	if err := s.admit(len(request)); err != nil {
		s.mu.Unlock()
		s.pool.Put(c)
		return nil, err
	}
	s.calls.add(c)
	s.queue = appendFrame(s.queue, kindRequest, c.id, request)
	owed := s.silent
	wake, attention := s.sent(now, c.deadline)
	var alone []byte
	if wake && !owed && s.calls.count == 1 && len(s.queue) <= maxDirect {
		alone, s.queue, wake = s.queue, nil, false
	}
	s.mu.Unlock()
	s.signal(wake, attention)
	if alone != nil {
		s.writeDirectly(alone)
	}

	if ended := ctx.Done(); ended == nil {
		<-c.done
	} else {
		select {
		case <-c.done:
		case <-ended:
			if s.abandon(c) {
				s.pool.Put(c)
				return nil, ctx.Err()
			}
			<-c.done // another goroutine has taken it and is about to complete it
		}
	}
	err := c.err
	if err == nil {
		dst = append(dst, c.answer...)
	} else {
		dst = nil
	}
	c.forget()
	s.pool.Put(c)
	return dst, err
}

// later returns now + d, or never when that is beyond the end of the clock.
func later(now int64, d time.Duration) int64 {
	if int64(d) > never-now {
		return never
	}
	return now + int64(d)
}

// post sends a message that is not answered.
func (s *session) post(request []byte) error {
	now := s.clock()
	s.mu.Lock()
	if err := s.admit(len(request)); err != nil {
		s.mu.Unlock()
		return err
	}
	s.queue = appendFrame(s.queue, kindOneWay, 0, request)
	wake, attention := s.sent(now, never)
	s.mu.Unlock()
	s.signal(wake, attention)
	return nil
}

// admit says whether a request of that size can be queued. s.mu is held.
func (s *session) admit(size int) error {
	switch {
	case s.closed && errors.Is(s.cause, ErrClosed):
		return s.errs.closed
	case s.closed:
		return s.errs.unreachable
	case s.calls.count >= s.config.MaxInFlight,
		len(s.queue) > 0 && len(s.queue)+headerSize+size > s.config.MaxQueued:
		return s.errs.busy
	}
	return nil
}

// sent notes that a frame was queued at now and that something may have to be
// done about it at deadline. It returns what signal must be given after s.mu,
// which is held, has been released.
func (s *session) sent(now, deadline int64) (wake, attention bool) {
	if !s.silent {
		s.silent = true
		s.pingAt = now + int64(s.config.PingInterval)/2
	}
	if next := min(deadline, s.pingAt); next < s.lastWake {
		s.lastWake = next
		attention = true
	}
	wake = !s.writing
	s.writing = true
	return wake, attention
}

// signal wakes the goroutines that have something to do. s.mu is not held.
func (s *session) signal(wake, attention bool) {
	if wake {
		s.wake <- struct{}{} // never blocks: only the goroutine that set writing sends
	}
	if attention {
		s.attention.Send()
	}
}

// abandon takes a call back and reports whether it was still in the table.
func (s *session) abandon(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls.take(c.id) != c {
		return false
	}
	if s.timeouts+len(s.unawaited) < s.config.SuspectAfter {
		s.unawaited = append(s.unawaited, c.deadline) // check is called by then, as it was for the call
	}
	return true
}

// writeLoop writes whatever has been queued, all of it at once, until the
// session ends. A stalled peer stops this loop and no other.
func (s *session) writeLoop() {
	var spare []byte
	for range s.wake {
		for {
			batch, open := s.takeQueue(spare)
			if !open {
				return
			}
			if len(batch) == 0 {
				break
			}
			if _, err := s.conn.Write(batch); err != nil {
				s.fail(err)
				return
			}
			if spare = batch[:0]; cap(spare) > keptBuffer {
				spare = nil
			}
		}
	}
}

// writeDirectly writes a lone request on its caller's goroutine, which saves waking another one: on an idle machine that
// costs as much as the network does. The caller is writeLoop's deputy, with writing set for it. It does not get stuck: it
// only comes here when the peer has answered everything that was sent before, so there is room for a small request.
func (s *session) writeDirectly(batch []byte) {
	if _, err := s.conn.Write(batch); err != nil {
		s.fail(err)
	}
	s.mu.Lock()
	more := len(s.queue) > 0 || s.closed
	if !more {
		s.queue, s.writing = batch[:0], false
	}
	s.mu.Unlock()
	s.signal(more, false) // writeLoop goes on with what has been queued meanwhile, or ends
}

// takeQueue returns what is to be written and leaves spare in its place. When
// there is nothing, writeLoop must wait to be woken; when the session has ended,
// it reports false.
//
// With other calls in flight it first lets the goroutines run that can run now,
// and again as long as that has brought more requests. Most of them are callers
// that the last answers have woken, and they queue their next requests; without
// that, nearly every request would get a write of its own. This is no delay
// waiting for something to come: when nothing else can run, it goes on immediately,
// and a lone call does not even ask.
func (s *session) takeQueue(spare []byte) (batch []byte, open bool) {
	var began int64
	s.mu.Lock()
	for i := range maxYields {
		before := len(s.queue)
		if before == 0 || s.calls.count <= 1 {
			break
		}
		s.mu.Unlock()
		if i == 0 {
			began = s.clock()
		}
		runtime.Gosched()
		late := s.clock()-began > yieldTime
		s.mu.Lock()
		if len(s.queue) == before || late {
			break
		}
	}
	defer s.mu.Unlock()
	batch = s.queue
	if s.closed || len(batch) == 0 {
		s.writing = false
		return nil, !s.closed
	}
	s.queue = spare
	return batch, true
}

// readLoop hands answers to their callers until the session ends.
func (s *session) readLoop() {
	reader := newFrameReader(s.conn)
	for {
		if err := reader.fill(); err != nil {
			s.fail(err)
			return
		}
		for {
			f, ok, err := reader.next()
			if err != nil {
				s.fail(err)
				return
			}
			if !ok {
				break
			}
			s.dispatch(f)
		}
		s.heard() // after dispatch, when it is known whether anything is still owed
	}
}

// heard notes that the peer lives.
func (s *session) heard() {
	now := s.clock()
	s.mu.Lock()
	s.silent = s.calls.count > 0
	s.pingAt = now + int64(s.config.PingInterval)/2
	s.pings, s.timeouts, s.unawaited = 0, 0, s.unawaited[:0]
	attention := s.suspect
	s.suspect = false
	s.mu.Unlock()
	s.signal(false, attention)
}

// dispatch completes the call that a frame answers. Kinds it does not know,
// pongs, and responses to calls that no caller waits for (any more) are skipped.
func (s *session) dispatch(f frame) {
	if f.kind != kindResponse && f.kind != kindBusy && f.kind != kindTooLarge {
		return
	}
	s.mu.Lock()
	c := s.calls.take(f.id)
	s.mu.Unlock()
	switch {
	case c == nil:
	case f.kind == kindBusy:
		c.complete(nil, s.errs.busy)
	case f.kind == kindTooLarge:
		c.complete(nil, s.errs.tooLarge)
	default:
		c.complete(f.payload, nil)
	}
}

// fail ends the session: the connection is closed, and the calls in flight end
// with ErrClosed when that is the cause and with ErrBroken else. Only the first
// call has an effect.
func (s *session) fail(cause error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.cause = true, cause
	orphans := s.calls.takeAll()
	s.queue = nil
	wake := !s.writing
	s.writing = true
	s.mu.Unlock()

	_ = s.raw.Close()
	s.signal(wake, false)
	close(s.ended)
	verdict := s.errs.broken
	if errors.Is(cause, ErrClosed) {
		verdict = s.errs.closed
	}
	for _, c := range orphans {
		c.complete(nil, verdict)
	}
}

// health is what check found.
type health struct {
	suspect bool
	lost    bool  // silent for so long that the connection is worth nothing
	next    int64 // when to check again, on the session's clock
}

// check ends the calls that have timed out and asks a silent peer whether it is
// there. It is called by the link's goroutine when the time it returned last has
// come or something was sent on s.attention.
func (s *session) check() health {
	now := s.clock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return health{next: never}
	}
	expired := s.calls.takeExpired(now)
	before := len(s.unawaited)
	s.unawaited = slices.DeleteFunc(s.unawaited, func(deadline int64) bool { return deadline <= now })
	s.timeouts += len(expired) + before - len(s.unawaited)
	if s.timeouts >= s.config.SuspectAfter {
		s.suspect = true
	}
	var lost, wake bool
	if s.silent && now >= s.pingAt {
		// Silence is measured in pings, not in time: after this process itself has
		// been paused, the responses may be waiting to be read.
		lost = s.pings >= s.config.lostAfterPings()
		wake = s.ping(now)
	}
	next := s.calls.earliest
	for _, deadline := range s.unawaited {
		next = min(next, deadline)
	}
	if s.silent {
		next = min(next, s.pingAt)
	}
	if next != never {
		next = max(next, now+int64(expiryStep))
	}
	s.lastWake = next
	found := health{suspect: s.suspect, lost: lost, next: next}
	s.mu.Unlock()

	s.signal(wake, false)
	for _, c := range expired {
		c.complete(nil, s.errs.timeout)
	}
	return found
}

// ping queues a ping and reports whether writeLoop must be woken. s.mu is held.
func (s *session) ping(now int64) (wake bool) {
	s.queue = appendFrame(s.queue, kindPing, 0, nil)
	s.pings++
	s.pingAt = now + int64(s.config.PingInterval)
	wake = !s.writing
	s.writing = true
	return wake
}
