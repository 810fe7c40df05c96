package membership

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// What memberlist's messages may look like. They are msgpack, one map each, behind a byte with their type, and the walk
// through them allocates nothing: each length must be of bytes that are there, maps and arrays are as deep as memberlist
// sends them and no deeper, and a message is compressed or a compound of others at most once. So what memberlist allocates
// when it decodes what has passed is in proportion to the message's length, and it neither recurses nor expands far.

// errGossipMessage is what all errors about a message match that comes from a member, or in the clear.
var errGossipMessage = errors.New("peerlimit: malformed gossip")

// memberlist's types of messages.
const (
	gossipPing         = 0
	gossipIndirectPing = 1
	gossipAck          = 2
	gossipSuspect      = 3
	gossipAlive        = 4
	gossipDead         = 5
	gossipPushPull     = 6
	gossipCompound     = 7
	gossipUser         = 8
	gossipCompressed   = 9
	gossipNack         = 11
	gossipHasCRC       = 12
	gossipError        = 13
)

// maxGossipDepth is how deep maps and arrays are nested: a list of versions in a map.
const maxGossipDepth = 2

// minGossipNode is less than what any member takes in a list: the names of its fields alone have 35 bytes.
const minGossipNode = 40

// judgePacketMessage checks the message in a packet, and returns how many probes of others it asks for.
func judgePacketMessage(b []byte) (probes int, err error) {
	err = eachPart(b, func(part []byte) error {
		if err := judgePart(part); err != nil {
			return err
		}
		if part[0] == gossipIndirectPing {
			probes++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return probes, nil
}

// eachPart calls do with each message in a packet's message that holds no other, until do returns an error, which it returns.
func eachPart(b []byte, do func(part []byte) error) (err error) {
	if len(b) >= 5 && b[0] == gossipHasCRC {
		if crc32.ChecksumIEEE(b[5:]) != binary.BigEndian.Uint32(b[1:]) {
			return fmt.Errorf("%w: its checksum", errGossipMessage)
		}
		b = b[5:]
	}
	if len(b) > 0 && b[0] == gossipCompressed {
		if b, err = expand(&intake{buf: b[1:]}, maxPacketLen); err != nil {
			return err
		}
	}
	if len(b) > 0 && b[0] == gossipCompound {
		return eachOfCompound(b[1:], do)
	}
	return do(b)
}

// eachOfCompound is eachPart for a message that is several: how many, 1 byte; the length of each, 2 bytes; and those.
func eachOfCompound(b []byte, do func(part []byte) error) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return fmt.Errorf("%w: a compound that is cut off", errGossipMessage)
	}
	lengths, parts := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		length := int(binary.BigEndian.Uint16(lengths))
		if length > len(parts) {
			return fmt.Errorf("%w: a compound that is cut off", errGossipMessage)
		}
		if err := do(parts[:length]); err != nil {
			return err
		}
		parts = parts[length:]
	}
	return nil
}

// judgePart checks a message that holds no other.
func judgePart(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: empty", errGossipMessage)
	}
	switch b[0] {
	case gossipUser:
		return nil // a note, which is checked where it is read
	case gossipPing, gossipIndirectPing, gossipAck, gossipSuspect, gossipAlive, gossipDead, gossipNack:
		return skipMap(&intake{buf: b[1:]})
	}
	return fmt.Errorf("%w: type %d in a packet", errGossipMessage, b[0])
}

// judgeStreamMessage checks the message on a stream, and reads no further than to its end.
func judgeStreamMessage(in *intake) error {
	first, err := in.peek()
	if err == nil && first == gossipCompressed {
		in.skip()
		expanded, err := expand(in, maxGossipMessage)
		if err != nil {
			return err
		}
		in = &intake{buf: expanded, grow: in.grow}
	}
	kind, err := in.take(1)
	if err != nil {
		return err
	}
	switch kind[0] {
	case gossipPing, gossipAck, gossipError:
		return skipMap(in)
	case gossipUser:
		header, err := readNumbers(in, "UserMsgLen")
		if err != nil {
			return err
		}
		return in.pass(header[0], maxGossipMessage)
	case gossipPushPull:
		return judgePushPull(in)
	}
	return fmt.Errorf("%w: type %d on a stream", errGossipMessage, kind[0])
}

