package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustEncode(t testing.TB, msg interface{ encode() ([]byte, error) }) []byte {
	t.Helper()
	b, err := msg.encode()
	require.NoError(t, err)
	return b
}

func TestHelloRoundTrip(t *testing.T) {
	for _, want := range []hello{
		{},
		{minVersion: 1, maxVersion: 3, cluster: "c", from: "a", to: "b"},
		{minVersion: 255, maxVersion: 0, cluster: strings.Repeat("c", 255), from: strings.Repeat("f", 255), to: strings.Repeat("t", 255)},
	} {
		body, err := readHandshake(bytes.NewReader(mustEncode(t, want)))
		require.NoError(t, err)
		got, err := decodeHello(body)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestHelloReplyRoundTrip(t *testing.T) {
	want := helloReply{status: HandshakeName, version: 7, cluster: "c", name: "n"}
	body, err := readHandshake(bytes.NewReader(mustEncode(t, want)))
	require.NoError(t, err)
	got, err := decodeHelloReply(body)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestHandshakeSkipsFieldsOfLaterVersions(t *testing.T) {
	msg := mustEncode(t, hello{minVersion: 1, maxVersion: 9, cluster: "c", from: "f", to: "t"})
	extra := []byte("a field that version 9 has added")
	msg = append(msg, extra...)
	length := binary.BigEndian.Uint16(msg[len(handshakeMagic):])
	binary.BigEndian.PutUint16(msg[len(handshakeMagic):], length+uint16(len(extra)))

	rest := bytes.NewReader(append(msg, "frames"...))
	body, err := readHandshake(rest)
	require.NoError(t, err)
	got, err := decodeHello(body)
	require.NoError(t, err)
	assert.Equal(t, hello{minVersion: 1, maxVersion: 9, cluster: "c", from: "f", to: "t"}, got)
	behind, err := io.ReadAll(rest)
	require.NoError(t, err)
	assert.Equal(t, "frames", string(behind), "bytes behind the handshake belong to the frames")
}

func TestHandshakeNamesAreBounded(t *testing.T) {
	_, err := hello{cluster: strings.Repeat("c", 256)}.encode()
	assert.ErrorContains(t, err, "256 bytes")
}

func TestReadHandshakeRefuses(t *testing.T) {
	good := mustEncode(t, hello{cluster: "c", from: "f", to: "t"})
	for name, stream := range map[string][]byte{
		"another protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"nothing":          nil,
		"half a header":    good[:5],
		"half a body":      good[:len(good)-1],
		"oversized":        append([]byte(handshakeMagic), 0xFF, 0xFF),
		"one too long":     append([]byte(handshakeMagic), (maxHandshake+1)>>8, (maxHandshake+1)&0xFF),
	} {
		_, err := readHandshake(bytes.NewReader(stream))
		assert.Error(t, err, name)
	}
}

func TestDecodeHelloRefusesWhatIsCutOff(t *testing.T) {
	msg := mustEncode(t, hello{minVersion: 1, maxVersion: 1, cluster: "cluster", from: "from", to: "to"})
	body := msg[handshakeHeaderSize:]
	for n := range body {
		_, err := decodeHello(body[:n])
		assert.ErrorIs(t, err, errMalformedHandshake, "%d bytes", n)
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		minA, maxA, minB, maxB, version uint8
		ok                              bool
	}{
		{1, 1, 1, 1, 1, true},
		{1, 3, 2, 5, 3, true},
		{2, 5, 1, 3, 3, true},
		{1, 2, 2, 3, 2, true},
		{1, 2, 3, 4, 2, false},
		{3, 4, 1, 2, 2, false},
		{3, 2, 1, 9, 2, false}, // contradicts itself
	} {
		version, ok := negotiate(c.minA, c.maxA, c.minB, c.maxB)
		assert.Equal(t, c.ok, ok, "%+v", c)
		assert.Equal(t, c.version, version, "%+v", c)
	}
}

func TestJudge(t *testing.T) {
	good := hello{minVersion: 1, maxVersion: 2, cluster: "c", from: "f", to: "s"}
	judged := func(change func(*hello)) helloReply {
		h := good
		change(&h)
		return judge(h, "c", "s", 2, 3)
	}
	assert.Equal(t, helloReply{status: HandshakeOK, version: 2, cluster: "c", name: "s"}, judged(func(*hello) {}))
	assert.Equal(t, HandshakeCluster, judged(func(h *hello) { h.cluster, h.to = "x", "x" }).status)
	assert.Equal(t, HandshakeName, judged(func(h *hello) { h.to = "x" }).status)
	assert.Equal(t, HandshakeVersion, judged(func(h *hello) { h.maxVersion = 1 }).status)
	assert.EqualValues(t, 3, judged(func(h *hello) { h.maxVersion = 1 }).version, "a refused client learns the highest version")
}

// greetWith runs the client's side against a server that answers with reply.
func greetWith(t *testing.T, h hello, reply []byte) (uint8, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		if _, err := readHandshake(there); err == nil {
			there.Write(reply)
		}
	}()
	return greet(here, h)
}

func TestGreet(t *testing.T) {
	h := hello{minVersion: 2, maxVersion: 3, cluster: "c", from: "f", to: "s"}
	version, err := greetWith(t, h, mustEncode(t, helloReply{version: 3, cluster: "c", name: "s"}))
	require.NoError(t, err)
	assert.EqualValues(t, 3, version)

	for name, c := range map[string]struct {
		reply  helloReply
		status HandshakeStatus
	}{
		"refused: version":            {helloReply{status: HandshakeVersion, version: 9, cluster: "c", name: "s"}, HandshakeVersion},
		"refused: cluster":            {helloReply{status: HandshakeCluster, cluster: "x", name: "s"}, HandshakeCluster},
		"refused: name":               {helloReply{status: HandshakeName, cluster: "c", name: "x"}, HandshakeName},
		"refused: unknown reason":     {helloReply{status: 77, cluster: "c", name: "s"}, 77},
		"accepted by another cluster": {helloReply{version: 3, cluster: "x", name: "s"}, HandshakeCluster},
		"accepted by another node":    {helloReply{version: 3, cluster: "c", name: "x"}, HandshakeName},
		"accepted: version too low":   {helloReply{version: 1, cluster: "c", name: "s"}, HandshakeVersion},
		"accepted: version too high":  {helloReply{version: 4, cluster: "c", name: "s"}, HandshakeVersion},
	} {
		_, err := greetWith(t, h, mustEncode(t, c.reply))
		var refused *HandshakeError
		require.ErrorAs(t, err, &refused, name)
		assert.Equal(t, c.status, refused.Status, name)
		assert.Equal(t, c.reply.name, refused.Name, name)
		assert.Equal(t, c.reply.cluster, refused.Cluster, name)
	}

	for name, c := range map[string]struct {
		reply  []byte
		status HandshakeStatus
	}{
		"hangs up":   {nil, HandshakeUnfinished},
		"half of it": {[]byte(handshakeMagic + "\x00\x09\x00"), HandshakeUnfinished},
		"garbage":    {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), HandshakeProtocol},
		"too short":  {append([]byte(handshakeMagic), 0, 1, 0), HandshakeProtocol},
	} {
		_, err := greetWith(t, h, c.reply)
		var refused *HandshakeError
		require.ErrorAs(t, err, &refused, name)
		assert.Equal(t, c.status, refused.Status, name)
		assert.Error(t, errors.Unwrap(refused), name)
	}

	h.cluster = strings.Repeat("c", 256)
	_, err = greetWith(t, h, nil)
	assert.ErrorContains(t, err, "256 bytes")
}

// FuzzHandshake feeds arbitrary bytes to both decoders. What is accepted must
// survive encoding and decoding again.
func FuzzHandshake(f *testing.F) {
	f.Add(mustEncode(f, hello{minVersion: 1, maxVersion: 2, cluster: "cluster", from: "from", to: "to"}))
	f.Add(mustEncode(f, helloReply{status: HandshakeBusy, version: 1, cluster: "cluster", name: "name"}))
	f.Add([]byte("PLMT\x00\x02\x01\x01"))
	f.Add([]byte("PLMT\xFF\xFF"))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		body, err := readHandshake(bytes.NewReader(stream))
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(body), maxHandshake)
		if h, err := decodeHello(body); err == nil {
			again, err := decodeHello(mustEncode(t, h)[handshakeHeaderSize:])
			require.NoError(t, err)
			require.Equal(t, h, again)
		}
		if r, err := decodeHelloReply(body); err == nil {
			again, err := decodeHelloReply(mustEncode(t, r)[handshakeHeaderSize:])
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
	})
}
