package peerlimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/transport"
)

// route says whom to ask about a partition. It is a snapshot: a take reads it once and never sees half a change.
type route struct {
	ring  *ring
	peers []*peer // by the ring's member index; nil for this node

	// isolated says that this node expects others and has never met one: it is not an owner, but cut off.
	isolated bool
}

// peer is another member that owns partitions.
type peer struct {
	transport.Peer
	alone atomic.Bool // takes on its keys are being decided here, because it cannot be reached
}

// owner returns the member to ask about a partition, or nil when this node decides: it is the owner, or there is no
// other member.
func (r *route) owner(partition uint16) *peer {
	if len(r.peers) == 0 {
		return nil
	}
	return r.peers[r.ring.ownerIndex(partition)]
}

// isLocal reports whether this node decides for the cluster.
func (r *route) isLocal(partition uint16) bool { return r.owner(partition) == nil && !r.isolated }

// errIsolated is why a node that has never met its cluster decides alone.
var errIsolated = errors.New("peerlimit: no other member has been met yet")

// call asks a peer and waits for its answer, for at most the RPC timeout, and at most half of what remains until the
// deadline of ctx, so that there is time to decide alone. An error means that there is no answer; the question may still
// have been acted upon.
func (n *Node) call(ctx context.Context, p *peer, m *message) (answer, error) {
	timeout := n.settings.RPCTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/2)
	}
	var buf [512]byte
	response, err := n.client.Call(ctx, p.Peer, appendMessage(buf[:0], m), timeout)
	if err != nil {
		n.countFailure(err)
		return answer{}, err
	}
	ans, err := decodeAnswer(response)
	if err != nil {
		return answer{}, err
	}
	if ans.status == statusRefused {
		n.counters.unreachable.Add(1)
		return answer{}, errRefused
	}
	if ans.decision.Origin == OriginLocal {
		ans.decision.Origin = OriginRemote // local to the node that answered
	}
	return ans, nil
}

var errRefused = errors.New("peerlimit: the owner refused to answer")

func (n *Node) countFailure(err error) {
	switch {
	case errors.Is(err, transport.ErrTimeout):
		n.counters.timeouts.Add(1)
	case errors.Is(err, transport.ErrBusy):
		n.counters.overloaded.Add(1)
	case errors.Is(err, transport.ErrUnreachable):
		n.counters.unreachable.Add(1)
	}
}

// fallbackBegan notes that a take on p's keys is decided here.
func (n *Node) fallbackBegan(p *peer, cause error) {
	if !p.alone.Load() && p.alone.CompareAndSwap(false, true) {
		n.events.emit(EventFallbackBegan, p.Name, cause.Error())
	}
}

// fallbackEnded notes that p has answered, or is gone.
func (n *Node) fallbackEnded(p *peer) {
	if p.alone.Load() && p.alone.CompareAndSwap(true, false) {
		n.events.emit(EventFallbackEnded, p.Name, "")
	}
}