// judgePushPull checks a list of members and the note behind it.
func judgePushPull(in *intake) error {
	header, err := readNumbers(in, "Nodes", "UserStateLen")
	if err != nil {
		return err
	}
	if header[0] < 0 || header[0] > maxGossipNodes {
		return fmt.Errorf("%w: it lists %d members", errGossipMessage, header[0])
	}
	for range header[0] {
		begin := in.at
		if err := skipMap(in); err != nil {
			return err
		}
		if in.at-begin < minGossipNode {
			return fmt.Errorf("%w: it lists a member in %d bytes", errGossipMessage, in.at-begin)
		}
	}
	return in.pass(header[1], maxGossipMessage)
}

// expand reads a compressed message and returns what is in it, which must not be longer than limit.
func expand(in *intake, limit int) ([]byte, error) {
	var compressed []byte
	found := false
	err := eachField(in, func(name []byte) error {
		if string(name) != "Buf" {
			return skipValue(in, 1)
		}
		if found {
			return fmt.Errorf("%w: compressed twice", errGossipMessage)
		}
		found = true
		var err error
		compressed, err = readBytes(in)
		return err
	})
	if err != nil {
		return nil, err
	}
	// 8 is memberlist's number of bits in a literal.
	reader := lzw.NewReader(bytes.NewReader(compressed), lzw.LSB, 8)
	defer reader.Close()
	expanded := &intake{source: reader, grow: in.grow, limit: limit}
	for err == nil {
		err = expanded.more()
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		// memberlist takes what there is for all there is, too.
		return expanded.buf, nil
	case errors.Is(err, errMadeRoom):
		return nil, err
	}
	return nil, fmt.Errorf("%w: compressed: %w", errGossipMessage, err)
}

// readNumbers reads a map and returns the numbers that have the given names, 0 where there is none.
func readNumbers(in *intake, names ...string) ([]int64, error) {
	numbers := make([]int64, len(names))
	seen := make([]bool, len(names))
	err := eachField(in, func(name []byte) error {
		for i := range names {
			if names[i] != string(name) {
				continue
			}
			if seen[i] {
				return fmt.Errorf("%w: %s twice", errGossipMessage, name)
			}
			seen[i] = true
			var err error
			numbers[i], err = readNumber(in)
			return err
		}
		return skipValue(in, 1)
	})
	return numbers, err
}

// skipMap reads a map with names for keys.
func skipMap(in *intake) error {
	return eachField(in, func([]byte) error { return skipValue(in, 1) })
}

// eachField reads a map and calls value where a value is to be read.
func eachField(in *intake, value func(name []byte) error) error {
	kind, err := in.take(1)
	if err != nil {
		return err
	}
	count, ok, err := containerLen(in, kind[0], 0x80, 0xde)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %#x where a map must be", errGossipMessage, kind[0])
	}
	for range count {
		name, err := readBytes(in)
		if err != nil {
			return err
		}
		if err := value(name); err != nil {
			return err
		}
	}
	return nil
}

// containerLen returns how many elements a map or an array has that begins with kind: fix is the kind of the shortest
// ones, and long16 of those that have the length in 2 bytes, behind which is the one with 4.
func containerLen(in *intake, kind, fix, long16 byte) (count int, ok bool, err error) {
	switch {
	case kind&0xf0 == fix:
		return int(kind & 0x0f), true, nil
	case kind == long16, kind == long16+1:
		n, err := bigEndian(in, 2<<(kind-long16))
		if n > maxGossipMessage { // each needs a byte at least
			return 0, true, fmt.Errorf("%w: %d elements", errGossipMessage, n)
		}
		return int(n), true, err
	}
	return 0, false, nil
}

// readBytes reads a string, or bytes, which are the same to memberlist. The result is valid until more is read.
func readBytes(in *intake) ([]byte, error) {
	kind, err := in.take(1)
	if err != nil {
		return nil, err
	}
	length, ok, err := bytesLen(in, kind[0])
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: %#x where bytes must be", errGossipMessage, kind[0])
	}
	if length > maxGossipMessage {
		return nil, fmt.Errorf("%w: %d bytes", errGossipMessage, length)
	}
	return in.take(int(length))
}

// bytesLen returns how many bytes follow kind, if it is that of a string or of bytes.
func bytesLen(in *intake, kind byte) (length uint64, ok bool, err error) {
	switch {
	case kind&0xe0 == 0xa0:
		return uint64(kind & 0x1f), true, nil
	case kind >= 0xd9 && kind <= 0xdb:
		length, err = bigEndian(in, 1<<(kind-0xd9))
		return length, true, err
	case kind >= 0xc4 && kind <= 0xc6:
		length, err = bigEndian(in, 1<<(kind-0xc4))
		return length, true, err
	}
	return 0, false, nil
}

