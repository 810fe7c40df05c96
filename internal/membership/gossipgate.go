package membership

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/seldom"
)

// The gate stands between the network and memberlist: it looks at every packet and stream first, and memberlist gets only
// what a member of the cluster may have sent. By itself, memberlist buffers 20 MB for any peer before it looks for a key,
// writes a line to the log for every packet that it cannot use, and ends the process on some messages that a member with
// a fault can send: an empty one, or one whose padding is longer than it is. A message that expands without end, and one
// that announces a million members, take its memory.
//
// Every packet and stream begins with the label, which is the cluster's name, and what follows is encrypted where there is
// a Secret: then it is decrypted here, to see that it can be, and again by memberlist. What does not get so far is of an
// unauthenticated peer, and the label and the announced length are judged before anything else is read. What is behind it
// is judged by gossipmessage.go.

const (
	// maxGossipMessage is the longest message on a stream, encrypted or not, and what it may expand to. Of 1,000 members
	// with names of 137 bytes, the longest that Config allows, a push/pull is 1.4 MB: a member is listed with some 130 bytes
	// and its name, twice in the half minute after a rolling deploy, there are up to 4,096 tombstones, and 64 last words
	// of up to 1 kB. Even the 10,000 members that a cluster may have fit in, by names of 30 bytes.
	maxGossipMessage = 4 << 20

	// maxGossipNodes bounds the members that a push/pull may list: those that a cluster may have, and as many that gossip
	// has given up and still tells of. memberlist allocates 112 bytes for each before it reads the first.
	maxGossipNodes = 2 * ring.MaxMembers

	// maxProbesForOthers is how many probes a node makes for others in a second. Each costs memberlist a goroutine and a
	// timer for half a second, and a packet that asks for one can be recorded and sent again. A member asks three others
	// when one does not answer, once a second at most: a node gets a few even when half of the cluster has failed.
	maxProbesForOthers = 200
)

// The parts of memberlist's framing that the gate reads.
const (
	gossipHasLabel  = 244 // then the label's length, 1 byte, and the label
	gossipEncrypted = 10  // on a stream, then 4 bytes of length and a sealed message; a packet is sealed as it is

	sealVersionSize = 1 // 0: with padding, of memberlist's protocol 1; 1: without
	sealNonceSize   = 12
	sealOverhead    = sealVersionSize + sealNonceSize + 16
	sealBlock       = aes.BlockSize
)

// Of an unauthenticated peer.
var (
	errGossipLabel   = errors.New("peerlimit: gossip of another cluster, or none at all")
	errGossipClear   = errors.New("peerlimit: gossip that is not encrypted")
	errGossipCrypted = errors.New("peerlimit: gossip that is encrypted, and there is no Secret")
	errGossipLength  = errors.New("peerlimit: gossip announces a length that no member does")
	errGossipKey     = errors.New("peerlimit: gossip that no Secret of this cluster opens")
)

// errGossipProbes refuses what may be a member's, and may be a packet of one that somebody else sends again.
var errGossipProbes = fmt.Errorf("%w: it asks for more probes than members do", errGossipMessage)

// errMadeRoom ends a stream in favour of newer ones.
var errMadeRoom = fmt.Errorf("peerlimit: the stream has made room for others: %w", net.ErrClosed)

// gossipGate judges what comes in. It is safe for concurrent use.
type gossipGate struct {
	label []byte        // the header with which everything inbound begins
	name  []byte        // the label itself, which is authenticated with what is encrypted
	keys  []cipher.AEAD // nil: nothing is encrypted
	pings pingsOut      // that this node has sent

	attempts  attempts
	strangers atomic.Uint64         // packets and streams of unauthenticated peers that were refused
	malformed atomic.Uint64         // others that make no sense
	met       [Faults]atomic.Uint64 // peers that came or were dialled, by what is wrong with them
	refused   [Faults]*seldom.Log   // of unauthenticated peers, by what is wrong with them; NoFault: malformed

	mu     sync.Mutex // guards what follows
	second time.Time  // the beginning of the second in which
	probes int        // so many have been asked for
}

func newGossipGate(c *Config) (*gossipGate, error) {
	log := c.Logger.With("component", "gossip")
	g := &gossipGate{
		label: append([]byte{gossipHasLabel, byte(len(c.Cluster))}, c.Cluster...),
		name:  []byte(c.Cluster),
	}
	for i := range g.refused {
		g.refused[i] = seldom.New(log)
	}
	if c.Keyring == nil {
		return g, nil
	}
	for _, key := range c.Keyring.GetKeys() {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		g.keys = append(g.keys, aead)
	}
	return g, nil
}

