package membership

import (
	"bytes"
	"compress/lzw"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/seldom"
	"github.com/peerlimit/peerlimit/internal/sim"
)

var gateSecret = []byte("a secret of at least thirty-two bytes")

// seal encrypts as memberlist does; version 0 is with padding, of which the last byte says how much there is.
func (g *gossipGate) seal(version byte, plain, authenticated []byte) []byte {
	sealed := make([]byte, sealVersionSize+sealNonceSize)
	sealed[0] = version
	_, _ = rand.Read(sealed[sealVersionSize:])
	return g.keys[0].Seal(sealed, sealed[sealVersionSize:], plain, authenticated)
}

// sealedPacket and sealedStream are what a member sends whose message is plain.
func (g *gossipGate) sealedPacket(version byte, plain []byte) []byte {
	return append(bytes.Clone(g.label), g.seal(version, plain, g.name)...)
}

func (g *gossipGate) sealedStream(version byte, plain []byte) []byte {
	header := binary.BigEndian.AppendUint32([]byte{gossipEncrypted}, uint32(sealOverhead+len(plain)))
	sealed := g.seal(version, plain, append(bytes.Clone(header), g.name...))
	return append(append(bytes.Clone(g.label), header...), sealed...)
}

// msgpack is a map of names and values, or of what raw makes of it.
func msgpack(fields ...any) []byte {
	b := []byte{0x80 | byte(len(fields)/2)}
	for _, field := range fields {
		switch field := field.(type) {
		case string:
			b = append(append(b, 0xd9, byte(len(field))), field...)
		case int:
			b = binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(field))
		case []byte:
			b = append(binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(len(field))), field...)
		case raw:
			b = append(b, field...)
		default:
			panic(field)
		}
	}
	return b
}

// raw is msgpack as it is.
type raw []byte

func compressed(plain []byte) []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	_, _ = w.Write(plain)
	_ = w.Close()
	return append([]byte{gossipCompressed}, msgpack("Algo", 0, "Buf", b.Bytes())...)
}

func compound(parts ...[]byte) []byte {
	b := []byte{gossipCompound, byte(len(parts))}
	for _, part := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

func checked(plain []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{gossipHasCRC}, crc32.ChecksumIEEE(plain)), plain...)
}

func pushPull(nodes, state int, rest ...[]byte) []byte {
	header := append([]byte{gossipPushPull}, msgpack("Nodes", nodes, "UserStateLen", state, "Join", raw{0xc3})...)
	return append(header, bytes.Join(rest, nil)...)
}

// typed is a message of one type that is one map.
func typed(kind byte, fields ...any) []byte { return append([]byte{kind}, msgpack(fields...)...) }

var (
	aPing  = typed(gossipPing, "SeqNo", 1, "Node", "n")
	anUser = []byte("\x08note")
	aNode  = msgpack("Name", "n", "Addr", []byte{10, 0, 0, 1}, "Vsn", raw{0x96, 1, 5, 2, 0, 0, 0}, "Meta", raw{0xc0})
	nested = raw(bytes.Repeat([]byte{0x91}, 1<<20))
	bomb   = compressed(make([]byte, maxGossipMessage+1))
)

func userMessage(announced int, text string) []byte {
	return append(typed(gossipUser, "UserMsgLen", announced), text...)
}

