package peerlimit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// route says which member to ask about a partition. It is a snapshot: a take reads it once and never sees half a change.
type route struct {
	ring  *ring.Ring
	peers []*peer // by the ring's member index; nil for this node

	// others are all members that can be asked, by name: also those that own nothing, because they are leaving or lost.
	others map[string]*peer
}

// peer is another member that owns partitions.
type peer struct {
	transport.Peer

	// degradedAt is when a take on its keys was last decided by a share, and 0 since it has recovered.
	degradedAt atomic.Int64
}

// owner returns the member to ask about a partition, or nil when this node decides: it is the owner, or there is no
// other member.
func (r *route) owner(partition uint16) *peer {
	if len(r.peers) == 0 {
		return nil
	}
	return r.peers[r.ring.OwnerIndex(partition)]
}

// standby returns the member that owns a partition when its owner does not, or nil when that is this node; ok is false when
// there is no other member.
func (r *route) standby(partition uint16) (standby *peer, ok bool) {
	name := r.ring.Successor(partition, 1)
	if name == "" {
		return nil, false
	}
	return r.others[name], true // nil for this node's own name
}

// call asks a peer and waits for its answer, for at most timeout; it is about began now. An error means that there is no
// answer; unless it is errElsewhere or neverSent, the request may still have been acted upon.
func (o others) call(ctx context.Context, p *peer, m *wire.Message, began int64, timeout time.Duration) (wire.Response, error) {
	n := o.node
	var question [192]byte // most fit; memory is made for others
	var room [128]byte
	response, err := n.client.CallAppend(ctx, p.Peer, room[:0], wire.AppendMessage(question[:0], m), timeout)
	n.counters.questionTimes.Add(time.Duration(n.now() - began))
	return o.decided(response, err)
}

// callThrough is call by way of another member.
func (o others) callThrough(ctx context.Context, through *peer, to string, m *wire.Message, timeout time.Duration) (wire.Response, error) {
	n := o.node
	request := wire.AppendRelay(nil, &wire.Relay{To: to, From: n.identity, Request: wire.AppendMessage(nil, m)})
	response, err := n.client.Call(ctx, through.Peer, request, timeout)
	return o.decided(response, err)
}

// decided decodes the answer to a call.
func (o others) decided(response []byte, err error) (wire.Response, error) {
	n := o.node
	if err != nil {
		o.countFailure(err)
		return wire.Response{}, err
	}
	ans, err := wire.DecodeResponse(response)
	if err != nil {
		return wire.Response{}, err
	}
	switch ans.Status {
	case wire.StatusRefused:
		n.counters.unreachable.Add(1)
		return wire.Response{}, wire.ErrRefused
	case wire.StatusElsewhere:
		return wire.Response{}, errElsewhere
	case wire.StatusNoQuorum:
		return wire.Response{}, errNoQuorum
	}
	if ans.Decision.Origin == limit.OriginLocal {
		ans.Decision.Origin = limit.OriginRemote // local to the node that answered
	}
	return ans, nil
}

var (
	errElsewhere = errors.New("the member that was asked does not hold the key")
)

// neverSent reports whether a call failed before its request left this node.
func neverSent(err error) bool {
	return errors.Is(err, transport.ErrUnreachable) && !errors.Is(err, transport.ErrBroken) || errors.Is(err, transport.ErrBusy)
}

// linked reports whether requests can be sent to p now.
func (o others) linked(p *peer) bool {
	n := o.node
	return n.client.State(p.Name) == transport.LinkUp
}

// cutOff reports whether p is known to be out of reach. A link that is being made for the first time is not: calls wait
// for it.
func (o others) cutOff(p *peer) bool {
	n := o.node
	state := n.client.State(p.Name)
	return state == transport.LinkDown || state == transport.LinkSuspect
}

func (o others) countFailure(err error) {
	n := o.node
	switch {
	case errors.Is(err, transport.ErrTimeout):
		n.counters.timeouts.Add(1)
	case errors.Is(err, transport.ErrBusy):
		n.counters.overloaded.Add(1)
	case errors.Is(err, transport.ErrUnreachable):
		n.counters.unreachable.Add(1)
	}
}

// recoverAfter is how long no decision was made without a member before an answer of that member ends its event: one that
// comes and goes would otherwise be reported many times a second.
const recoverAfter = time.Second

// noteAnswer notes how a take on the keys of owner was decided, by owner itself when cause is nil. A nil owner stands for this
// node, about which EventQuorumLost tells.
func (o others) noteAnswer(owner *peer, rep *reply, cause error) {
	switch {
	case byShare(&rep.Decision):
		o.degraded(owner, cause)
	case owner != nil && cause == nil:
		o.recovered(owner)
	}
}

// degraded notes that a take on p's keys was decided by a share.
func (o others) degraded(p *peer, cause error) {
	n := o.node
	n.counters.degraded.Add(1)
	if p == nil || p.degradedAt.Swap(max(1, n.now())) != 0 {
		return
	}
	detail := "it answers, and does not hold them"
	if cause != nil {
		detail = cause.Error()
	}
	n.events.emit(EventDegraded, p.Name, detail)
}

// recovered notes that p has answered.
func (o others) recovered(p *peer) {
	n := o.node
	if at := p.degradedAt.Load(); at != 0 && n.now()-at >= int64(recoverAfter) && p.degradedAt.CompareAndSwap(at, 0) {
		n.events.emit(EventRecovered, p.Name, "")
	}
}

// parted notes that p is gone: others own its keys by now.
func (o others) parted(p *peer) {
	n := o.node
	if p.degradedAt.Swap(0) != 0 {
		n.events.emit(EventRecovered, p.Name, "the member is gone; others own its keys")
	}
}
