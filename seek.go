package peerlimit

import (
	"context"
	"errors"
	"time"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// The way of a request to the node that holds its key. Mostly that is the owner that the ring names, and it is asked at
// once. While a partition is on its way from one node to another, or nodes see different rings, the request is passed
// on, or waits a moment where it will be answered.

// seekInterval is how often a waiting request looks again even if it was not woken: the member to ask may have changed.
const seekInterval = 10 * time.Millisecond

// patience returns how long to look for an answer from another node once the owner has not given one: the RPC timeout. When a
// whole one has passed already, so that it is not the caller that cannot wait, it is at most half of what remains until the
// deadline of ctx: then there is time left to decide without an answer.
func (q *query) patience(ctx context.Context) time.Duration {
	n := q.node
	timeout := n.settings.RPCTimeout
	deadline, has := ctx.Deadline()
	if !has {
		return timeout
	}
	owed := timeout - time.Duration(n.now()-q.began)
	return min(timeout, max(owed, time.Until(deadline)/2))
}

// askHolder asks the owner, or seeks the holder when that is this node, which does not hold, or the owner does not know.
// owner is the member that the ring names, when it is another node. It may take patience from began on.
func (q *query) askHolder(ctx context.Context, began int64, patience time.Duration) (rep reply, owner *peer, err error) {
	n, part, m := q.node, q.part, &q.message
	owner = n.route.Load().owner(part)
	if owner == nil {
		rep, err = q.seek(ctx, "", patience)
		return rep, nil, err
	}
	q.age()
	ans, err := n.others.call(ctx, owner, m, began, patience)
	if errors.Is(err, errElsewhere) {
		rep, err = q.seek(ctx, "", patience-time.Duration(n.now()-began))
		return rep, owner, err
	}
	return q.replyOf(ans, owner), owner, err
}

// replyOf returns an answer of p's with what cancels it there. Most are takes, which need not pay for that.
func (q *query) replyOf(ans wire.Response, p *peer) reply {
	n, m := q.node, &q.message
	if m.Kind != wire.KindReserve && m.Kind != wire.KindAwait {
		return reply{Response: ans}
	}
	return reply{ans, remoteCanceller{n, p}}
}

// seek answers a request about a key that this node did not hold a moment ago: as soon as it does, or by passing the
// request on to the node that probably holds; never back to where it came from. It gives up after some time, and at once
// where nobody here can know: then a node that has a copy decides by a share.
func (q *query) seek(ctx context.Context, from string, patience time.Duration) (reply, error) {
	n, part, m := q.node, q.part, &q.message
	end := n.now() + int64(patience)
	timer := time.NewTimer(seekInterval)
	defer timer.Stop()
	for {
		changed := n.keeper.Changed() // before looking
		if rep, ok := q.here(); ok {
			return rep, nil
		}
		where := n.others.nextHop(part, from)
		switch {
		case where.alone:
			return reply{}, errNoQuorum
		case !where.coming && from != "" && (where.next == nil || m.Hops >= wire.MaxHops):
			return reply{}, errElsewhere // the asker knows better
		}
		left := time.Duration(end - n.now())
		if next := where.next; next != nil && m.Hops < wire.MaxHops && left > 0 {
			passed := *m
			passed.Hops++
			ans, err := n.others.call(ctx, next, &passed, n.now(), left)
			if err == nil {
				return q.replyOf(ans, next), nil
			}
			if !errors.Is(err, errElsewhere) && !errors.Is(err, errNoQuorum) && !neverSent(err) {
				return reply{}, err // it may have been acted upon
			}
			left = time.Duration(end - n.now())
		}
		if left <= 0 {
			return reply{}, errElsewhere
		}
		timer.Reset(min(left, seekInterval))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			return reply{}, ctx.Err()
		case <-n.stop:
			return reply{}, ErrClosed
		}
	}
}

// errNoQuorum is why a node that has a copy does not decide in full.
var errNoQuorum = errors.New("no member that was asked holds the key and has a majority")

// anyInReach returns a member that is not known to be out of reach, other than the one named, or nil.
func (o others) anyInReach(route *route, not string) *peer {
	for _, p := range route.others {
		if p.Name != not && !o.cutOff(p) {
			return p
		}
	}
	return nil
}

// prospect is what a node can say about where a partition that it does not hold is.
type prospect struct {
	next   *peer // the member that probably holds it, or knows the holder; nil when that is the asker, or no member
	coming bool  // it is on its way here
	alone  bool  // and will not come, nor be found, before this node's quorum is fresh again
}

// nextHop returns where a request that came from a node, or from this one, should go next: to the node that is being
// asked for the partition, the one it was given to, the owner, the previous owner, the holder of the copy that this node has, or the node that
// asked for it last.
func (o others) nextHop(part uint16, from string) prospect {
	n := o.node
	route, full := n.route.Load(), n.reach.IsFull(n.now())
	owner := route.owner(part)
	c := n.table.Clues(part)
	guesses := [...]string{c.LikelyHolder, c.TransferredTo, "", n.history.PreviousOwner(part), c.Holder, c.PromisedTo}
	if owner != nil {
		guesses[2] = owner.Name
	}
	s := prospect{coming: c.Acquiring || owner == nil}
	if full || !c.Lapsed {
		for _, name := range guesses {
			if name != "" && name != from && route.others[name] != nil {
				s.next = route.others[name]
				break
			}
		}
	}
	joining := !full && n.reach.Lapses.Load() == 0
	if owner == nil && s.next == nil && (joining || full && guesses != [len(guesses)]string{}) {
		s.next = o.anyInReach(route, from) // somebody else may know more, or where the one is that it was given to
	}
	if full || owner != nil || joining && from != "" {
		return s // in the last case others already see it as one of them
	}
	s.alone = s.next == nil || o.cutOff(s.next)
	return s
}
