package membership

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/signal"
	"github.com/peerlimit/peerlimit/internal/source"
)

// Bounds of the streams that others have open to gossip at once, each of which costs a goroutine for up to memberlist's
// TCPTimeout. Those that are known to be a member's have their own: memberlist serves 128 push/pulls at a time, and the
// rest is room for probes over TCP. A member that is turned away tries again.
const (
	// maxUnprovedStreams bounds those of which it is not known that they are a member's; without a Secret that is all of
	// them. Over it the oldest is dropped: a member's takes a round trip, and one that holds the place takes as long as
	// it can. Each has unprovedGrace before, also on a machine that has much to do; until the oldest has had it, no more
	// are accepted, and the system keeps them waiting.
	maxUnprovedStreams = 256
	unprovedGrace      = 250 * time.Millisecond
	maxProvedStreams   = 256

	// maxUnprovedBytes and maxProvedBytes bound what is buffered of their messages: eight of the longest. Over it the
	// oldest of those that are not known is dropped, and what is newer waits until that one's memory is free; of the
	// others the one that needs more is dropped.
	maxUnprovedBytes = 8 * maxGossipMessage
	maxProvedBytes   = 8 * maxGossipMessage
)

// gossipStreams is the set of streams that gossip has open. Closing it ends at once what waits in any of them or in a
// dial, which memberlist's Shutdown leaves to deadlines; so closing a node never waits for a peer that is silent.
type gossipStreams struct {
	gate  *gossipGate
	ctx   context.Context // ends when the set is closed
	stop  context.CancelFunc
	freed signal.Signal // holds a token when a place of one that is not known to be a member's has become free

	mu     sync.Mutex // guards the fields below; nothing is read, written or closed under it
	open   map[*gossipStream]struct{}
	usage  [2]gossipUsage // of inbound ones that are not known to be a member's, and of those that are
	room   chan struct{}  // closed and replaced when bytes of the former have become free
	opened uint64         // streams so far
	closed bool
}

// gossipUsage is what streams take of their bounds.
type gossipUsage struct {
	streams int // that are open
	bytes   int // of those, and of those that were dropped and have not let go of their memory yet
	leaving int // of the latter
}

func newGossipStreams(gate *gossipGate) *gossipStreams {
	ctx, stop := context.WithCancel(context.Background())
	return &gossipStreams{
		gate: gate, ctx: ctx, stop: stop, freed: signal.New(),
		open: make(map[*gossipStream]struct{}), room: make(chan struct{}),
	}
}

// dial opens a stream to an address and gives it until timeout for what comes first, the cluster's label: memberlist writes that before
// it sets a deadline of its own.
func (s *gossipStreams) dial(to string, timeout time.Duration, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		s.gate.attempts.note(to, FaultUnreachable, err)
		return nil, err
	}
	stream, ok := s.adopt(conn, false)
	if !ok {
		return nil, net.ErrClosed
	}
	stream.to = to
	if err := stream.SetDeadline(time.Now().Add(timeout)); err != nil {
		_ = stream.Close()
		return nil, err
	}
	return stream, nil
}

// adopt takes a stream into the set, unless that is closed: then it closes the stream. An inbound one that is too many
// takes the place of another, or waits for one.
func (s *gossipStreams) adopt(conn net.Conn, inbound bool) (*gossipStream, bool) {
	stream := &gossipStream{Conn: conn, set: s, inbound: inbound, gone: make(chan struct{})}
	if inbound {
		stream.from = source.Of(conn.RemoteAddr())
	}
	for {
		wait, dropped := s.insert(stream)
		if dropped != nil {
			_ = dropped.Conn.Close()
		}
		if wait == 0 {
			return stream, dropped != stream
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.freed:
		case <-s.ctx.Done():
		}
		timer.Stop()
	}
}

// insert is one attempt of adopt: it returns for how long there is no place unless one becomes free, and which stream the
// caller is to close: that itself when the set is closed.
func (s *gossipStreams) insert(stream *gossipStream) (wait time.Duration, dropped *gossipStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, stream
	}
	now := time.Now()
	if stream.inbound {
		if s.usage[0].streams >= maxUnprovedStreams {
			dropped = s.oldest(func(*gossipStream) int { return 1 })
			if wait = unprovedGrace - now.Sub(dropped.adopted); wait > 0 {
				return wait, nil
			}
			s.dropLocked(dropped)
		}
		s.usage[0].streams++
	}
	s.opened++
	stream.number, stream.adopted = s.opened, now
	s.open[stream] = struct{}{}
	return 0, dropped
}

// oldest returns the oldest of those inbound streams not known to be a member's that are worth more than nothing, of the
// source whose streams are worth most together: a peer that floods drops its own, not those of others. It searches all,
// which are few; s.mu is held.
func (s *gossipStreams) oldest(worth func(*gossipStream) int) (found *gossipStream) {
	worths := make(map[netip.Prefix]int)
	most := 0
	for stream := range s.open {
		if stream.inbound && !stream.proved {
			worths[stream.from] += worth(stream)
			most = max(most, worths[stream.from])
		}
	}
	for stream := range s.open {
		if !stream.inbound || stream.proved || worth(stream) == 0 || worths[stream.from] < most {
			continue
		}
		if found == nil || stream.number < found.number {
			found = stream
		}
	}
	return found
}

// dropLocked takes a stream out of the set. Called with s.mu held, after which the caller closes the stream.
func (s *gossipStreams) dropLocked(stream *gossipStream) {
	if _, ok := s.open[stream]; !ok {
		return
	}
	delete(s.open, stream)
	close(stream.gone)
	if stream.inbound {
		usage := &s.usage[stream.account()]
		usage.streams--
		usage.leaving += stream.buffered
		s.freedLocked()
	}
}

