package peerlimit

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Member is one node of the cluster as the node that was asked sees it.
type Member struct {
	// Name is the identity of the process: Config.Name, a dash and eight random hexadecimal digits. It is unique and
	// never comes back; a restarted process has another one.
	Name string

	// Addr is where gossip reaches it, "host:port".
	Addr string

	// RPCAddr is where takes reach it, "host:port".
	RPCAddr string

	// State is what is known of it.
	State MemberState

	// Self is set for the node that was asked.
	Self bool
}

// MemberState says whether a member takes part.
type MemberState uint8

const (
	// MemberAlive is a member like any other. It is the zero value.
	MemberAlive MemberState = iota

	// MemberSuspect is a member that gossip has not given up and that this node gets no answer from.
	MemberSuspect

	// MemberLeaving is a member that is handing over what it owns before it goes.
	MemberLeaving

	// MemberLost is a member that gossip has given up without a goodbye: it crashed, or is cut off. It is listed as long
	// as limits are still divided by it: until 10 seconds after its last ping at most, or, without a majority, until there is one.
	MemberLost
)

var memberStateNames = [...]string{"alive", "suspect", "leaving", "lost"}

// String returns "alive", "suspect", "leaving" or "lost".
func (s MemberState) String() string {
	if int(s) < len(memberStateNames) {
		return memberStateNames[s]
	}
	return fmt.Sprintf("MemberState(%d)", uint8(s))
}

// memberFrom returns a member as users see it.
func memberFrom(info membership.Info) Member {
	return Member{Name: info.Name, Addr: addrText(info.Gossip), RPCAddr: addrText(info.RPC), State: MemberState(info.State), Self: info.Self}
}

// addrText returns an address as text, or nothing for one that is not known.
func addrText(addr netip.AddrPort) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// membership returns the configuration of a node's membership. rpc is where it serves takes, fate what its quorum says of others.
func (s *settings) membership(rpc netip.AddrPort, fate membership.Fate) membership.Config {
	c := membership.Config{
		Name: s.identity, Cluster: s.Cluster, Bind: s.gossip, BindText: s.BindAddr, Advertise: s.advertise, RPC: rpc,
		ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax, Network: s.Network, Keyring: s.encryption.Keyring,
		ExpectMembers: s.ExpectMembers, Fate: fate, Memberlist: s.Memberlist, Logger: s.Logger,
	}
	for _, text := range s.Join {
		host, port, _ := splitAddr(text, DefaultGossipPort) // checkSeeds has seen that it can be split
		c.Seeds = append(c.Seeds, membership.Seed{Text: text, Host: host, Port: port})
	}
	return c
}

// membershipError returns an error of the membership as one that users can test for.
func membershipError(err error) error {
	switch {
	case errors.Is(err, membership.ErrClosed):
		return ErrClosed
	case errors.Is(err, membership.ErrAdvertise):
		return fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	return err
}
