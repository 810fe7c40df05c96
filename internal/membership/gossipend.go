package membership

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// memberlist's Shutdown tells its goroutines to end and does not wait for them, nor does it say when they have. All but two
// kinds end as soon as they run: what they wait for is closed. A probe that is under way sleeps through its interval, up to
// eight times that while the node takes itself to be unwell; and a probe for another member sleeps through its timeout. Both
// wait for an acknowledgement of a ping. So the gate reads in the packets that go out which pings this node has sent,
// and Close acknowledges them all, in a packet that memberlist takes for one from the network. Then each of its goroutines ends
// at once, and nobody has to look for them. What is left of them for a moment reaches nothing: the sockets are closed, and
// the logger is silent.

// endPatience bounds how long Close waits for what may be in a log handler of the user's that does not return, or that has
// called Close itself.
const endPatience = time.Second

// pingsOut remembers the pings that somebody may be waiting for. It is safe for concurrent use.
type pingsOut struct {
	keep time.Duration // the longest that anybody waits; set before the first ping

	mu     sync.Mutex // guards what follows
	closed bool       // nothing is sent any more
	pings  []pingOut  // in the order of their sending
}

type pingOut struct {
	number uint32
	sent   time.Time
}

// longestProbe returns for how long memberlist waits for an acknowledgement at most.
func longestProbe(c *memberlist.Config) time.Duration {
	return max(time.Duration(c.AwarenessMaxMultiplier)*c.ProbeInterval, c.ProbeInterval, c.ProbeTimeout)
}

// add takes in that pings are going to be sent, and reports whether they may.
func (p *pingsOut) add(numbers []uint32, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if len(numbers) == 0 {
		return true
	}
	old := 0
	for old < len(p.pings) && now.Sub(p.pings[old].sent) > p.keep {
		old++
	}
	p.pings = p.pings[old:]
	for _, number := range numbers {
		p.pings = append(p.pings, pingOut{number, now})
	}
	return true
}

// close has add refuse everything from now on, and returns the numbers of the pings that somebody may be waiting for.
func (p *pingsOut) close() (numbers []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, ping := range p.pings {
		numbers = append(numbers, ping.number)
	}
	return numbers
}

// noteSent reads a packet that is going out, and reports whether it may.
func (g *gossipGate) noteSent(packet []byte) bool {
	var numbers []uint32
	message, err := g.unwrap(packet)
	if err == nil {
		_ = eachPart(message, func(part []byte) error {
			if len(part) > 0 && part[0] == gossipPing {
				if number, err := readNumbers(&intake{buf: part[1:]}, "SeqNo"); err == nil {
					numbers = append(numbers, uint32(number[0]))
				}
			}
			return nil
		})
	}
	return g.pings.add(numbers, time.Now())
}

// wrap makes a packet of a message, as a member would.
func (g *gossipGate) wrap(message []byte) ([]byte, error) {
	packet := append([]byte(nil), g.label...)
	if g.keys == nil {
		return append(packet, message...), nil
	}
	nonce := make([]byte, sealNonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	packet = append(append(packet, 1), nonce...)
	return g.keys[0].Seal(packet, nonce, message, g.name), nil
}

// maxAcks is how many messages a compound holds.
const maxAcks = 255

// acknowledgements returns messages that acknowledge pings; there is one at least.
func acknowledgements(numbers []uint32) (messages [][]byte) {
	for first := true; first || len(numbers) > 0; first = false {
		n := min(len(numbers), maxAcks)
		lengths, acks := []byte{gossipCompound, byte(n)}, []byte(nil)
		for _, number := range numbers[:n] {
			begin := len(acks)
			acks = append(acks, gossipAck, 0x81, 0xa5) // a map of one field, whose name has five bytes
			acks = append(acks, "SeqNo"...)
			acks = binary.BigEndian.AppendUint32(append(acks, 0xce), number)
			lengths = binary.BigEndian.AppendUint16(lengths, uint16(len(acks)-begin))
		}
		messages = append(messages, append(lengths, acks...))
		numbers = numbers[n:]
	}
	return messages
}

// endGossip ends a memberlist that was created on t. It is called once.
func endGossip(t gossipTransport, list *memberlist.Memberlist) error {
	return errors.Join(t.Shutdown(), endProbes(t), list.Shutdown())
}

// endProbes ends what waits for an acknowledgement. The sockets are closed, so nothing but what is sent here arrives any
// more, and memberlist still reads packets.
func endProbes(t gossipTransport) error {
	// memberlist reads one packet after the other: when it takes this one, which is empty, it is done with those before, and has
	// sent all the pings that they asked for.
	if err := injectAll(t, acknowledgements(nil)); err != nil {
		return err
	}
	return injectAll(t, acknowledgements(t.gate().pings.close()))
}

func injectAll(t gossipTransport, messages [][]byte) error {
	patience := time.NewTimer(endPatience)
	defer patience.Stop()
	for _, message := range messages {
		packet, err := t.gate().wrap(message)
		if err != nil {
			return err
		}
		select {
		case t.injected() <- &memberlist.Packet{Buf: packet, From: t.localAddr(), Timestamp: time.Now()}:
		case <-patience.C: // a log handler does not return
			return nil
		}
	}
	return nil
}

// silencer is a handler of log records until it is closed.
type silencer struct {
	slog.Handler
	*silence
}

// silence is what the handlers that come from one silencer share.
type silence struct {
	mu     sync.Mutex // guards what follows
	closed bool
	inside int
	left   chan struct{} // closed when it is closed and nobody is inside
}

func newSilencer(h slog.Handler) silencer { return silencer{h, &silence{left: make(chan struct{})}} }

// Handle passes a record on, or drops it.
func (s silencer) Handle(ctx context.Context, r slog.Record) error {
	if !s.enter() {
		return nil
	}
	defer s.leave()
	return s.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that is closed with this one.
func (s silencer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return silencer{s.Handler.WithAttrs(attrs), s.silence}
}

// WithGroup returns a handler that is closed with this one.
func (s silencer) WithGroup(name string) slog.Handler {
	return silencer{s.Handler.WithGroup(name), s.silence}
}

func (s *silence) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.inside++
	return true
}

func (s *silence) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside--; s.closed && s.inside == 0 {
		close(s.left)
	}
}

// close drops all records from now on, and waits for those that are being handled, for endPatience at most. It is called once.
func (s *silence) close() {
	s.mu.Lock()
	s.closed = true
	if s.inside == 0 {
		close(s.left)
	}
	s.mu.Unlock()
	patience := time.NewTimer(endPatience)
	defer patience.Stop()
	select {
	case <-s.left:
	case <-patience.C:
	}
}