// refuse counts what was refused and logs it, seldom; said is how it begins. A stream that only connects, as probes do, and one that made room
// for others or was open when the node closed is nobody's fault.
func (g *gossipGate) refuse(what string, from net.Addr, said []byte, err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	case errors.Is(err, errGossipMessage):
		g.malformed.Add(1)
		g.refused[NoFault].Warn("rejected malformed gossip", slog.String("as", what), slog.Any("addr", from), slog.Any("err", err))
	default:
		fault := faultOfInbound(said, err)
		err = withWhatWasSaid(said, fault, err)
		g.strangers.Add(1)
		g.met[fault].Add(1)
		g.refused[fault].Warn("rejected gossip of a peer that is not of this cluster", slog.String("reason", fault.String()),
			slog.String("as", what), slog.Any("addr", from), slog.Any("err", err))
	}
}

// admit reports whether memberlist may have a packet.
func (g *gossipGate) admit(p *memberlist.Packet) bool {
	err := g.judgePacket(p.Buf)
	if err != nil {
		g.refuse("packet", p.From, p.Buf, err)
	}
	return err == nil
}

// unwrap returns the message in a packet.
func (g *gossipGate) unwrap(packet []byte) (message []byte, err error) {
	message, ok := bytes.CutPrefix(packet, g.label)
	if !ok {
		return nil, errGossipLabel
	}
	if g.keys == nil {
		return message, nil
	}
	return g.open(message, g.name)
}

func (g *gossipGate) judgePacket(packet []byte) error {
	message, err := g.unwrap(packet)
	if err != nil {
		return err
	}
	probes, err := judgePacketMessage(message)
	if err != nil {
		return err
	}
	return g.allowProbes(probes)
}

// allowProbes refuses what asks for too many probes.
func (g *gossipGate) allowProbes(n int) error {
	if n == 0 {
		return nil
	}
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.second) >= time.Second {
		g.second, g.probes = now, 0
	}
	if g.probes+n > maxProbesForOthers {
		return errGossipProbes
	}
	g.probes += n
	return nil
}

// open decrypts. Where the other side pads, it checks what memberlist takes for granted of the padding.
func (g *gossipGate) open(sealed, authenticated []byte) ([]byte, error) {
	if len(sealed) < sealOverhead || sealed[0] > 1 {
		return nil, errGossipKey
	}
	nonce, sealedText := sealed[sealVersionSize:][:sealNonceSize], sealed[sealVersionSize+sealNonceSize:]
	for _, key := range g.keys {
		plain, err := key.Open(nil, nonce, sealedText, authenticated)
		if err != nil {
			continue
		}
		if sealed[0] == 1 {
			return plain, nil
		}
		// memberlist refuses less than a block of padding, and cuts off as many bytes as the last one says.
		if len(plain) < sealBlock || int(plain[len(plain)-1]) > len(plain) {
			return nil, fmt.Errorf("%w: its padding", errGossipMessage)
		}
		return plain[:len(plain)-int(plain[len(plain)-1])], nil
	}
	return nil, errGossipKey
}

// judgeStream reads the one message that a stream carries in each direction. proved is called as soon as it is known that
// it is a member's; without a Secret, never. The answer on a stream that was dialled has no label.
func (g *gossipGate) judgeStream(in *intake, answer bool, proved func() error) error {
	if !answer {
		if err := g.judgeLabel(in); err != nil {
			return err
		}
	}
	if g.keys == nil {
		first, err := in.peek()
		switch {
		case err != nil:
			return err
		case first == gossipEncrypted:
			return errGossipCrypted
		}
		return judgeStreamMessage(in)
	}
	header, err := in.take(5)
	if err != nil {
		return err
	}
	if header[0] != gossipEncrypted {
		return errGossipClear
	}
	authenticated := append(append([]byte(nil), header...), g.name...)
	length := binary.BigEndian.Uint32(header[1:])
	if length < sealOverhead || length > maxGossipMessage {
		return fmt.Errorf("%w: %d bytes", errGossipLength, length)
	}
	sealed, err := in.take(int(length))
	if err != nil {
		return err
	}
	plain, err := g.open(sealed, authenticated)
	if err != nil {
		return err
	}
	if err := proved(); err != nil {
		return err
	}
	return judgeStreamMessage(&intake{buf: plain, grow: in.grow})
}

// judgeLabel reads no further than to the first byte that is wrong.
func (g *gossipGate) judgeLabel(in *intake) error {
	for _, want := range g.label {
		got, err := in.take(1)
		if err != nil {
			return err
		}
		if got[0] != want {
			return errGossipLabel
		}
	}
	return nil
}