// packetMessages and streamMessages have messages and whether a member may send them.
var packetMessages = map[string]struct {
	message []byte
	fine    bool
}{
	"a ping":               {aPing, true},
	"a note":               {anUser, true},
	"checked":              {checked(aPing), true},
	"compressed":           {compressed(aPing), true},
	"several":              {compound(aPing, anUser), true},
	"all of it":            {checked(compressed(compound(aPing, anUser, typed(gossipAlive, "Vsn", raw{0x91, 1})))), true},
	"nothing":              {nil, false},
	"nothing, checked":     {checked(nil), false},
	"nothing, compressed":  {compressed(nil), false},
	"one that is nothing":  {compound(aPing, nil), false},
	"a wrong checksum":     {append([]byte{gossipHasCRC, 1, 2, 3, 4}, aPing...), false},
	"an unknown type":      {typed(99), false},
	"a push/pull":          {pushPull(0, 0), false},
	"compressed twice":     {compressed(compressed(aPing)), false},
	"a compressed part":    {compound(compressed(aPing)), false},
	"a compound part":      {compound(compound(aPing)), false},
	"a compound cut off":   {compound(aPing, anUser)[:20], false},
	"a bomb":               {compressed(append(bytes.Clone(anUser), make([]byte, maxPacketLen)...)), false},
	"a long string":        {[]byte("\x00\x81\xdb\xff\xff\xff\xffNode"), false},
	"a map of many":        {[]byte("\x00\xdf\xff\xff\xff\xff"), false},
	"an array of many":     {typed(gossipAlive, "Vsn", raw{0xdd, 0xff, 0xff, 0xff, 0xff}), false},
	"nested":               {typed(gossipPing, "x", raw(bytes.Repeat([]byte{0x91}, 2))), false},
	"a map inside":         {typed(gossipPing, "x", raw{0x81, 1, 1}), false},
	"an array for a map":   {[]byte{gossipPing, 0x92, 1, 0xa0}, false},
	"a kind that is none":  {typed(gossipPing, "x", raw{0xc1}), false},
	"an extension":         {typed(gossipPing, "x", raw{0xc9, 0xff, 0xff, 0xff, 0xff, 1}), false},
	"cut off":              {aPing[:5], false},
	"compressed, no bytes": {typed(gossipCompressed, "Algo", 0, "Buf", raw{0xff}), false},
	"compressed, two bufs": {typed(gossipCompressed, "Buf", []byte{1}, "Buf", []byte{2}), false},
	"compressed garbage":   {typed(gossipCompressed, "Buf", []byte{0xff, 0xff, 0xff, 0xff}), false},
}

var streamMessages = map[string]struct {
	message []byte
	fine    bool
}{
	"a ping":                  {aPing, true},
	"an answer":               {typed(gossipAck, "SeqNo", 1), true},
	"an error":                {typed(gossipError, "Error", "none"), true},
	"a note":                  {userMessage(4, "note"), true},
	"a push/pull":             {pushPull(2, 4, aNode, aNode, []byte("note")), true},
	"compressed":              {compressed(pushPull(2, 4, aNode, aNode, []byte("note"))), true},
	"nothing":                 {nil, false},
	"nothing, compressed":     {compressed(nil), false},
	"an unknown type":         {typed(99), false},
	"encrypted twice":         {[]byte{gossipEncrypted, 0, 0, 0, 1, 1}, false},
	"compressed twice":        {compressed(compressed(aPing)), false},
	"a bomb":                  {bomb, false},
	"a million members":       {pushPull(1<<20, 0), false},
	"more than may be":        {pushPull(maxGossipNodes+1, 0), false},
	"less than none":          {pushPull(-1, 0), false},
	"more than there are":     {pushPull(2, 0, aNode), false},
	"members of no bytes":     {pushPull(3, 0, []byte{0x80}, []byte{0x80}, []byte{0x80}), false},
	"a huge state":            {pushPull(0, 20<<20), false},
	"more state than there":   {pushPull(0, 5, []byte("note")), false},
	"less state than none":    {pushPull(0, -1), false},
	"two numbers of members":  {append(typed(gossipPushPull, "Nodes", 0, "Nodes", 1<<20), aNode...), false},
	"a number that is none":   {typed(gossipPushPull, "Nodes", "many"), false},
	"a huge note":             {userMessage(20<<20, "note"), false},
	"a note that is cut off":  {userMessage(5, "note"), false},
	"nested":                  {typed(gossipPing, "x", nested), false},
	"nested in a push/pull":   {pushPull(1, 0, msgpack("x", nested)), false},
	"a long string":           {[]byte("\x00\x81\xdb\xff\xff\xff\xffNode"), false},
	"a name that is a number": {[]byte("\x00\x81\x01\x01"), false},
}

