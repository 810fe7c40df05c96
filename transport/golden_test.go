package transport

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/frames/v1 anew; only when the protocol version changes")

// golden compares got with the bytes that protocol version 1 has fixed, and
// returns those.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "frames", "v1", name+".hex")
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(hexLines(got)), 0o644))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	require.NoError(t, err)
	assert.Equal(t, want, got, "the bytes of %s have changed", name)
	return want
}

// hexLines formats bytes sixteen to a line.
func hexLines(b []byte) string {
	var text strings.Builder
	for i, c := range b {
		text.WriteString(hex.EncodeToString([]byte{c}))
		if i%16 == 15 || i == len(b)-1 {
			text.WriteByte('\n')
		} else {
			text.WriteByte(' ')
		}
	}
	return text.String()
}

func TestGoldenFrames(t *testing.T) {
	for name, want := range map[string]frame{
		"request":       {kindRequest, 0x01020304, []byte("take one token")},
		"request-empty": {kindRequest, 1, []byte{}},
		"response":      {kindResponse, 0x01020304, []byte("allowed")},
		"oneway":        {kindOneWay, 0, []byte("refund")},
		"ping":          {kindPing, 0, []byte{}},
		"pong":          {kindPong, 0, []byte{}},
		"busy":          {kindBusy, 0xFFFFFFFF, []byte{}},
		"toolarge":      {kindTooLarge, 42, []byte{}},
	} {
		stored := golden(t, name, appendFrame(nil, want.kind, want.id, want.payload))
		frames, _ := readFrames(bytes.NewReader(stored))
		require.Len(t, frames, 1, name)
		assert.Equal(t, want.kind, frames[0].kind, name)
		assert.Equal(t, want.id, frames[0].id, name)
		assert.Equal(t, string(want.payload), string(frames[0].payload), name)
	}
}

func TestGoldenHandshake(t *testing.T) {
	for name, want := range map[string]hello{
		"hello":        {minVersion: 1, maxVersion: 2, cluster: "peerlimit", from: "host-a-1a2b3c4d", to: "host-b-5e6f7a8b"},
		"hello-noname": {minVersion: 1, maxVersion: 1},
	} {
		stored := golden(t, name, mustEncode(t, want))
		got, err := decodeHello(stored[handshakeHeaderSize:])
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
	}
	for name, want := range map[string]helloReply{
		"reply-ok":      {status: HandshakeOK, version: 1, cluster: "peerlimit", name: "host-b-5e6f7a8b"},
		"reply-version": {status: HandshakeVersion, version: 9, cluster: "peerlimit", name: "host-b-5e6f7a8b"},
		"reply-cluster": {status: HandshakeCluster, cluster: "staging", name: "host-b-5e6f7a8b"},
		"reply-name":    {status: HandshakeName, cluster: "peerlimit", name: "host-c-9c0d1e2f"},
		"reply-busy":    {status: HandshakeBusy, cluster: "peerlimit", name: "host-b-5e6f7a8b"},
	} {
		stored := golden(t, name, mustEncode(t, want))
		got, err := decodeHelloReply(stored[handshakeHeaderSize:])
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
	}
}
