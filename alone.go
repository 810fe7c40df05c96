package peerlimit

import (
	"fmt"
	"math"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
)

// Deciding alone. A node that cannot reach a key's owner decides from a bucket of its own, with the share of the limit
// that the fallback policy grants: by default 1 of as many as are known, so that all members together stay within the
// limit even when every one of them is cut off from every other. Such buckets live in a table apart from those that this
// node holds for the cluster. They are not reset when the owner returns: an owner that comes and goes would hand out
// their burst each time.

// decideAlone answers m without its holder: owner could not be reached because of cause. It is nil when it is this node, which
// does not hold.
func (l *Limiter) decideAlone(r *rule, part uint16, m *message, owner *peer, cause error) (reply, error) {
	n := l.node
	switch m.kind {
	case kindRefund:
		n.counters.lostRefunds.Add(1)
		return reply{}, nil
	case kindReset:
		return reply{}, fmt.Errorf("%w: %w", ErrUnreachable, cause)
	}
	rep := n.decideByShare(l.policy, r, part, m)
	n.noteAnswer(owner, &rep, cause)
	l.answered(m, &rep.answer)
	return rep, nil
}

// decideByShare answers m from this node's bucket of the share that the policy grants it.
func (n *Node) decideByShare(policy fallback.Policy, r *rule, part uint16, m *message) reply {
	origin, sharing := limit.OriginFallback, 1
	copied, wasHolder := n.hasCopy(part)
	if copied {
		origin = limit.OriginStandby
	}
	if wasHolder { // all in its reach ask it
		sharing = n.reach.reachable(n.now())
	}
	switch m.kind {
	case kindRefund, kindReset, kindCancel, kindReturn:
		return reply{answer: answer{status: statusElsewhere}} // these change what only the holder has
	}
	rep := reply{answer: answer{status: statusDecided}}
	switch share := n.share(policy, r, m.key, sharing); {
	case math.IsInf(share, 1):
		rep.decision = r.set.Unlimited()
	case !(share > 0):
		rep.decision = r.set.Refusal(m.cost)
	default:
		scaled := r.scaled(share)
		ans, spent := n.spendShare(scaled, r, part, m, share, copied)
		if !spent {
			if ans, ok := n.table.answer(r, part, m, n.now()); ok {
				return reply{ans, localCanceller{n.table, r, part, n}}
			}
			return n.decideByShare(policy, r, part, m) // it holds no more: that was as short as can be
		}
		rep = reply{ans, shareCanceller{localCanceller{n.alone, scaled, part, n}, r, m.cost}}
	}
	rep.decision.Origin = origin
	return rep
}

// spendShare answers m from the bucket of a share and notes what it spends, unless this node has come to hold the partition
// meanwhile. All of that is one step to whoever begins to hold and charges what was noted: what is noted a moment later
// would be charged later than the first take.
func (n *Node) spendShare(scaled, r *rule, part uint16, m *message, share float64, copied bool) (ans answer, spent bool) {
	p := &n.table.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.table.decides(p, n.now()) {
		return answer{}, false
	}
	if copied {
		n.seedShare(p, scaled, part, bucketKey{m.key, r.id}, share)
	}
	ans = n.decideShare(scaled, r, part, m)
	if m.kind != kindPeek && ans.decision.Allowed {
		n.reporter.note(part, r, m.key, m.cost)
	}
	return ans, true
}

// hasCopy reports whether this node has a copy of a partition, and whether it held it until its evidence lapsed.
func (n *Node) hasCopy(part uint16) (copied, wasHolder bool) {
	p := &n.table.partitions[part]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holding.copy != version{}, p.holding.lapsed
}

// seedShare makes the bucket that is about to decide by a share start with that share of what the copy says was taken. The
// caller holds p.mu, p being the copy.
func (n *Node) seedShare(p *partition, scaled *rule, part uint16, id bucketKey, share float64) {
	now := n.now()
	b := p.buckets.find(id.hash(n.table.seed), id)
	if b == nil {
		return
	}
	out := n.table.leased(b, now)
	copied := b.Clone()
	copied.Advance(now)
	copied.AddToAll(out.Tokens) // they may be used
	n.alone.insertShare(part, id, scaled.set, &copied, share, now)
}

// decideShare answers m from this node's bucket of a share of r.
func (n *Node) decideShare(scaled, r *rule, part uint16, m *message) answer {
	if m.kind != kindPeek && !scaled.set.Fits(m.cost) {
		return answer{status: statusDecided, decision: r.set.Refusal(m.cost)}
	}
	ans, _ := n.alone.answer(scaled, part, m, n.now())
	for i, l := range scaled.set.Limits { // the caller knows its limits by their whole numbers
		if l == ans.decision.Limit {
			ans.decision.Limit = r.set.Limits[i]
			break
		}
	}
	return ans
}

// rememberDenial makes the bucket that this node would decide from alone start empty: the owner has just said that
// there is nothing left.
func (l *Limiter) rememberDenial(r *rule, part uint16, key string) {
	share := l.node.share(l.policy, r, key, 1)
	if share > 0 && !math.IsInf(share, 1) {
		n := l.node
		scaled := r.scaled(share)
		n.alone.exhaust(part, bucketKey{key, r.id}, scaled.set, n.now())
	}
}

// share returns the part of r's limits that this node may give out for key, to as many members as are sharing it.
//
// A share of a small limit can be less than one token, which would let nothing through anywhere. Then only as many
// members as there are whole tokens have a bucket at all, the ones that come first for this key, with a token each; the
// others deny. All members that know the same members choose the same ones.
func (n *Node) share(policy fallback.Policy, r *rule, key string, sharing int) float64 {
	view := n.membership.view()
	share := policy(fallback.Reach{Known: view.known, Reachable: n.reach.reachable(n.now()), Sharing: sharing})
	if !(share > 0) || share >= 1 {
		return share
	}
	all := share / float64(sharing) * float64(view.known) // of the limit, given out by all members together
	holders := math.Max(1, math.Floor(r.set.SmallestBurst()*all))
	if holders >= float64(view.known) {
		return share
	}
	if len(view.members) < view.known {
		return 0 // some are expected and have not been seen: there is no telling who comes first
	}
	rank := ring.NewRank(n.identity, key)
	for i := range view.members {
		if rank.Beside(view.members[i].Name); float64(rank.Before()) >= holders {
			return 0 // most members find that after a few names: this is on the way of every denial from afar
		}
	}
	return all / holders
}