func TestGateJudgesPackets(t *testing.T) {
	sealed, clear := testGate(t, gateSecret), testGate(t, nil)
	check := func(t *testing.T, fine bool, errs ...error) {
		for _, err := range errs {
			if fine {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, errGossipMessage)
			}
		}
	}
	for name, c := range packetMessages {
		t.Run(name, func(t *testing.T) {
			padded := append(bytes.Clone(c.message), bytes.Repeat([]byte{16}, 16)...)
			check(t, c.fine,
				sealed.judgePacket(sealed.sealedPacket(1, c.message)),
				sealed.judgePacket(sealed.sealedPacket(0, padded)),
				clear.judgePacket(append(bytes.Clone(clear.label), c.message...)))
		})
	}
	for name, plain := range map[string][]byte{"no padding": nil, "a short one": {1}, "one that is too long": bytes.Repeat([]byte{17}, 16)} {
		t.Run(name, func(t *testing.T) { check(t, false, sealed.judgePacket(sealed.sealedPacket(0, plain))) })
	}
	whole := sealed.sealedPacket(1, aPing)
	for n := range whole {
		assert.Error(t, sealed.judgePacket(whole[:n]))
		assert.NotErrorIs(t, sealed.judgePacket(whole[:n]), errGossipMessage, "it is not known to be a member's")
	}
	assert.ErrorIs(t, sealed.judgePacket(append(bytes.Clone(sealed.label), aPing...)), errGossipKey)
	assert.ErrorIs(t, sealed.judgePacket(aPing), errGossipLabel)
	other := testGate(t, append(bytes.Clone(gateSecret), '!'))
	assert.ErrorIs(t, sealed.judgePacket(other.sealedPacket(1, aPing)), errGossipKey)
}

// judgeBytes gives a gate what a peer sends, in one piece or byte by byte, and returns how much it has read and whether it
// took the peer for a member.
func judgeBytes(g *gossipGate, sent []byte, answer, bytewise bool) (read int, proved bool, err error) {
	var source io.Reader = bytes.NewReader(sent)
	if bytewise {
		source = &oneByte{source}
	}
	in := &intake{source: source, limit: maxGossipMessage + intakeStep}
	err = g.judgeStream(in, answer, func() error { proved = true; return nil })
	return in.at, proved, err
}

// oneByte returns a byte at a time.
type oneByte struct{ io.Reader }

func (o *oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:min(len(b), 1)]) }

