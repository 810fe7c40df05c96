package peerlimit

import (
	"fmt"
	"net/netip"
)

// memberInfo is one member: what it says of itself, and what is known of it. It is comparable.
type memberInfo struct {
	Name                     string         // its identity
	Gossip, RPC              netip.AddrPort // where gossip and takes reach it; invalid while nobody has said
	State                    gossipState
	Self                     bool  // it is this node
	ProtocolMin, ProtocolMax uint8 // of takes
}

// gossipState says whether a member takes part.
type gossipState uint8

const (
	// gossipAlive is a member like any other. It is the zero value.
	gossipIsAlive gossipState = iota

	// gossipIsSuspect is a member that gossip tells of and that has not proved itself to this node.
	gossipIsSuspect

	// gossipIsLeaving is a member that has announced that it goes.
	gossipIsLeaving

	// gossipIsFailed is a member that gossip has given up without a goodbye, and that still counts.
	gossipIsFailed
)

var gossipStateNames = [...]string{"alive", "suspect", "leaving", "failed"}

// String returns "alive", "suspect", "leaving" or "failed".
func (s gossipState) String() string {
	if int(s) < len(gossipStateNames) {
		return gossipStateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}
