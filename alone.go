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
	l.answered(m, &rep.Response)
	return rep, nil
}

// decideByShare answers m from this node's bucket of the share that the policy grants it.
func (q *query) decideByShare(policy fallback.Policy) reply {
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
	case wire.KindRefund, wire.KindReset, wire.KindCancel, wire.KindReturn:
		return reply{Response: wire.Response{Status: wire.StatusElsewhere}} // these change what only the holder has
	}
	rep := reply{Response: wire.Response{Status: wire.StatusDecided}}
	switch share := n.share(policy, r, m.Key, sharing); {
	case math.IsInf(share, 1):
		rep.Decision = r.Set.Unlimited()
	case !(share > 0):
		rep.Decision = r.Set.Refusal(m.Cost)
	default:
		scaled := r.Scaled(share)
		ans, spent := q.spendShare(scaled, share, copied)
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
func (q *query) spendShare(scaled *rule.Rule, share float64, copied bool) (ans wire.Response, spent bool) {
	n, r, part, m := q.node, q.rule, q.part, &q.message
	spent = n.table.UnlessDeciding(part, n.now(), func(p *store.Partition) {
		if copied {
			n.seedShare(p, scaled, part, rule.BucketKey{Key: m.Key, Limiter: r.ID}, share)
		}
		ans = q.decideShare(scaled)
		if m.Kind != wire.KindPeek && ans.Decision.Allowed {
			n.reporter.Note(part, r, m.Key, m.Cost)
		}
	})
	return ans, spent
}

// seedShare makes the bucket that is about to decide by a share start with that share of what the copy says was taken. The
// copy is p, which is locked.
func (n *Node) seedShare(p *store.Partition, scaled *rule.Rule, part uint16, id rule.BucketKey, share float64) {
	now := n.now()
	if copied, there := p.StateOf(id, now); there {
		n.alone.InsertShare(part, id, scaled.Set, &copied, share, now)
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
	if share > 0 && !math.IsInf(share, 1) {
		n := l.node
		scaled := r.Scaled(share)
		n.alone.Exhaust(part, rule.BucketKey{Key: key, Limiter: r.ID}, scaled.Set, n.now())
	}
}

// share returns the part of r's limits that this node may give out for key, to as many members as are sharing it.
//
// A share of a small limit can be less than one token, which would let nothing through anywhere. Then only as many
// members as there are whole tokens have a bucket at all, the ones that come first for this key, with a token each; the
// others deny. All members that know the same members choose the same ones.
func (n *Node) share(policy fallback.Policy, r *rule.Rule, key string, sharing int) float64 {
	view := n.membership.View()
	share := policy(fallback.Reach{Known: view.Divisor, Reachable: n.reach.Reachable(n.now()), Sharing: sharing})
	if !(share > 0) || share >= 1 {
		return share
	}
	all := share / float64(sharing) * float64(view.Divisor) // of the limit, given out by all members together
	holders := math.Max(1, math.Floor(r.Set.SmallestBurst()*all))
	if holders >= float64(view.Divisor) {
		return share
	}
	if len(view.Members) < view.Divisor {
		return 0 // some are expected and have not been seen: no node can tell which members come first
	}
	rank := ring.NewRank(n.identity, key)
	for i := range view.Members {
		if rank.Beside(view.Members[i].Name); float64(rank.Before()) >= holders {
			return 0 // most members find that after a few names: this is on the way of every denial from afar
		}
	}
	return all / holders
}

// shareCanceller takes back a reservation that a share made.
type shareCanceller struct {
	localCanceller
	rule *rule.Rule // under the whole limit: what is reported
	cost float64
}

func (c shareCanceller) cancel(m wire.Message) {
	n := c.node
	if exact, _ := c.table.Cancel(c.part, rule.BucketKey{Key: m.Key, Limiter: c.rule.ID}, *m.Undo, n.now()); exact {
		n.reporter.Unrecord(c.part, c.rule, m.Key, c.cost)
	}
}