func TestGateJudgesStreams(t *testing.T) {
	sealed, clear := testGate(t, gateSecret), testGate(t, nil)
	for name, c := range streamMessages {
		t.Run(name, func(t *testing.T) {
			for _, g := range []*gossipGate{sealed, clear} {
				sent := append(bytes.Clone(clear.label), c.message...)
				if g == sealed {
					sent = sealed.sealedStream(1, c.message)
				}
				for _, answer := range []bool{false, true} {
					if answer {
						sent = bytes.TrimPrefix(sent, g.label)
					}
					read, proved, err := judgeBytes(g, sent, answer, len(c.message) < 1000)
					switch {
					case c.fine:
						assert.NoError(t, err)
						assert.Equal(t, len(sent), read)
					case g == sealed:
						assert.ErrorIs(t, err, errGossipMessage)
					default:
						assert.Error(t, err)
					}
					assert.Equal(t, g == sealed, proved)
				}
			}
		})
	}
	for name, c := range map[string]struct {
		gate *gossipGate
		sent []byte
		err  error
	}{
		"nothing":                {sealed, nil, io.EOF},
		"half a label":           {sealed, sealed.label[:5], io.ErrUnexpectedEOF},
		"no label":               {sealed, sealed.sealedStream(1, aPing)[len(sealed.label):], errGossipLabel},
		"another label":          {sealed, []byte("\xf4\x05other"), errGossipLabel},
		"in the clear":           {sealed, append(bytes.Clone(sealed.label), userMessage(4, "note")...), errGossipClear},
		"encrypted, no secret":   {clear, sealed.sealedStream(1, aPing), errGossipCrypted},
		"20 MB":                  {sealed, append(bytes.Clone(sealed.label), 10, 1, 0x40, 0, 0), errGossipLength},
		"less than there is":     {sealed, append(bytes.Clone(sealed.label), 10, 0, 0, 0, 5, 1, 2, 3, 4, 5), errGossipLength},
		"more than comes":        {sealed, append(bytes.Clone(sealed.label), 10, 0, 1, 0, 0, 1), io.ErrUnexpectedEOF},
		"another secret":         {testGate(t, append(bytes.Clone(gateSecret), '!')), sealed.sealedStream(1, aPing), errGossipKey},
		"padding longer than it": {sealed, sealed.sealedStream(0, bytes.Repeat([]byte{17}, 16)), errGossipMessage},
	} {
		t.Run(name, func(t *testing.T) {
			_, proved, err := judgeBytes(c.gate, c.sent, false, false)
			assert.ErrorIs(t, err, c.err)
			assert.False(t, proved)
		})
	}
}

// What 1,000 members tell each other at most fits in, and so does what 10,000 do whose names are of the usual length.
func TestGateAdmitsTheLargestPushPull(t *testing.T) {
	for _, c := range []struct{ members, name int }{{1000, 137}, {ring.MaxMembers, 30}} {
		name := bytes.Repeat([]byte{'n'}, c.name)
		node := msgpack("Name", name, "Addr", make([]byte, 16), "Port", 65535, "Meta", make([]byte, 25),
			"Incarnation", 1<<31, "State", 0, "Vsn", raw{0x96, 1, 5, 2, 0, 0, 0})
		nodes := bytes.Repeat(node, 2*c.members)
		departures := make([]departure, maxTombstones)
		for i := range departures {
			departures[i] = departure{string(name), time.Hour}
		}
		words := make([]LastWord, maxLastWords)
		for i := range words {
			words[i] = LastWord{string(name), make([]byte, maxLastWord)}
		}
		note := appendLastWords(encodeDepartures(departures), words)
		message := pushPull(2*c.members, len(note), nodes, note)
		t.Logf("%d members with names of %d bytes: %d bytes", c.members, c.name, len(message))
		g := testGate(t, gateSecret)
		_, _, err := judgeBytes(g, g.sealedStream(1, message), false, false)
		assert.NoError(t, err)
	}
}

