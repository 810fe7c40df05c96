package sim

import (
	"syscall"
	"time"
)

const (
	// window bounds the bytes of one direction that the reader has not read
	// yet, wherever they are: send buffer, wire and receive buffer together.
	window = 256 << 10

	// Retransmission, as Linux does it by default: 200 ms after the loss, then
	// twice as long each time, at most 120 s, and at the sixteenth the
	// connection is given up.
	firstRetransmission   = 200 * time.Millisecond
	longestRetransmission = 120 * time.Second
	retransmissions       = 15
)

// retransmissionWait is how long the sender waits after so many retransmissions
// without a response.
func retransmissionWait(retries int) time.Duration {
	return min(firstRetransmission<<retries, longestRetransmission)
}

type segmentKind uint8

const (
	dataSegment  segmentKind = iota
	finSegment               // the sender has closed; nothing follows
	resetSegment             // the sender knows no such connection
)

// A segment is what travels at once: the bytes of one Write, or an end.
type segment struct {
	kind    segmentKind
	data    []byte
	arrival time.Duration
}

// A stream is one direction of a connection, at both of its ends. Guarded by
// the network's lock.
//
// Every segment is in exactly one place, and in this order: received by the
// far end, in flight, held back. Segments are held back while something before
// them has to be retransmitted, so jitter, loss and cuts never reorder bytes.
type stream struct {
	clock       *schedule
	from, to    *conn
	ahead, back *link // the way of the bytes, and that of their acknowledgements

	// The sender's side.
	flight      []segment // each waits for those before it
	held        []segment
	recovering  bool // something was not acknowledged; retransmission is scheduled
	retries     int  // retransmissions since that began
	over        bool // the sender is gone: nothing is retransmitted
	outstanding int  // bytes written and not known to be read; at most window
	unreported  int  // bytes of these that were read while recovering

	// The receiver's side.
	received [][]byte
	finished bool // a finSegment arrived

	arrival, retransmission event
}

func newStream(from, to *conn, ahead, back *link) *stream {
	s := &stream{clock: &ahead.net.clock, from: from, to: to, ahead: ahead, back: back}
	s.arrival.fire = s.arrive
	s.retransmission.fire = s.retransmit
	return s
}

// send queues a segment behind everything sent before it.
func (s *stream) send(seg segment) {
	// After the first retransmission without a response a sender's congestion
	// window is one segment; until then new bytes still go out.
	if len(s.held) > 0 || s.recovering && s.retries > 0 {
		s.held = append(s.held, seg)
		return
	}
	fate := s.ahead.roll()
	if fate.lost || !s.ahead.open() {
		s.held = append(s.held, seg)
		s.recover()
		return
	}
	s.launch(seg, fate.latency)
}

// launch puts a segment on the wire, behind those that are there: it arrives no
// earlier than they do, whatever its own latency.
func (s *stream) launch(seg segment, latency time.Duration) {
	seg.arrival = s.clock.now() + latency
	s.flight = append(s.flight, seg)
	if len(s.flight) == 1 {
		s.clock.set(&s.arrival, seg.arrival)
	}
}

// arrive takes off the wire what has reached the far end. Bytes that a cut
// swallowed on the way are held back for retransmission.
func (s *stream) arrive() {
	for now := s.clock.now(); len(s.flight) > 0 && s.flight[0].arrival <= now; {
		if !s.ahead.open() {
			lost := s.flight
			s.flight = nil
			if s.over {
				s.to.out.probe()
			} else {
				s.held = append(lost, s.held...)
				s.recover()
			}
			return
		}
		seg := s.flight[0]
		s.flight[0] = segment{}
		s.flight = s.flight[1:]
		s.deliver(seg)
	}
	if len(s.flight) > 0 {
		s.clock.set(&s.arrival, s.flight[0].arrival)
	}
}

// deliver gives a segment to the far end.
func (s *stream) deliver(seg segment) {
	switch {
	case seg.kind == resetSegment:
		s.to.fail(syscall.ECONNRESET)
		return
	case s.to.gone():
		s.refuse(seg)
		return
	case seg.kind == finSegment:
		s.finished = true
	default:
		s.received = append(s.received, seg.data)
	}
	s.to.readable.Broadcast()
	if !s.back.open() {
		s.recover()
	}
}

// refuse answers bytes for an end that is gone with a reset. They are not
// acknowledged, so they come again if the reset is lost.
func (s *stream) refuse(seg segment) {
	if seg.kind == dataSegment {
		s.held = append(s.held, seg)
		s.recover()
		s.to.out.reset()
	}
}

// recover schedules the first retransmission, unless one is scheduled.
func (s *stream) recover() {
	if s.recovering || s.over {
		return
	}
	s.recovering, s.retries = true, 0
	s.clock.set(&s.retransmission, s.clock.now()+retransmissionWait(0))
}

// retransmit tries again. With both ways open everything held back follows at
// once, and what was read meanwhile is acknowledged.
func (s *stream) retransmit() {
	if s.from.host.unplugged {
		return
	}
	if s.retries == retransmissions {
		s.from.fail(syscall.ETIMEDOUT)
		return
	}
	s.retries++
	fate := s.ahead.roll()
	if fate.lost || !s.ahead.open() || !s.back.open() {
		s.clock.set(&s.retransmission, s.clock.now()+retransmissionWait(s.retries))
		return
	}
	s.recovering, s.retries = false, 0
	s.release(s.unreported)
	s.unreported = 0
	held := s.held
	s.held = nil
	for _, seg := range held {
		s.launch(seg, fate.latency)
	}
	if len(held) == 0 && s.to.gone() {
		s.recover() // until the reset arrives
		s.to.out.reset()
	}
}

// probe makes a sender that waits for room find out, by retransmission, that
// the far end went without a word: no acknowledgement will come to wake it.
func (s *stream) probe() {
	if s.room() == 0 {
		s.recover()
	}
}

// read moves received bytes to p and makes room for as many in the window.
func (s *stream) read(p []byte) int {
	total := 0
	for len(p) > 0 && len(s.received) > 0 {
		n := copy(p, s.received[0])
		p, total = p[n:], total+n
		if n < len(s.received[0]) {
			s.received[0] = s.received[0][n:]
			break
		}
		s.received[0] = nil
		s.received = s.received[1:]
	}
	if s.recovering {
		s.unreported += total
	} else {
		s.release(total)
	}
	return total
}

// release makes room for n more bytes.
func (s *stream) release(n int) {
	s.outstanding -= n
	s.from.writable.Broadcast()
}

// room is how many bytes may be written now.
func (s *stream) room() int { return window - s.outstanding }

// stop ends the sender's side: what is in flight arrives, nothing else.
func (s *stream) stop() {
	s.over = true
	s.held = nil
	s.clock.cancel(&s.retransmission)
}

// reset tells the far end that the sender knows no such connection. Resets are
// not retransmitted: a cut or a loss swallows them.
func (s *stream) reset() {
	s.stop()
	fate := s.ahead.roll()
	if fate.lost || !s.ahead.open() {
		s.to.out.probe()
		return
	}
	s.launch(segment{kind: resetSegment}, fate.latency)
}
