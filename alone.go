package peerlimit

import (
	"fmt"
	"math"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Deciding alone. A node that cannot reach a key's owner decides from a bucket of its own, with the share of the limit
// that the fallback policy grants: by default 1 of as many as are known, so that all members together stay within the
// limit even when every one of them is cut off from every other. Such buckets live in a table apart from those that this
// node holds for the cluster. They are not reset when the owner returns: an owner that comes and goes would hand out
// their burst each time.

// decideAlone answers m without its holder: owner could not be reached because of cause. It is nil when it is this node, which
// does not hold.
func (l *Limiter) decideAlone(q *query, owner *peer, cause error) (reply, error) {
	n, m := l.node, &q.message
	switch m.Kind {
	case wire.KindRefund:
		n.counters.lostRefunds.Add(1)
		return reply{}, nil
	case wire.KindReset:
		return reply{}, fmt.Errorf("%w: %w", ErrUnreachable, cause)
	}
	rep := q.decideByShare(l.policy)
	n.others.noteAnswer(owner, &rep, cause)
	return rep, nil
}

// decideByShare answers m from this node's bucket of the share that the policy grants it.
func (q *query) decideByShare(policy fallback.Policy) reply {
	if q.message.Kind == wire.KindAwait {
		// A share has no queue, and grants nothing for later: most of those that wait are with the holder again before then, and
		// it would be charged for turns that nobody has had.
		turn := q.message
		turn.Kind, turn.MaxDelay = wire.KindReserve, 0
		q = q.with(&turn)
	}
	n, r, part, m := q.node, q.rule, q.part, &q.message
	origin, sharing := limit.OriginFallback, 1
	copied, wasHolder := n.table.HasCopy(part)
	if copied {
		origin = limit.OriginStandby
	}
	if wasHolder { // all in its reach ask it
		sharing = n.reach.Reachable(n.now())
	}
	switch m.Kind {
	case wire.KindRefund, wire.KindReset, wire.KindCancel, wire.KindReturn, wire.KindLeaveTurn:
		return reply{Response: wire.Response{Status: wire.StatusElsewhere}} // these change what only the holder has
	}
	rep := reply{Response: wire.Response{Status: wire.StatusDecided}}
	switch share := n.share(policy, r, m.Key, sharing); {
	case math.IsInf(share.Rate, 1):
		rep.Decision = r.Set.Unlimited()
	case !(share.Rate > 0):
		rep.Decision = r.Set.Refusal(m.Cost)
	default:
		scaled := r.Scaled(share)
		ans, spent := q.spendShare(scaled, copied)
		if !spent {
			if rep, ok := q.here(); ok {
				return rep
			}
			return q.decideByShare(policy) // it holds no more: that was as short as can be
		}
		rep = reply{ans, shareCanceller{localCanceller{n.alone, scaled, part, n}, r, m.Cost}}
	}
	rep.Decision.Origin = origin
	return rep
}

// spendShare answers m from the bucket of a share and notes what it spends, unless this node has come to hold the partition
// meanwhile. All of that is one step for a node that begins to hold and charges what was noted: what is noted a moment later
// would be charged later than the first take.
func (q *query) spendShare(scaled *rule.Rule, copied bool) (ans wire.Response, spent bool) {
	n, r, part, m := q.node, q.rule, q.part, &q.message
	spent = n.table.UnlessDeciding(part, n.now(), func(p *store.Partition) {
		if copied {
			n.seedShare(p, scaled, r, part, m.Key)
		}
		ans = q.decideShare(scaled)
		if m.Kind != wire.KindPeek && ans.Decision.Allowed {
			n.reporter.Note(part, r, m.Key, m.Cost)
		}
	})
	return ans, spent
}

// seedShare makes the bucket that is about to decide by a share of r start with as large a part of its burst taken as the copy
// says was taken of the whole. The copy is p, which is locked.
func (n *Node) seedShare(p *store.Partition, scaled, r *rule.Rule, part uint16, key string) {
	id, now := r.Bucket(key), n.now()
	if copied, there := p.StateOf(id, now); there {
		n.alone.InsertShare(part, id, scaled.Set, r.Set, &copied, now)
	}
}

// decideShare answers m from this node's bucket of a share of r.
func (q *query) decideShare(scaled *rule.Rule) wire.Response {
	n, r, part, m := q.node, q.rule, q.part, &q.message
	if m.Kind != wire.KindPeek && !scaled.Set.Fits(m.Cost) {
		return wire.Response{Status: wire.StatusDecided, Decision: r.Set.Refusal(m.Cost)}
	}
	ans, _ := n.alone.Answer(scaled, part, m, n.now())
	for i, l := range scaled.Set.Limits { // the caller knows its limits by their whole numbers
		if l == ans.Decision.Limit {
			ans.Decision.Limit = r.Set.Limits[i]
			break
		}
	}
	return ans
}

// rememberDenial makes the bucket that this node would decide from alone start empty: the owner has just said that
// there is nothing left.
func (l *Limiter) rememberDenial(r *rule.Rule, part uint16, key string) {
	share := l.node.share(l.policy, r, key, 1)
	if share.Rate > 0 && !math.IsInf(share.Rate, 1) {
		n := l.node
		scaled := r.Scaled(share)
		n.alone.Exhaust(part, r.Bucket(key), scaled.Set, n.now())
	}
}

// share returns what this node may give out for key, to as many members as are sharing it: nothing, or without limit, or a part
// of r's limits. Where only some members have a share, because the burst is small, all that know the same members choose the
// same ones.
func (n *Node) share(policy fallback.Policy, r *rule.Rule, key string, sharing int) rule.Share {
	view := n.membership.View()
	granted := policy(fallback.Reach{Known: view.Divisor, Reachable: n.reach.Reachable(n.now()), Sharing: sharing})
	if !(granted > 0) || math.IsInf(granted, 1) {
		return rule.Share{Rate: granted}
	}
	share, holders := r.Divide(granted, sharing, view.Divisor)
	if holders >= view.Divisor {
		return share
	}
	if len(view.Members) < view.Divisor {
		return rule.Share{} // some are expected and have not been seen: no node can tell which members come first
	}
	rank := ring.NewRank(n.identity, key)
	for i := range view.Members {
		if rank.Beside(view.Members[i].Name); rank.Before() >= holders {
			return rule.Share{} // most members find that after a few names: this is on the way of every denial from afar
		}
	}
	return share
}

// shareCanceller takes back a reservation that a share made.
type shareCanceller struct {
	localCanceller
	rule *rule.Rule // under the whole limit: what is reported
	cost float64
}

func (c shareCanceller) cancel(m wire.Message) {
	n := c.node
	if exact, _ := c.table.Cancel(c.part, c.rule.Bucket(m.Key), *m.Undo, n.now()); exact {
		n.reporter.Unrecord(c.part, c.rule, m.Key, c.cost)
	}
}