// A member with a fault sends a live one what would end its process, or take its memory. It goes on.
func TestAMemberCannotEndAnotherByGossip(t *testing.T) {
	for name, secret := range map[string][]byte{"with a secret": gateSecret, "in the clear": nil} {
		t.Run(name, func(t *testing.T) {
			logs := new(lockedBuffer)
			var all []*Membership
			for range 2 {
				c := testSocketConfig(t, "127.0.0.1:0")
				c.RPC, c.Keyring, c.Logger = netip.MustParseAddrPort("127.0.0.1:1"), gateConfig(t, secret).Keyring, slog.New(slog.NewTextHandler(logs, nil))
				for _, m := range all {
					c.Seeds = append(c.Seeds, testSeeds(m.Self().Gossip.String())...)
				}
				links := new(atomic.Pointer[Membership])
				m, err := startMembership(c, func(v *View) { shakeHands(links.Load(), v) })
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, m.Close()) })
				links.Store(m)
				m.Renotify()
				all = append(all, m)
			}
			agreed := func() bool {
				return !slices.ContainsFunc(all, func(m *Membership) bool {
					v := m.View()
					return len(v.Owners()) != 2 || v.Divisor != 2 || v.Reachable != 2
				})
			}
			require.Eventually(t, agreed, time.Minute, time.Millisecond)
			gate, addr := all[0].gate, all[0].Self().Gossip.String()
			packets, err := net.Dial("udp", addr)
			require.NoError(t, err)
			defer packets.Close()
			bad := 0
			frame := func(stream bool, version byte, message []byte) []byte {
				switch {
				case secret == nil:
					return append(bytes.Clone(gate.label), message...)
				case stream:
					return gate.sealedStream(version, message)
				}
				return gate.sealedPacket(version, message)
			}
			send := func(stream bool, sent []byte) {
				if !stream {
					_, _ = packets.Write(sent)
					return
				}
				conn, err := net.Dial("tcp", addr)
				require.NoError(t, err)
				defer conn.Close()
				_, _ = conn.Write(sent)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn) // until it hangs up
			}
			for _, c := range streamMessages {
				if !c.fine {
					send(true, frame(true, 1, c.message))
					bad++
				}
			}
			for _, c := range packetMessages {
				if message := frame(false, 1, c.message); !c.fine && len(message) < 1400 {
					send(false, message)
				}
			}
			for _, plain := range [][]byte{nil, {1}, bytes.Repeat([]byte{17}, 16)} {
				send(true, frame(true, 0, plain))
				send(false, frame(false, 0, plain))
			}
			assert.Eventually(t, func() bool {
				malformed, unauthenticated := all[0].Refused()
				return malformed+unauthenticated >= uint64(bad)
			}, 20*time.Second, 10*time.Millisecond, "%d were sent", bad)
			assert.True(t, agreed())
			late := testSocketConfig(t, "127.0.0.1:0", addr)
			late.RPC, late.Keyring = netip.MustParseAddrPort("127.0.0.1:1"), gateConfig(t, secret).Keyring
			m, err := startMembership(late, func(*View) {})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, m.Close()) })
			<-m.TriedSeeds()
			assert.Len(t, m.View().List(), 3, "a node that joins is told of all: they go on")
			assert.Less(t, bytes.Count([]byte(logs.String()), []byte("\n")), 20)
		})
	}
}

// A packet that asks for a probe of another member, sent again and again by a peer that has recorded it, starts so many and no
// more; nothing else in its place is refused.
func TestGateBoundsProbesForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := testGate(t, gateSecret)
		ask := typed(gossipIndirectPing, "SeqNo", 1, "Target", []byte{10, 0, 0, 1}, "Nack", raw{0xc3})
		one, three := g.sealedPacket(1, ask), g.sealedPacket(1, compressed(compound(ask, aPing, ask, ask)))
		for range 3 {
			admitted := 0
			for range 1000 {
				if g.judgePacket(one) == nil {
					admitted++
				}
				if g.judgePacket(three) == nil {
					admitted += 3
				}
				require.NoError(t, g.judgePacket(g.sealedPacket(1, aPing)))
			}
			assert.Equal(t, maxProbesForOthers, admitted)
			time.Sleep(time.Second)
		}
	})
}

func FuzzGossipMessages(f *testing.F) {
	for _, c := range packetMessages {
		if len(c.message) < 1<<12 {
			f.Add(c.message)
		}
	}
	for _, c := range streamMessages {
		if len(c.message) < 1<<12 {
			f.Add(c.message)
		}
	}
	gate := testGate(f, nil)
	f.Fuzz(func(t *testing.T, message []byte) {
		_, _ = judgePacketMessage(message)
		sent := append(bytes.Clone(gate.label), message...)
		read, _, err := judgeBytes(gate, sent, false, false)
		require.LessOrEqual(t, read, len(sent))
		again, _, errAgain := judgeBytes(gate, sent, false, true)
		require.Equal(t, err == nil, errAgain == nil, "%v, and byte by byte %v", err, errAgain)
		if err == nil {
			require.Equal(t, read, again)
		}
	})
}

