package transport

// LinkState says what can be expected of calls to a peer.
type LinkState uint8

const (
	// LinkUnknown: there is no link to that peer.
	LinkUnknown LinkState = iota
	// LinkConnecting: the first dial or handshake is under way; calls wait for it.
	LinkConnecting
	// LinkUp: calls are sent.
	LinkUp
	// LinkSuspect: connected, but the last calls all timed out and nothing else
	// came back; calls fail immediately until the peer answers a ping.
	LinkSuspect
	// LinkDown: no connection; calls fail immediately until a redial succeeds.
	LinkDown
)

// String returns the state in lower case.
func (s LinkState) String() string {
	switch s {
	case LinkConnecting:
		return "connecting"
	case LinkUp:
		return "up"
	case LinkSuspect:
		return "suspect"
	case LinkDown:
		return "down"
	default:
		return "unknown"
	}
}

// LinkChange reports that a link went up, suspect or down, or that it is still
// down for another reason.
type LinkChange struct {
	Peer    Peer
	State   LinkState // LinkUp, LinkSuspect or LinkDown
	Version uint8     // the protocol version spoken; 0 when down
	Err     error     // what calls fail with now; nil when up
}
