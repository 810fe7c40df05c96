package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Version is the protocol version this package speaks when a configuration
// names none.
const Version = 1

const (
	handshakeMagic      = "PLMT"
	handshakeHeaderSize = len(handshakeMagic) + 2
	maxNameLen          = 255  // names travel behind one length byte
	tlsHandshake        = 0x16 // how a connection with TLS begins: the kind of a record,
	tlsMajor            = 3    // and the version
	// maxHandshake bounds what an unknown peer can make the other end read.
	// Version 1 needs 770 bytes at most; the rest is for fields of later versions.
	maxHandshake = 4096
)

var (
	errMalformedHandshake = errors.New(errPrefix + "malformed handshake")
	errLongHandshake      = errors.New(errPrefix + "more bytes before the handshake than one needs")
)

// hello is what the client says first.
type hello struct {
	minVersion, maxVersion uint8
	cluster, from, to      string
}

// helloReply is what the server answers. When the status is HandshakeVersion the
// version is the server's highest, else the one that both speak from now on.
type helloReply struct {
	status        HandshakeStatus
	version       uint8
	cluster, name string
}

func (h hello) encode() ([]byte, error) {
	return encodeHandshake(h.minVersion, h.maxVersion, h.cluster, h.from, h.to)
}

func (r helloReply) encode() ([]byte, error) {
	return encodeHandshake(uint8(r.status), r.version, r.cluster, r.name)
}

// encodeHandshake returns a whole handshake message: both kinds are two bytes
// and then names.
func encodeHandshake(first, second uint8, names ...string) ([]byte, error) {
	size := 2
	for _, name := range names {
		if len(name) > maxNameLen {
			return nil, fmt.Errorf("%sname of %d bytes, at most %d are possible", errPrefix, len(name), maxNameLen)
		}
		size += 1 + len(name)
	}
	msg := append(make([]byte, 0, handshakeHeaderSize+size), handshakeMagic...)
	msg = binary.BigEndian.AppendUint16(msg, uint16(size))
	msg = append(msg, first, second)
	for _, name := range names {
		msg = append(msg, byte(len(name)))
		msg = append(msg, name...)
	}
	return msg, nil
}

// decodeHello decodes what follows the header of a client's message. Bytes after
// the last known field are skipped.
func decodeHello(body []byte) (hello, error) {
	var h hello
	err := decodeHandshake(body, &h.minVersion, &h.maxVersion, &h.cluster, &h.from, &h.to)
	return h, err
}

// decodeHelloReply is decodeHello for the server's message.
func decodeHelloReply(body []byte) (helloReply, error) {
	var r helloReply
	err := decodeHandshake(body, (*uint8)(&r.status), &r.version, &r.cluster, &r.name)
	return r, err
}

func decodeHandshake(body []byte, first, second *uint8, names ...*string) error {
	if len(body) < 2 {
		return errMalformedHandshake
	}
	*first, *second = body[0], body[1]
	body = body[2:]
	for _, name := range names {
		if len(body) < 1 || len(body) < 1+int(body[0]) {
			return errMalformedHandshake
		}
		end := 1 + int(body[0])
		*name = string(body[1:end])
		body = body[end:]
	}
	return nil
}

// readHandshake reads exactly one handshake message, never a byte that belongs
// to the frames behind it, and returns what follows its header.
func readHandshake(src io.Reader) ([]byte, error) {
	var header [handshakeHeaderSize]byte
	if _, err := io.ReadFull(src, header[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint16(header[len(handshakeMagic):])
	if header[0] == tlsHandshake && header[1] == tlsMajor {
		return nil, ErrTLS
	}
	if string(header[:len(handshakeMagic)]) != handshakeMagic || length > maxHandshake {
		return nil, errMalformedHandshake
	}
	body := make([]byte, length)
	_, err := io.ReadFull(src, body)
	return body, err
}

// negotiate returns the version two ranges have in common: the lower of both
// highest. It reports false when that is below either lowest.
func negotiate(minA, maxA, minB, maxB uint8) (uint8, bool) {
	version := min(maxA, maxB)
	return version, version >= minA && version >= minB
}

// greet is the client's side of the handshake: it returns the version to speak.
// The caller has set a deadline on conn. Every error is a *HandshakeError.
func greet(conn net.Conn, h hello) (uint8, error) {
	msg, err := h.encode()
	if err != nil {
		return 0, &HandshakeError{Status: HandshakeProtocol, Err: err}
	}
	if _, err := conn.Write(msg); err != nil {
		return 0, &HandshakeError{Status: HandshakeUnfinished, Err: err}
	}
	body, err := readHandshake(conn)
	if err != nil {
		status := HandshakeUnfinished
		if errors.Is(err, errMalformedHandshake) || errors.Is(err, ErrTLS) {
			status = HandshakeProtocol
		}
		return 0, &HandshakeError{Status: status, Err: err}
	}
	reply, err := decodeHelloReply(body)
	if err != nil {
		return 0, &HandshakeError{Status: HandshakeProtocol, Err: err}
	}
	// The server's word that all is well is checked: it may be of a version that
	// judges differently.
	refused := &HandshakeError{Status: reply.status, Cluster: reply.cluster, Name: reply.name, Version: reply.version}
	switch {
	case reply.status != HandshakeOK:
	case reply.cluster != h.cluster:
		refused.Status = HandshakeCluster
	case reply.name != h.to:
		refused.Status = HandshakeName
	case reply.version < h.minVersion || reply.version > h.maxVersion:
		refused.Status = HandshakeVersion
	default:
		return reply.version, nil
	}
	return 0, refused
}

// judge is the server's side: what to answer to a client that said h.
func judge(h hello, cluster, self string, minVersion, maxVersion uint8) helloReply {
	reply := helloReply{cluster: cluster, name: self}
	version, ok := negotiate(h.minVersion, h.maxVersion, minVersion, maxVersion)
	switch {
	case h.cluster != cluster:
		reply.status = HandshakeCluster
	case h.to != self:
		reply.status = HandshakeName
	case !ok:
		reply.status, reply.version = HandshakeVersion, maxVersion
	default:
		reply.version = version
	}
	return reply
}
