package membership

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"github.com/peerlimit/peerlimit/transport"
)

// ErrAdvertise means that the address to advertise cannot be told from the one that is bound.
var ErrAdvertise = errors.New("it must be the address that other nodes reach")

// ErrClosed means that close was called.
var ErrClosed = errors.New("peerlimit: membership closed")

// Config is what a membership is made of. Fields have been checked: there are no defaults but those named.
type Config struct {
	// Name is the node's identity, as NewIdentity makes it: no other process ever has it.
	Name string

	// Cluster is the label of all gossip; members with another one are not heard. At most 255 bytes.
	Cluster string

	// Bind is where gossip listens, and BindText what the user has written for it, which errors name. Port 0 is any.
	Bind     netip.AddrPort
	BindText string

	// Advertise is what other nodes are told. Without an address it is what was bound, without a port that one's.
	Advertise netip.AddrPort

	// RPC is where this node serves takes. An unspecified address means the host of gossip.
	RPC netip.AddrPort

	// ProtocolMin and ProtocolMax are the lowest and highest protocol of takes that this node speaks.
	ProtocolMin, ProtocolMax uint8

	// Network carries gossip. Nil means real sockets.
	Network transport.Network

	// Keyring encrypts gossip. Nil means that it is not encrypted.
	Keyring *memberlist.Keyring

	// Seeds are joined until all are members. Resolver looks up those that are names; nil means net.DefaultResolver.
	Seeds    []Seed
	Resolver Resolver

	// ExpectMembers is how many members count at least until that many were seen. Zero means no expectation.
	ExpectMembers int

	// Fate is what quorum says of members. All of its functions are needed; they are called under locks, and must not wait or call back.
	Fate Fate

	// Memberlist changes memberlist's timing. Nil means the defaults.
	Memberlist func(*memberlist.Config)

	// Logger is told of members and of gossip. Required.
	Logger *slog.Logger
}

// Seed is an address to join.
type Seed struct {
	Text string // as the user has written it
	Host string // an address or a name
	Port uint16
}

// Resolver looks up names; a *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}
