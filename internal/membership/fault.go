package membership

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/peerlimit/peerlimit/internal/secret"
	"github.com/peerlimit/peerlimit/transport"
)

// Fault is why a seed is not joined, or a peer's gossip not heard: mostly one of the two is not set up as the other. "It" in the texts is
// the other side.
type Fault uint8

// The faults. The zero Fault is none.
const (
	NoFault Fault = iota
	FaultLookup
	FaultUnreachable
	FaultSilent
	FaultHungUp
	FaultService
	FaultForeign
	FaultCluster
	FaultSecret
	FaultNoSecretHere
	FaultNoSecretThere
	FaultCertificate
	FaultVersion
	FaultOther
	Faults // how many there are
)

// faultTexts say what it is and what to set. docs/operations.md lists them.
var faultTexts = [Faults]string{
	FaultLookup:        "its name does not resolve: check Config.Join and DNS",
	FaultUnreachable:   "nothing answers at its address: check Config.Join, and the instance there, its BindAddr and the network",
	FaultSilent:        "it accepts connections and says nothing: Config.Join must name the gossip port of a peerlimit node, that of its BindAddr",
	FaultHungUp:        "it hangs up, as other services do: Config.Join must name the gossip port of a peerlimit node, that of its BindAddr",
	FaultService:       "it answers as no peerlimit node does: Config.Join must name the gossip port of one, that of its BindAddr",
	FaultForeign:       "it is no peerlimit node, or its Config.Join names the wrong port: keep others away from this port",
	FaultCluster:       "it is of another Cluster: set the same Config.Cluster on both, or another Config.Join",
	FaultSecret:        "it has another Secret: set the same Config.Secret on both, or accept the other's in AcceptSecrets",
	FaultNoSecretHere:  "it has a Secret and this node has none: set Config.Secret here",
	FaultNoSecretThere: "it has no Secret and this node has one: set Config.Secret there",
	FaultCertificate:   "its certificate and this node's do not fit: set Config.TLS on both, with the same authority",
	FaultVersion:       "it speaks no protocol version that this node does: go through the versions of peerlimit one by one",
	FaultOther:         "gossip with it failed: see err",
}

// String returns what it is and what to set.
func (f Fault) String() string {
	if f >= Faults {
		return fmt.Sprintf("Fault(%d)", uint8(f))
	}
	return faultTexts[f]
}

// IsCluster reports whether the other side is of another cluster.
func (f Fault) IsCluster() bool { return f == FaultCluster }

// IsSecret reports whether the two have not the same secret.
func (f Fault) IsSecret() bool {
	return f == FaultSecret || f == FaultNoSecretHere || f == FaultNoSecretThere
}

// joinError is why a node was not met.
type joinError struct {
	fault Fault
	cause error
}

func (e *joinError) Error() string { return e.cause.Error() }
func (e *joinError) Unwrap() error { return e.cause }

// refusals are what a peer is answered before this node hangs up, so that it can tell its user what to set: memberlist hangs up
// without a word, as services do that have nothing to do with gossip. They say nothing but which of the two differs. To a version that
// does not know them they are malformed.
var refusals = map[Fault][]byte{
	FaultCluster:       {gossipHasLabel, 0},                                      // a label of no name, which no answer has
	FaultSecret:        {gossipEncrypted, 0, 0, 0, 0},                            // a message of no bytes
	FaultNoSecretThere: {gossipEncrypted, 0, 0, 0, 0},                            // likewise
	FaultNoSecretHere:  {gossipError, 0x81, 0xa5, 'E', 'r', 'r', 'o', 'r', 0xa0}, // memberlist's error, without a text
}

// faultOfInbound returns what is wrong with a peer that has sent this, of which err was found.
func faultOfInbound(said []byte, err error) Fault {
	switch {
	case errors.Is(err, errGossipLabel) && len(said) > 0 && said[0] == gossipHasLabel:
		return FaultCluster
	case errors.Is(err, errGossipClear):
		return FaultNoSecretThere
	case errors.Is(err, errGossipCrypted):
		return FaultNoSecretHere
	case errors.Is(err, errGossipKey):
		return FaultSecret
	}
	return FaultForeign
}

// faultOfAnswer returns what is wrong with a peer that this node has dialled and that has answered this, of which err was found.
func faultOfAnswer(said []byte, err error) Fault {
	var waited net.Error
	switch {
	case len(said) == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return FaultHungUp
	case errors.As(err, &waited) && waited.Timeout():
		return FaultSilent
	case len(said) == 0:
		return FaultOther
	case said[0] == gossipHasLabel:
		return FaultCluster
	case said[0] == gossipEncrypted && errors.Is(err, errGossipCrypted):
		return FaultNoSecretHere
	case said[0] == gossipEncrypted && (errors.Is(err, errGossipKey) || bytes.Equal(said, refusals[FaultSecret])):
		return FaultSecret
	case said[0] != gossipEncrypted && said[0] > gossipError:
		return FaultService
	case errors.Is(err, errGossipClear):
		return FaultNoSecretThere
	}
	return FaultOther
}

// withWhatWasSaid returns an error that has the name of the peer's cluster, or the beginning of what another service has answered.
func withWhatWasSaid(said []byte, fault Fault, err error) error {
	switch {
	case fault == FaultCluster && len(said) > 2 && len(said)-2 >= int(said[1]):
		return fmt.Errorf("%w: its Cluster is %q", err, said[2:][:said[1]])
	case fault == FaultService:
		return fmt.Errorf("%w: it begins with %q", err, said[:min(len(said), 32)])
	}
	return err
}

// attempts are the joins under way, and the first thing that went wrong with each: memberlist returns text.
type attempts struct {
	mu     sync.Mutex // guards faults
	faults map[string]*joinError
}

// begin has notes about an address kept.
func (a *attempts) begin(addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.faults == nil {
		a.faults = make(map[string]*joinError)
	}
	a.faults[addr] = nil
}

// note takes in that something went wrong at an address.
func (a *attempts) note(addr string, fault Fault, cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first, joining := a.faults[addr]; joining && first == nil {
		a.faults[addr] = &joinError{fault, cause}
	}
}

// end returns what was noted about an address since begin, nil when nothing was.
func (a *attempts) end(addr string) *joinError {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := a.faults[addr]
	delete(a.faults, addr)
	return first
}

// FaultOfConnection returns what is wrong with a peer whose connection for takes did not get through TLS and the handshake. A peer
// that finds this node's certificate wrong says so; one that speaks no TLS begins with the handshake. ownTLS says that Config.TLS is set.
func FaultOfConnection(err error, ownTLS bool) Fault {
	var handshake *transport.HandshakeError
	var told tls.AlertError
	var remote *net.OpError
	var noTLS tls.RecordHeaderError
	var wrong *tls.CertificateVerificationError
	isRemote := errors.As(err, &told) || errors.As(err, &remote) && remote.Op == "remote error"
	isPlain := errors.As(err, &noTLS) && bytes.HasPrefix(noTLS.RecordHeader[:], []byte("PLMT"))
	switch {
	case errors.As(err, &handshake) && handshake.Status == transport.HandshakeCluster:
		return FaultCluster
	case errors.As(err, &handshake) && handshake.Status == transport.HandshakeVersion:
		return FaultVersion
	case ownTLS && (isRemote || isPlain || errors.As(err, &wrong)):
		return FaultCertificate
	case errors.Is(err, secret.ErrNoMember), isRemote:
		return FaultSecret
	case isPlain:
		return FaultNoSecretThere
	case errors.Is(err, transport.ErrTLS):
		return FaultNoSecretHere
	}
	return FaultForeign
}
