package transport

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// readFrames returns all frames of a stream, with payloads of their own, and the
// error that ended it: io.EOF after complete frames and after a half one.
func readFrames(src io.Reader) ([]frame, error) {
	reader := newFrameReader(src)
	var frames []frame
	for {
		f, ok, err := reader.next()
		if err != nil {
			return frames, err
		}
		if ok {
			f.payload = slices.Clone(f.payload)
			frames = append(frames, f)
			continue
		}
		if err := reader.fill(); err != nil {
			return frames, err
		}
	}
}

// chunked returns the stream in pieces of the given sizes, over and over.
type chunked struct {
	stream []byte
	sizes  []int
	reads  int
}

func (c *chunked) Read(b []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, io.EOF
	}
	size := c.sizes[c.reads%len(c.sizes)]
	c.reads++
	n := copy(b, c.stream[:min(size, len(c.stream))])
	c.stream = c.stream[n:]
	return n, nil
}

func TestFrameReaderRefusesLengths(t *testing.T) {
	for _, length := range []uint32{0, 1, frameOverhead - 1, MaxFrame + 1, 0x7FFFFFFF, 0xFFFFFFFF} {
		stream := binary.BigEndian.AppendUint32(nil, length)
		frames, err := readFrames(bytes.NewReader(append(stream, make([]byte, 100)...)))
		assert.ErrorIs(t, err, errMalformedFrame, "length %d", length)
		assert.Empty(t, frames)
	}
}

func TestFrameReaderTakesSmallestAndLargest(t *testing.T) {
	large := bytes.Repeat([]byte{7}, MaxPayload)
	var stream []byte
	for i := range uint32(3) { // the buffer must grow, shrink and grow again
		stream = appendFrame(stream, kindPing, i, nil)
		stream = appendFrame(stream, kindRequest, i, large)
	}
	frames, err := readFrames(iotest.HalfReader(bytes.NewReader(stream)))
	require.ErrorIs(t, err, io.EOF)
	require.Len(t, frames, 6)
	for i, f := range frames {
		assert.EqualValues(t, i/2, f.id)
		if i%2 == 0 {
			assert.Equal(t, kindPing, f.kind)
			assert.Empty(t, f.payload)
		} else {
			assert.True(t, bytes.Equal(large, f.payload))
		}
	}
}

// An announced length must not make the reader allocate what never arrives.
func TestFrameReaderBuffersOnlyWhatArrives(t *testing.T) {
	announced := binary.BigEndian.AppendUint32(nil, MaxFrame)
	reader := newFrameReader(bytes.NewReader(append(announced, make([]byte, 10_000)...)))
	for {
		_, ok, err := reader.next()
		require.NoError(t, err)
		require.False(t, ok)
		if err := reader.fill(); err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
	}
	assert.LessOrEqual(t, len(reader.buf), 32<<10)
}

// A large frame must not leave a large buffer behind.
func TestFrameReaderGivesLargeBufferBack(t *testing.T) {
	stream := appendFrame(nil, kindRequest, 1, make([]byte, MaxPayload))
	stream = appendFrame(stream, kindPing, 2, nil)
	reader := newFrameReader(&chunked{stream: stream, sizes: []int{4096}})
	var got int
	for reader.fill() == nil {
		for {
			_, ok, err := reader.next()
			require.NoError(t, err)
			if !ok {
				break
			}
			got++
		}
	}
	assert.Equal(t, 2, got)
	assert.Equal(t, readBufferBusy, len(reader.buf))
}

func TestFrameReaderEndsReadsThatReturnNothing(t *testing.T) {
	_, err := readFrames(readerFunc(func([]byte) (int, error) { return 0, nil }))
	assert.ErrorIs(t, err, io.ErrNoProgress)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestChunkingDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []frame
		var stream []byte
		for range rapid.IntRange(0, 30).Draw(t, "frames") {
			size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, 50_000)).Draw(t, "size")
			f := frame{
				kind:    frameKind(rapid.Byte().Draw(t, "kind")),
				id:      rapid.Uint32().Draw(t, "id"),
				payload: bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, size),
			}
			want = append(want, f)
			stream = appendFrame(stream, f.kind, f.id, f.payload)
		}
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 16), rapid.IntRange(1, 20_000)), 1, 10).Draw(t, "chunks")
		got, err := readFrames(&chunked{stream: stream, sizes: sizes})
		require.ErrorIs(t, err, io.EOF)
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, want[i].kind, got[i].kind)
			require.Equal(t, want[i].id, got[i].id)
			require.True(t, bytes.Equal(want[i].payload, got[i].payload))
		}
	})
}

// FuzzFrame feeds arbitrary bytes, whole and in chunks: the same frames and the
// same end must come out, and encoding them again must give the bytes back.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add(appendFrame(nil, kindRequest, 1, []byte("payload")), uint64(2))
	f.Add(appendFrame(appendFrame(nil, kindPing, 0, nil), kindOneWay, 0, make([]byte, 5000)), uint64(3))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3}, uint64(4))
	f.Add([]byte{0, 0, 0, 4, 1, 2, 3, 4, 5}, uint64(5))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole, wholeErr := readFrames(bytes.NewReader(stream))
		random := rand.New(rand.NewPCG(seed, 0))
		sizes := make([]int, 16)
		for i := range sizes {
			sizes[i] = 1 + random.IntN(1+random.IntN(5000))
		}
		pieces, piecesErr := readFrames(&chunked{stream: stream, sizes: sizes})
		require.Equal(t, wholeErr, piecesErr)
		require.Equal(t, whole, pieces)
		var again []byte
		for _, f := range whole {
			require.LessOrEqual(t, len(f.payload), MaxPayload)
			again = appendFrame(again, f.kind, f.id, f.payload)
		}
		require.True(t, bytes.HasPrefix(stream, again))
	})
}
