package peerlimit

import (
	"errors"
	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Answering those who acquire. A node answers every question at once, partition by partition; what it gives it has
// stopped deciding about before the answer leaves.

// onQuestion answers a question, for as many partitions as fit. Whom the asker knows counts here before the answer, which
// says in turn whom this node knows [KnownInQuestions].
//
// A round of an election that nobody can have counted to is refused: what is promised to it could never be outbid.
func (n *Node) onQuestion(from string, q *wire.AcquireRequest) (*wire.AcquireResponse, error) {
	if q.Ballot.By == "" || !n.reach.Hear(q.Ballot.Number) {
		return nil, errUncountable
	}
	if from == q.Ballot.By {
		n.addHeardFrom(from)
	} else { // it came through another member, which is that one's word
		n.mergeNames(&membership.Word{Teller: from, Names: []string{q.Ballot.By}})
	}
	n.mergeNames(&membership.Word{Teller: q.Ballot.By, Names: q.Known, Hearsay: q.Hearsay})
	n.reach.Check(n.now())
	ans := &wire.AcquireResponse{}
	budget, changed := n.settings.pieces.answer, false
	for _, asked := range q.Parts {
		if budget <= 0 {
			break
		}
		a, size, gave := n.answerPart(&asked, q.Ballot, budget)
		budget -= size
		changed = changed || gave
		ans.Parts = append(ans.Parts, a)
	}
	known := n.membership.Roster()
	ans.Heard, ans.Known, ans.Hearsay = n.reach.Heard.Load(), known.Told, known.Hearsay
	if changed {
		n.keeper.announce()
		n.holdingChanged()
	}
	return ans, nil
}

// errUncountable is why a question is refused.
var errUncountable = errors.New("peerlimit: an election that no member has come to by counting")

// answerPart answers for one partition; size is about how long the answer is. gave says that this node held until now.
func (n *Node) answerPart(asked *wire.AskedPartition, round wire.Ballot, budget int) (a wire.PartitionReply, size int, gave bool) {
	if n.table.Holds(asked.Part) {
		n.reporter.ChargeOwn(asked.Part) // so that there is little left of it to do with the lock held
	}
	p := n.table.Lock(asked.Part)
	defer p.Unlock()
	h, now := &p.Holding, n.now()
	held, tried, given := h.Holds, h.Attempt != nil, h.Transfer.To != ""
	if held && p.Decides(now) {
		n.reporter.ChargeAll(asked.Part, p, now)
	}
	a = h.Answer(round, n.reach.IsFull(now))
	a.Part = asked.Part
	gave = held && !h.Holds
	if gave || tried && h.Attempt == nil || given && h.Transfer.To == "" {
		n.keeper.postpone(asked.Part) // where the ring still names this node, it acquires again, but not at once
	}
	size = 32
	if a.Kind == wire.ReplyNotHolding && asked.From == 0 {
		var more int
		a.Debts, more = n.reporter.Pending(asked.Part, budget)
		size += more
	}
	if a.Kind == wire.ReplyTransferred || a.Kind == wire.ReplyNotHolding && asked.Have.Below(a.Version) {
		size += p.AddCopy(&a, asked.From, n.rules, budget, now)
	}
	return a, size, gave
}