// readNumber reads an integer.
func readNumber(in *intake) (int64, error) {
	kind, err := in.take(1)
	if err != nil {
		return 0, err
	}
	switch k := kind[0]; {
	case k <= 0x7f:
		return int64(k), nil
	case k >= 0xe0:
		return int64(int8(k)), nil
	case k >= 0xcc && k <= 0xcf:
		n, err := bigEndian(in, 1<<(k-0xcc))
		return int64(n), err
	case k >= 0xd0 && k <= 0xd3:
		size := 1 << (k - 0xd0)
		n, err := bigEndian(in, size)
		return int64(n<<(64-8*size)) >> (64 - 8*size), err
	}
	return 0, fmt.Errorf("%w: %#x where a number must be", errGossipMessage, kind[0])
}

// skipValue reads a value of any kind that memberlist sends, inside of depth maps and arrays.
func skipValue(in *intake, depth int) error {
	first, err := in.peek()
	if err != nil {
		return err
	}
	switch {
	case first == 0xc0, first == 0xc2, first == 0xc3: // nil, false, true
		in.skip()
		return nil
	case first <= 0x7f, first >= 0xe0, first >= 0xcc && first <= 0xd3:
		_, err := readNumber(in)
		return err
	case first&0xe0 == 0xa0, first >= 0xd9 && first <= 0xdb, first >= 0xc4 && first <= 0xc6:
		_, err := readBytes(in)
		return err
	case first&0xf0 == 0x90, first == 0xdc, first == 0xdd:
		return skipArray(in, depth)
	}
	return fmt.Errorf("%w: %#x where a value must be", errGossipMessage, first)
}

func skipArray(in *intake, depth int) error {
	if depth >= maxGossipDepth {
		return fmt.Errorf("%w: nested too deep", errGossipMessage)
	}
	kind, err := in.take(1)
	if err != nil {
		return err
	}
	count, _, err := containerLen(in, kind[0], 0x90, 0xdc)
	if err != nil {
		return err
	}
	for range count {
		if err := skipValue(in, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// bigEndian reads a number of size bytes.
func bigEndian(in *intake, size int) (n uint64, err error) {
	b, err := in.take(size)
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n, err
}

// intake is bytes that are read one after the other, and kept: from buf, and, where there is a source, from there when
// buf is at its end.
type intake struct {
	source io.Reader             // nil: there is nothing but buf
	grow   func(bytes int) error // is asked before so many more bytes are allocated; nil: they may
	limit  int                   // of buf
	buf    []byte
	at     int // what is before it has been read
}

// intakeStep is the least that a buffer grows by. Else it doubles, so that a peer that announces much and sends little
// has little.
const intakeStep = 1 << 10

// take returns the next n bytes, which stay as they are. The error is io.EOF only when a source ends before its first
// byte.
func (in *intake) take(n int) ([]byte, error) {
	for len(in.buf)-in.at < n {
		err := in.more()
		switch {
		case err == nil:
		case len(in.buf) > 0 && errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
	in.at += n
	return in.buf[in.at-n : in.at], nil
}

// peek returns the next byte without reading it.
func (in *intake) peek() (byte, error) {
	b, err := in.take(1)
	if err != nil {
		return 0, err
	}
	in.at--
	return b[0], nil
}

// skip reads the byte that peek has returned.
func (in *intake) skip() { in.at++ }

// pass reads n bytes of which there are at most limit.
func (in *intake) pass(n int64, limit int) error {
	if n < 0 || n > int64(limit) {
		return fmt.Errorf("%w: it announces %d bytes", errGossipMessage, n)
	}
	_, err := in.take(int(n))
	return err
}

// more reads at least a byte from the source.
func (in *intake) more() error {
	if in.source == nil {
		return fmt.Errorf("%w: it is cut off", errGossipMessage)
	}
	if len(in.buf) == cap(in.buf) {
		if len(in.buf) >= in.limit {
			return fmt.Errorf("%w: it is longer than %d bytes", errGossipMessage, in.limit)
		}
		step := min(max(intakeStep, len(in.buf)), in.limit-len(in.buf))
		if in.grow != nil {
			if err := in.grow(step); err != nil {
				return err
			}
		}
		in.buf = append(make([]byte, 0, len(in.buf)+step), in.buf...)
	}
	n, err := in.source.Read(in.buf[len(in.buf):cap(in.buf)])
	in.buf = in.buf[:len(in.buf)+n]
	switch {
	case n > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}
