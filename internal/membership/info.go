package membership

import (
	"fmt"
	"net/netip"
)

// Info is one member: what it says of itself, and what is known of it. It is comparable.
type Info struct {
	Name                     string         // its identity
	Gossip, RPC              netip.AddrPort // where gossip and takes reach it; invalid while nobody has said
	State                    State
	Self                     bool  // it is this node
	ProtocolMin, ProtocolMax uint8 // of takes
}

// State says whether a member takes part.
type State uint8

const (
	// gossipAlive is a member like any other. It is the zero value.
	Alive State = iota

	// Suspect is a member that gossip tells of and that has not proved itself to this node.
	Suspect

	// Leaving is a member that has announced that it goes.
	Leaving

	// Failed is a member that gossip has given up without a goodbye, and that still counts.
	Failed
)

var stateNames = [...]string{"alive", "suspect", "leaving", "failed"}

// String returns "alive", "suspect", "leaving" or "failed".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}
