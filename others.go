package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/internal/holding"
	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// others is what the parts of a node need of it to speak with other members: their interfaces in one place.
type others struct{ node *Node }

// Owner returns the member that the ring names as the owner of a partition; "" is this node.
func (o others) Owner(part uint16) string {
	if owner := o.node.route.Load().owner(part); owner != nil {
		return owner.Name
	}
	return ""
}

// Tell sends a control message to a member and returns its answer. On odd tries, and when the link is down, it goes
// through another member.
func (o others) Tell(ctx context.Context, to string, request []byte, timeout time.Duration, try int) ([]byte, error) {
	n := o.node
	route := n.route.Load()
	direct := route.others[to]
	if direct != nil && o.linked(direct) && try%2 == 0 {
		return n.client.Call(ctx, direct.Peer, request, timeout)
	}
	through := o.neighbour(route, to, n.identity)
	if through == nil {
		if direct == nil || !o.linked(direct) {
			return nil, transport.ErrUnreachable
		}
		return n.client.Call(ctx, direct.Peer, request, timeout)
	}
	return n.client.Call(ctx, through.Peer, wire.AppendRelay(nil, &wire.Relay{To: to, From: n.identity, Request: request}), timeout)
}

var (
	errBadRelay   = errors.New("peerlimit: a relayed message that is empty, or relayed twice")
	errNotRelayed = errors.New("peerlimit: a relayed message for nobody in reach") // which is what relays are tried for
)

// Owns reports whether the ring names this node as the owner of a partition.
func (o others) Owns(part uint16) bool { return o.node.route.Load().owner(part) == nil }

// PreviousOwner returns the other member that owned a partition before the ring changed, or "".
func (o others) PreviousOwner(part uint16) string { return o.node.history.PreviousOwner(part) }

// Acquired forgets the previous owner of a partition.
func (o others) Acquired(part uint16) { o.node.history.Acquired(part) }

// Roster returns the members that this node knows.
func (o others) Roster() holding.Roster { return o.node.membership.Roster() }

// Told returns the members that this node names to others, and those of them that are lost.
func (o others) Told() (names []string, lost []wire.LostName) {
	roster := o.node.membership.Roster()
	return roster.Told, roster.Lost()
}

// Departed returns the members that have left, or are forgotten.
func (o others) Departed() map[string]bool { return o.node.membership.Departed() }

// Met takes in that a member has said something itself.
func (o others) Met(member string) { o.node.addHeardFrom(member) }

// MergeNames takes in the names that a member has told.
func (o others) MergeNames(teller string, names []string, lost []wire.LostName) {
	o.node.mergeNames(&membership.Word{Teller: teller, Names: names, Lost: lost})
}

// HasQuorum tells of quorum that was lost and is there again.
func (o others) HasQuorum() { o.node.quorumFull() }

// HoldingChanged wakes what waits for partitions to be held, or sends what is held.
func (o others) HoldingChanged() { o.node.holdingChanged() }

// startGrace is how long after its start a node acquires without state as a matter of course: nobody had any.
const startGrace = 10 * time.Second

// Gained tells of partitions that this node has begun to hold.
func (o others) Gained(byTransfer, fromReplica, empty int) {
	line := eventLines[EventAcquired]
	if empty > 0 && time.Since(o.node.began) > startGrace {
		line = lineAcquiredEmpty
	}
	o.node.events.emitAs(line, EventAcquired, "", fmt.Sprintf("%d partitions: %d by transfer, %d from replicas, %d empty",
		byTransfer+fromReplica+empty, byTransfer, fromReplica, empty))
}

// Ring returns the ring as it is now.
func (o others) Ring() *ring.Ring { return o.node.route.Load().ring }

// Postpone lets another node that is acquiring a partition go first.
func (o others) Postpone(part uint16) { o.node.keeper.Postpone(part) }

// Challenged has this node look at once at what it is to acquire.
func (o others) Challenged() { o.node.keeper.Wake() }

// Yielded wakes what waits for a change of what this node holds.
func (o others) Yielded() {
	o.node.keeper.Announce()
	o.node.holdingChanged()
}

// returnLeases tells the holder which leases of a key this node is done with. It is sent once: what does not arrive counts as
// used, which is the safe side.
func (n *Node) returnLeases(part uint16, key string, r *rule.Rule, returned []wire.LeaseReturn) {
	if n.table.ReturnLeases(part, r.Bucket(key), returned, n.now()) {
		return
	}
	owner := n.route.Load().owner(part)
	if owner == nil {
		return
	}
	m := wire.Message{Kind: wire.KindReturn, Rule: r.Encoded, Key: key, Borrow: wire.Borrowing{Returned: returned}}
	if err := n.client.Post(owner.Peer, wire.AppendMessage(nil, &m)); err != nil {
		n.log.Debug("lease not returned", "member", owner.Name, "err", err)
	}
}
