package membership

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var metadataExamples = []struct {
	name string
	meta metadata
	wire []byte
}{
	{"host of the gossip address", metadata{protocolMin: 1, protocolMax: 2, rpcPort: 7947},
		[]byte{1, 1, 2, 0, 0, 0x1f, 0x0b}},
	{"leaving, IPv4", metadata{protocolMin: 1, protocolMax: 1, leaving: true, rpcHost: netip.MustParseAddr("10.1.2.3"), rpcPort: 80},
		[]byte{1, 1, 1, 1, 4, 10, 1, 2, 3, 0, 80}},
	{"IPv6", metadata{protocolMin: 3, protocolMax: 9, rpcHost: netip.MustParseAddr("fd00::1"), rpcPort: 65535},
		[]byte{1, 3, 9, 0, 16, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255}},
}

func TestMetadataBytes(t *testing.T) {
	for _, test := range metadataExamples {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.wire, appendMetadata(nil, test.meta))
			decoded, err := decodeMetadata(test.wire)
			require.NoError(t, err)
			assert.Equal(t, test.meta, decoded)

			decoded, err = decodeMetadata(append(bytes.Clone(test.wire), "a later version"...))
			require.NoError(t, err)
			assert.Equal(t, test.meta, decoded, "what is added later is skipped")

			for n := range test.wire {
				_, err := decodeMetadata(test.wire[:n])
				assert.ErrorIs(t, err, errBadMetadata, "%d of %d bytes", n, len(test.wire))
			}
		})
	}
}

func TestMetadataRefused(t *testing.T) {
	for name, wire := range map[string][]byte{
		"another version":       {2, 1, 1, 0, 0, 1, 1},
		"protocol 0":            {1, 0, 1, 0, 0, 1, 1},
		"no protocol in common": {1, 2, 1, 0, 0, 1, 1},
		"port 0":                {1, 1, 1, 0, 0, 0, 0},
		"host of 5 bytes":       {1, 1, 1, 0, 5, 1, 2, 3, 4, 5, 1, 1},
		"unspecified host":      {1, 1, 1, 0, 4, 0, 0, 0, 0, 1, 1},
		"multicast host":        {1, 1, 1, 0, 4, 224, 0, 0, 1, 1, 1},
		"host longer than rest": {1, 1, 1, 0, 255, 1, 1},
	} {
		_, err := decodeMetadata(wire)
		assert.ErrorIs(t, err, errBadMetadata, name)
	}
}

func FuzzMetadata(f *testing.F) {
	for _, e := range metadataExamples {
		f.Add(e.wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		meta, err := decodeMetadata(wire)
		if err != nil {
			require.ErrorIs(t, err, errBadMetadata)
			return
		}
		again := appendMetadata(nil, meta)
		require.LessOrEqual(t, len(again), memberlist.MetaMaxSize)
		decoded, err := decodeMetadata(again)
		require.NoError(t, err)
		require.Equal(t, meta, decoded)
	})
}
