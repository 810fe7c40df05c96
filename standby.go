package peerlimit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Asking the standby. When a key's owner cannot be reached, the member that would own it next has a replica of it. It first
// tries to have the owner decide after all, by itself and through one other member, because only the link between the
// caller and the owner may be cut; only then does it decide, by the share of one member.

// askStandby asks the standby of a partition, because the owner has not decided for that cause. One that has no replica, because
// it has become the standby a moment ago, is passed over for the one after it. A limiter with a policy of its own is not
// decided for by the standby's: for it this node does what the standby would, and has the owner decide or nobody.
func (q *query) askStandby(ctx context.Context, l *Limiter, cause error, patience time.Duration) (reply, error) {
	n, part, m := q.node, q.part, &q.message
	route := n.route.Load()
	q.age()
	passed := *m
	passed.ToStandby, passed.Hops = true, 0
	ownerHeard := errors.Is(cause, errElsewhere) || errors.Is(cause, errNoQuorum) // it need not be asked again
	err := errNoStandby
	for _, standby := range n.others.standbysInReach(route, part) {
		var rep reply
		switch asStandby := standby == nil || l.ownPolicy; {
		case asStandby && ownerHeard:
			err = errNoQuorum
		case asStandby:
			rep, err = q.with(&passed).decideAsStandby(ctx, "", patience/2)
		default:
			var ans wire.Response
			ans, err = n.others.call(ctx, standby, &passed, n.now(), patience/2)
			rep = q.replyOf(ans, standby)
		}
		if copied, _ := n.table.HasCopy(part); err == nil || l.ownPolicy || standby == nil && copied || !errors.Is(err, errNoQuorum) {
			return rep, err
		}
	}
	return reply{}, err
}

const (
	// maxStandbys is how many of those after the owner are asked.
	maxStandbys = 2

	// maxAway is how many owners in a row may be out of reach until nobody is taken for a standby.
	maxAway = 3
)

// standbysInReach returns the members that own a partition, one after the other, when its owner does not, nor those before
// them; nil stands for this node. Members out of reach are left out. When this node is the owner itself and acquires, they are
// the members that may keep a replica of the one before it, if that one is out of reach.
func (o others) standbysInReach(route *route, part uint16) (standbys []*peer) {
	n := o.node
	acquiring := route.owner(part) == nil
	for i := 1; i <= maxAway+maxStandbys && len(standbys) < maxStandbys; i++ {
		name := route.ring.Successor(part, i)
		if name == "" {
			break
		}
		p := route.others[name]
		switch {
		case name == n.identity:
			standbys = append(standbys, nil)
		case p == nil || o.cutOff(p):
		case acquiring && i == 1:
			return nil // it was asked already
		default:
			standbys = append(standbys, p)
		}
	}
	if p := o.standbyBefore(route, part); p != nil && !slices.Contains(standbys, p) {
		standbys = append(standbys, p)
	}
	return standbys
}

// standbyBefore returns the standby on the ring before, if that has just changed and it can be reached, or nil. It may be
// leaving, and has the replica until somebody else has.
func (o others) standbyBefore(route *route, part uint16) *peer {
	n := o.node
	before := n.history.Before()
	if before == nil {
		return nil
	}
	if p := route.others[before.Successor(part, 1)]; p != nil && !o.cutOff(p) {
		return p
	}
	return nil
}

// askPrevious asks the previous owner of a partition, because the owner cannot be reached: before the owner has
// acquired it, that one holds.
func (q *query) askPrevious(ctx context.Context, patience time.Duration) (reply, error) {
	n, part, m := q.node, q.part, &q.message
	route := n.route.Load()
	owner, previous := route.owner(part), route.others[n.history.PreviousOwner(part)]
	if n.history.Before() == nil || owner == nil || previous == nil || previous == owner || !n.others.linked(previous) {
		return reply{}, errNoStandby
	}
	q.age()
	passed := *m
	passed.Hops = wire.MaxHops
	ans, err := n.others.call(ctx, previous, &passed, n.now(), patience/2)
	if err != nil {
		return reply{}, err
	}
	return q.replyOf(ans, previous), nil
}

var errNoStandby = errors.New("no standby has a replica of the key")

// decideAsStandby answers a request about a key whose owner the caller does not reach.
func (q *query) decideAsStandby(ctx context.Context, from string, patience time.Duration) (reply, error) {
	n, part, m := q.node, q.part, &q.message
	if rep, ok := q.here(); ok {
		return rep, nil
	}
	route := n.route.Load()
	owner := route.owner(part)
	if owner == nil { // it is this node's own by now
		return q.seek(ctx, from, patience)
	}
	if owner.Name == from {
		return reply{}, errNoQuorum // the owner is acquiring, and looks for a replica
	}
	passed := *m
	passed.ToStandby, passed.Hops = false, wire.MaxHops-1 // the owner may pass it on once more
	if n.others.linked(owner) {
		ans, err := n.others.call(ctx, owner, &passed, n.now(), patience/3)
		if err == nil {
			return q.replyOf(ans, owner), nil
		}
		if errors.Is(err, errElsewhere) || errors.Is(err, errNoQuorum) {
			return reply{}, errNoQuorum // it was reached, and does not hold: another way there leads to the same
		}
	}
	if through := n.others.neighbour(route, owner.Name, from); through != nil {
		if ans, err := n.others.callThrough(ctx, through, owner.Name, &passed, patience/3); err == nil {
			return q.replyOf(ans, owner), nil
		}
	}
	// A request that got no answer may have been acted upon even so. Then it is spent twice, which is the safe side.
	return reply{}, errNoQuorum
}

// neighbour returns a member in reach, other than those named.
func (o others) neighbour(route *route, not ...string) *peer {
	for _, p := range route.peers {
		if p != nil && p.Name != not[0] && p.Name != not[1] && o.linked(p) {
			return p
		}
	}
	return nil
}
