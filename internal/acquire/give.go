package acquire

import (
	"errors"

	"github.com/peerlimit/peerlimit/internal/wire"
)

// Answering nodes that acquire. A node answers every request at once, partition by partition; what it gives it has
// stopped deciding about before the answer leaves.

// Answer answers a request, for as many partitions as fit. The members that the asker knows count here before the response, which
// names in turn the members that this node knows [NamesInRequests].
//
// A round of a ballot that nobody can have counted to is refused: what is promised to it could never be outbid.
func (k *Keeper) Answer(from string, q *wire.AcquireRequest) (*wire.AcquireResponse, error) {
	if q.Ballot.By == "" || !k.reach.Hear(q.Ballot.Number) {
		return nil, errUncountable
	}
	if from == q.Ballot.By {
		k.others.Met(from)
	} else { // it came through another member, which is that one's word
		k.others.MergeNames(from, []string{q.Ballot.By}, nil)
	}
	k.others.MergeNames(q.Ballot.By, q.Known, q.Lost)
	k.reach.Check(k.now())
	ans := &wire.AcquireResponse{}
	budget, changed := k.answerBytes, false
	for _, asked := range q.Parts {
		if budget <= 0 {
			break
		}
		a, size, gave := k.answerPart(&asked, q.Ballot, budget)
		budget -= size
		changed = changed || gave
		ans.Parts = append(ans.Parts, a)
	}
	ans.Heard = k.reach.Heard.Load()
	ans.Known, ans.Lost = k.others.Told()
	if changed {
		k.Announce()
		k.others.HoldingChanged()
	}
	return ans, nil
}

// errUncountable is why a request is refused.
var errUncountable = errors.New("peerlimit: a ballot that no member has come to by counting")

// answerPart answers for one partition; size is about how long the answer is. gave says that this node held until now.
func (k *Keeper) answerPart(asked *wire.AskedPartition, round wire.Ballot, budget int) (a wire.PartitionReply, size int, gave bool) {
	if k.table.Holds(asked.Part) {
		k.debts.ChargeOwn(asked.Part) // so that there is little left of it to do with the lock held
	}
	p := k.table.Lock(asked.Part)
	defer p.Unlock()
	h, now := &p.Holding, k.now()
	held, tried, given := h.Holds, h.Attempt != nil, h.Transfer.To != ""
	if held && p.Decides(now) {
		k.debts.ChargeAll(asked.Part, p, now)
	}
	a = h.Answer(round, k.reach.IsFull(now))
	a.Part = asked.Part
	gave = held && !h.Holds
	if gave || tried && h.Attempt == nil || given && h.Transfer.To == "" {
		k.Postpone(asked.Part) // where the ring still names this node, it acquires again, but not at once
	}
	size = 32
	if a.Kind == wire.ReplyNotHolding && asked.From == 0 {
		var more int
		a.Debts, more = k.debts.Pending(asked.Part, budget)
		size += more
	}
	if a.Kind == wire.ReplyTransferred || a.Kind == wire.ReplyNotHolding && asked.Have.Below(a.Version) {
		size += p.AddCopy(&a, asked.From, budget, now)
	}
	return a, size, gave
}
