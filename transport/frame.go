package transport

import (
	"encoding/binary"
	"errors"
	"io"
)

// MaxFrame is the largest length a frame may announce, in bytes. One frame fits
// into memory many times over, so a hostile peer cannot ask for much, and a
// large partition travels in a few dozen of them.
const MaxFrame = 1 << 20

// MaxPayload is the largest request or answer, in bytes.
const MaxPayload = MaxFrame - frameOverhead

const (
	lengthSize    = 4
	frameOverhead = 5 // kind and call id, which the announced length includes
	headerSize    = lengthSize + frameOverhead
)

// frameKind says what a frame is. The numbers are part of the protocol.
type frameKind uint8

const (
	kindRequest  frameKind = 1 // client to server, wants a response with the same id
	kindResponse frameKind = 2 // server to client
	kindOneWay   frameKind = 3 // client to server, wants no response; id 0
	kindPing     frameKind = 4 // client to server; id 0
	kindPong     frameKind = 5 // server to client; id 0
	kindBusy     frameKind = 6 // server to client: not executed, too much in flight
	kindTooLarge frameKind = 7 // server to client: executed, but the response does not fit
)

// frame is one decoded frame. The payload aliases the buffer it was read into.
type frame struct {
	kind    frameKind
	id      uint32
	payload []byte
}

var errMalformedFrame = errors.New(errPrefix + "malformed frame")

// appendFrame appends an encoded frame to dst. The payload must not be larger
// than MaxPayload.
func appendFrame(dst []byte, kind frameKind, id uint32, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(frameOverhead+len(payload)))
	dst = append(dst, byte(kind))
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, payload...)
}

const (
	// A read buffer starts small, because a node of a large cluster holds two
	// thousand of them and most are idle, and grows while reads fill it.
	readBufferStart = 1 << 10
	// 64 KiB takes some 800 small frames at once; more saves no system calls worth
	// having. Only a single frame that is larger makes the buffer larger.
	readBufferBusy = 64 << 10
	// maxIdleReads ends a connection whose Read returns nothing and no error.
	maxIdleReads = 100
)

// frameReader cuts a byte stream into frames. It is used by one goroutine.
type frameReader struct {
	src        io.Reader
	buf        []byte
	start, end int // the bytes not yet returned are buf[start:end]
}

func newFrameReader(src io.Reader) *frameReader {
	return &frameReader{src: src, buf: make([]byte, readBufferStart)}
}

// fill reads once from the source, whatever is there. It invalidates the
// payloads that next has returned.
func (r *frameReader) fill() error {
	r.makeRoom()
	for range maxIdleReads {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			return nil // an error comes back with the next Read
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// makeRoom leaves at least one free byte at the end of the buffer. A buffer that
// the last read filled is doubled: up to readBufferBusy because more may be
// waiting, beyond that only as far as a single frame has really arrived, so that
// an announced length alone costs no memory.
func (r *frameReader) makeRoom() {
	unread := r.end - r.start
	filled := r.end == len(r.buf)
	switch {
	case filled && (len(r.buf) < readBufferBusy || unread == len(r.buf)):
		r.resize(2 * len(r.buf))
	case unread == 0 && len(r.buf) > readBufferBusy:
		r.resize(readBufferBusy)
	case filled || unread == 0:
		r.resize(len(r.buf))
	}
}

// resize moves the unread bytes to the front of a buffer of the given size.
func (r *frameReader) resize(size int) {
	old := r.buf[r.start:r.end]
	if size != len(r.buf) {
		r.buf = make([]byte, size)
	}
	r.start, r.end = 0, copy(r.buf, old)
}

// next returns the next frame that is completely in the buffer, and false when
// there is none. Its payload is valid until the next fill.
func (r *frameReader) next() (frame, bool, error) {
	unread := r.buf[r.start:r.end]
	if len(unread) < lengthSize {
		return frame{}, false, nil
	}
	length := binary.BigEndian.Uint32(unread)
	if length < frameOverhead || length > MaxFrame {
		return frame{}, false, errMalformedFrame
	}
	total := lengthSize + int(length)
	if len(unread) < total {
		return frame{}, false, nil
	}
	r.start += total
	return frame{
		kind:    frameKind(unread[lengthSize]),
		id:      binary.BigEndian.Uint32(unread[lengthSize+1:]),
		payload: unread[headerSize:total:total],
	}, true, nil
}
