package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// metadata is what a member tells all others through gossip. It is at most 25 bytes of the 512 that memberlist allows:
//
//	version      1 byte, metadataVersion
//	ProtocolMin  1 byte, lowest and
//	ProtocolMax  1 byte, highest protocol version of takes
//	flags        1 byte
//	host length  1 byte: 0 for the host of the gossip address, 4, or 16
//	host
//	port         2 bytes, big endian, of takes
//
// Fields are only ever added at the end, and what a reader does not know there it skips.
type metadata struct {
	protocolMin, protocolMax uint8
	leaving                  bool
	rpcHost                  netip.Addr // invalid: the host of the gossip address
	rpcPort                  uint16
}

const (
	metadataVersion = 1
	metadataMinLen  = 7 // without a host

	metadataLeaving = 1 << 0
)

var errBadMetadata = errors.New("peerlimit: malformed member metadata")

func appendMetadata(b []byte, m metadata) []byte {
	var flags byte
	if m.leaving {
		flags |= metadataLeaving
	}
	host := m.rpcHost.AsSlice() // empty when invalid
	b = append(b, metadataVersion, m.protocolMin, m.protocolMax, flags, byte(len(host)))
	b = append(b, host...)
	return binary.BigEndian.AppendUint16(b, m.rpcPort)
}

// decodeMetadata decodes what another process sent, which may be anything. An error matches errBadMetadata.
func decodeMetadata(b []byte) (metadata, error) {
	if len(b) < metadataMinLen {
		return metadata{}, fmt.Errorf("%w: %d bytes", errBadMetadata, len(b))
	}
	if b[0] != metadataVersion {
		return metadata{}, fmt.Errorf("%w: version %d", errBadMetadata, b[0])
	}
	m := metadata{protocolMin: b[1], protocolMax: b[2], leaving: b[3]&metadataLeaving != 0}
	if m.protocolMin == 0 || m.protocolMin > m.protocolMax {
		return metadata{}, fmt.Errorf("%w: protocol versions %d to %d", errBadMetadata, m.protocolMin, m.protocolMax)
	}
	hostLen := int(b[4])
	if len(b) < metadataMinLen+hostLen {
		return metadata{}, fmt.Errorf("%w: %d bytes with a host of %d", errBadMetadata, len(b), hostLen)
	}
	if hostLen > 0 {
		host, ok := netip.AddrFromSlice(b[5 : 5+hostLen])
		if !ok || host.IsUnspecified() || host.IsMulticast() {
			return metadata{}, fmt.Errorf("%w: host %x", errBadMetadata, b[5:5+hostLen])
		}
		m.rpcHost = host
	}
	m.rpcPort = binary.BigEndian.Uint16(b[5+hostLen:])
	if m.rpcPort == 0 {
		return metadata{}, fmt.Errorf("%w: port 0", errBadMetadata)
	}
	return m, nil
}