// inboundPair is a stream to g, and what memberlist has of it.
func inboundPair(t *testing.T, dialler *sim.Host, g *networkGossip) (peer, ours net.Conn) {
	peer, err := dialler.Dial(t.Context(), g.bound().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = peer.Close() })
	return peer, <-g.StreamCh()
}

// withGossip runs a test with a gossip transport on 10.0.0.1 of a node with a Secret or without.
func withGossip(t *testing.T, secret []byte, test func(t *testing.T, network *sim.Network, g *networkGossip)) {
	synctest.Test(t, func(t *testing.T) {
		network := sim.New(1)
		defer network.Close()
		g, err := listenNetwork(network.Host("10.0.0.1"), netip.MustParseAddrPort("10.0.0.1:7946"), testGate(t, secret))
		require.NoError(t, err)
		defer g.Shutdown()
		test(t, network, g)
	})
}

func isOpen(t *testing.T, conn net.Conn) bool {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A stream that is one too many takes the place of the oldest of the source that has most.
func TestOldStreamsMakeRoomForNewOnes(t *testing.T) {
	withGossip(t, gateSecret, func(t *testing.T, network *sim.Network, g *networkGossip) {
		honest, _ := inboundPair(t, network.Host("10.0.0.2"), g)
		flood := network.Host("10.0.0.3")
		var conns []net.Conn
		began := time.Now()
		for range maxUnprovedStreams + 10 {
			conn, _ := inboundPair(t, flood, g)
			conns = append(conns, conn)
		}
		assert.GreaterOrEqual(t, time.Since(began), unprovedGrace, "each has had its time")
		assert.Len(t, g.streams.open, maxUnprovedStreams)
		for i, conn := range conns {
			assert.Equal(t, i >= 11, isOpen(t, conn), i)
		}
		assert.True(t, isOpen(t, honest), "the oldest of all, but of another source")
		assert.Zero(t, g.gate().strangers.Load(), "a connection that makes room has done nothing wrong")
	})
}

// The same with bytes: the oldest stream that holds some of the budget gives them up.
func TestOldMessagesMakeRoomForNewOnes(t *testing.T) {
	withGossip(t, gateSecret, func(t *testing.T, network *sim.Network, g *networkGossip) {
		begin := binary.BigEndian.AppendUint32(append(bytes.Clone(g.gate().label), gossipEncrypted), maxGossipMessage)
		flood := network.Host("10.0.0.3")
		var conns []net.Conn
		for range 20 {
			conn, ours := inboundPair(t, flood, g)
			go func() { _, _ = ours.Read(make([]byte, 1)) }()
			_, _ = conn.Write(begin)
			_, _ = conn.Write(make([]byte, maxGossipMessage-1000))
			time.Sleep(time.Second)
			conns = append(conns, conn)
			assert.LessOrEqual(t, g.streams.usage[0].bytes, maxUnprovedBytes)
		}
		open := 0
		for i, conn := range conns {
			if isOpen(t, conn) {
				open++
				assert.Greater(t, i, 10, "the old ones go first")
			}
		}
		assert.InDelta(t, maxUnprovedBytes/maxGossipMessage, open, 1)
		for _, conn := range conns {
			_ = conn.Close()
		}
		require.NoError(t, g.Shutdown())
		assert.Equal(t, [2]gossipUsage{}, g.streams.usage)
	})
}

// What is a member's is out of reach of a flood, and has bounds of its own. Without a Secret nothing is known to be one's.
func TestStreamsOfMembersHaveTheirOwnBounds(t *testing.T) {
	withGossip(t, gateSecret, func(t *testing.T, network *sim.Network, g *networkGossip) {
		member, flood := network.Host("10.0.0.2"), network.Host("10.0.0.3")
		message := g.gate().sealedStream(1, userMessage(1<<20, string(make([]byte, 1<<20))))
		var ours []net.Conn
		for range 10 {
			peer, stream := inboundPair(t, member, g)
			go func() { _, _ = peer.Write(message) }()
			got, err := io.ReadAll(stream)
			require.NoError(t, err)
			require.Equal(t, message, got)
			ours = append(ours, stream)
		}
		for range 2 * maxUnprovedStreams {
			inboundPair(t, flood, g)
		}
		assert.Equal(t, 10, g.streams.usage[1].streams)
		assert.Greater(t, g.streams.usage[1].bytes, 10<<20)
		assert.LessOrEqual(t, g.streams.usage[1].bytes, 21<<20)
		refused := 0
		for range 20 {
			peer, stream := inboundPair(t, member, g)
			go func() { _, _ = peer.Write(message) }()
			if _, err := io.ReadAll(stream); err != nil {
				require.ErrorIs(t, err, errMadeRoom)
				refused++
			}
			ours = append(ours, stream)
		}
		assert.Positive(t, refused)
		assert.LessOrEqual(t, g.streams.usage[1].bytes, maxProvedBytes)
		for _, stream := range ours {
			_ = stream.Close()
		}
		assert.Zero(t, g.streams.usage[1])
	})
	withGossip(t, nil, func(t *testing.T, network *sim.Network, g *networkGossip) {
		peer, stream := inboundPair(t, network.Host("10.0.0.2"), g)
		go func() { _, _ = peer.Write(userStream("note")) }()
		got, err := io.ReadAll(stream)
		require.NoError(t, err)
		assert.Equal(t, userStream("note"), got)
		assert.Equal(t, gossipUsage{streams: 1, bytes: intakeStep}, g.streams.usage[0])
	})
}

// What the gate refuses is counted in full and logged seldom, and a warning of one kind does not hide one of another.
func TestGossipRefusalsAreLoggedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		s := gateConfig(t, gateSecret)
		s.Logger = slog.New(slog.NewTextHandler(&logs, nil))
		g, err := newGossipGate(s)
		require.NoError(t, err)
		from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
		for range 1000 {
			assert.False(t, g.admit(&memberlist.Packet{Buf: []byte("garbage"), From: from}))
			assert.False(t, g.admit(&memberlist.Packet{Buf: g.sealedPacket(1, nil), From: from}))
		}
		assert.EqualValues(t, 1000, g.strangers.Load())
		assert.EqualValues(t, 1000, g.malformed.Load())
		assert.Equal(t, 2, bytes.Count(logs.Bytes(), []byte("\n")), logs.String())
		assert.Contains(t, logs.String(), `component=gossip as=packet addr=10.0.0.1:7 err=`)
		assert.Contains(t, logs.String(), `msg="rejected malformed gossip"`)
		logs.Reset()
		time.Sleep(seldom.Interval)
		assert.False(t, g.admit(&memberlist.Packet{Buf: []byte("garbage"), From: from}))
		assert.Contains(t, logs.String(), "suppressed=999")

		logs.Reset()
		logger := gossipLogger(s.Logger)
		for i := range 1000 {
			logger.Printf("[WARN] memberlist: Refuting a suspect message (from: %d)", i)
			logger.Printf("[ERR] memberlist: Conflicting address for n-%x. Mine: x", i)
			logger.Printf("[WARN] memberlist: %s is not what anybody says", fmt.Sprint("w", string(rune('a'+i%26)), string(rune('a'+i/26))))
		}
		assert.Equal(t, 2+maxGossipKinds-1, bytes.Count(logs.Bytes(), []byte("\n")))
		assert.Contains(t, logs.String(), "Refuting a suspect message (from: 0)")
		assert.Contains(t, logs.String(), "Conflicting address for n-0")
	})
}