// freedLocked lets streams that wait for a place look again.
func (s *gossipStreams) freedLocked() {
	s.freed.Send()
}

// releaseLocked takes in that a stream's message is not kept any more. Called with s.mu held, for a stream that has been
// dropped.
func (s *gossipStreams) releaseLocked(stream *gossipStream) {
	if stream.buffered == 0 {
		return
	}
	usage := &s.usage[stream.account()]
	usage.bytes -= stream.buffered
	usage.leaving -= stream.buffered
	stream.buffered = 0
	s.madeRoomLocked()
}

func (s *gossipStreams) madeRoomLocked() {
	close(s.room)
	s.room = make(chan struct{})
}

// grow returns when there is room for so many more bytes of a message, or with an error when the stream has been dropped.
func (s *gossipStreams) grow(stream *gossipStream, bytes int) error {
	if !stream.inbound {
		return nil // this node has dialled it, and does so for one or two at a time
	}
	for {
		room, dropped, err := s.reserve(stream, bytes)
		for _, other := range dropped {
			_ = other.Conn.Close()
		}
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-stream.gone:
		}
	}
}

// reserve is one attempt of grow: room is nil when it has succeeded or failed, and else closed when there may be room. It
// returns what it has dropped to make some.
func (s *gossipStreams) reserve(stream *gossipStream, bytes int) (room <-chan struct{}, dropped []*gossipStream, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[stream]; !ok {
		return nil, nil, errMadeRoom
	}
	usage := &s.usage[stream.account()]
	if stream.proved && usage.bytes+bytes > maxProvedBytes {
		s.dropLocked(stream)
		return nil, nil, errMadeRoom
	}
	if stream.proved || usage.bytes+bytes <= maxUnprovedBytes {
		usage.bytes += bytes
		stream.buffered += bytes
		return nil, nil, nil
	}
	for usage.bytes-usage.leaving+bytes > maxUnprovedBytes {
		oldest := s.oldest(func(stream *gossipStream) int { return stream.buffered })
		s.dropLocked(oldest)
		dropped = append(dropped, oldest)
	}
	return s.room, dropped, nil
}

// prove is called when a stream turned out to be a member's.
func (s *gossipStreams) prove(stream *gossipStream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[stream]; !ok {
		return errMadeRoom
	}
	if !stream.inbound {
		return nil
	}
	unproved, proved := &s.usage[0], &s.usage[1]
	unproved.streams--
	unproved.bytes -= stream.buffered
	s.madeRoomLocked()
	s.freedLocked()
	stream.proved = true
	proved.streams++
	proved.bytes += stream.buffered
	if proved.streams > maxProvedStreams || proved.bytes > maxProvedBytes {
		s.dropLocked(stream)
		return errMadeRoom
	}
	return nil
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

// gossipStream is a stream in a set of them. One goroutine reads it: memberlist's, which closes it when a read fails.
type gossipStream struct {
	net.Conn
	set     *gossipStreams
	inbound bool
	number  uint64 // lower ones are older
	from    netip.Prefix
	to      string // that this node has dialled
	adopted time.Time
	gone    chan struct{} // closed when it is not in the set any more

	buffered int  // bytes of its message; like what follows, guarded by set.mu
	proved   bool // a member's, since it could be decrypted

	judged  bool // like what follows, only for the goroutine that reads
	message []byte
	fault   error
}

// account is which of the set's accounts an inbound stream is in.
func (s *gossipStream) account() int {
	if s.proved {
		return 1
	}
	return 0
}

// Read returns what memberlist may have: a whole message, and nothing of it before the gate has seen all.
func (s *gossipStream) Read(b []byte) (int, error) {
	if !s.judged {
		s.judged = true
		s.judge()
	}
	if len(s.message) == 0 {
		return 0, s.fault
	}
	n := copy(b, s.message)
	s.message = s.message[n:]
	return n, nil
}

func (s *gossipStream) judge() {
	in := &intake{source: s.Conn, limit: maxGossipMessage + intakeStep}
	in.grow = func(bytes int) error { return s.set.grow(s, bytes) }
	err := s.set.gate.judgeStream(in, !s.inbound, func() error { return s.set.prove(s) })
	if err == nil {
		s.message, s.fault = in.buf[:in.at], io.EOF
		return
	}
	s.fault = err
	if s.inbound {
		s.refuse(in.buf, err)
	} else {
		fault := faultOfAnswer(in.buf, err)
		s.set.gate.attempts.note(s.to, fault, withWhatWasSaid(in.buf, fault, err))
	}
	in.buf = nil
	s.drop()
}

// refuse tells of a stream that is not heard, and its peer why.
func (s *gossipStream) refuse(said []byte, err error) {
	if answer := refusals[faultOfInbound(said, err)]; answer != nil {
		_, _ = s.Conn.Write(answer) // the first bytes on a stream that has a deadline: there is room for them
	}
	s.set.gate.refuse("stream", s.RemoteAddr(), said, err)
}

// drop takes the stream out of its set. Its message must not be kept any more.
func (s *gossipStream) drop() {
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	s.set.dropLocked(s)
	s.set.releaseLocked(s)
}

// Write closes the stream when it fails. memberlist drops a stream to which it could not write the label without
// closing it. A peer that hangs up before it has heard all may have said why.
func (s *gossipStream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		if !s.inbound && !s.judged {
			s.judged = true
			s.judge()
		}
		_ = s.Close()
	}
	return n, err
}

// Close takes the stream out of its set and closes it. It can be called more than once.
func (s *gossipStream) Close() error {
	s.drop()
	return s.Conn.Close()
}
