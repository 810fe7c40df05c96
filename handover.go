package peerlimit

import (
	"errors"
	"github.com/peerlimit/peerlimit/internal/membership"
	"github.com/peerlimit/peerlimit/internal/wire"
	"time"
)

// Answering those who acquire. A node answers every question at once, partition by partition; what it gives it has
// stopped deciding about before the answer leaves.

const (
	// answerBuckets bounds the buckets of one partition in one answer: so many are taken in with its lock held.
	answerBuckets = 2048

	// freezeTime is how long a copy that is being sent in pieces stays as it is. It is many times what an asker needs to
	// ask for the next piece.
	freezeTime = 5 * time.Second
)

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
	if n.table.holds(asked.Part) {
		n.chargeOwn(asked.Part) // so that there is little left of it to do with the lock held
	}
	p := &n.table.partitions[asked.Part]
	p.mu.Lock()
	defer p.release()
	h, now := &p.holding, n.now()
	held, tried, given := h.Holds, h.Attempt != nil, h.Transfer.To != ""
	if held && n.table.decides(p, now) {
		n.chargeAll(asked.Part, p, now)
	}
	a = h.Answer(round, n.reach.IsFull(now))
	a.Part = asked.Part
	n.table.noteHolding(asked.Part, p)
	if gave = held && !h.Holds; gave {
		p.forgetChanges()
	}
	if gave || tried && h.Attempt == nil || given && h.Transfer.To == "" {
		n.keeper.postpone(asked.Part) // where the ring still names this node, it acquires again, but not at once
	}
	size = 32
	if a.Kind == wire.ReplyNotHolding && asked.From == 0 {
		var more int
		a.Debts, more = n.reporter.reports(asked.Part, budget)
		size += more
	}
	if a.Kind == wire.ReplyTransferred || a.Kind == wire.ReplyNotHolding && asked.Have.Below(a.Version) {
		size += n.addCopy(p, &a, asked.From, budget, now)
	}
	return a, size, gave
}

// addCopy adds the copy that this node has to an answer, as much of it as budget allows, from a place on, and returns about
// how long that is. What is not held does not change, so it can be read in steps. If something becomes of it even so, the
// asker is told that there is more: it asks on, and hears of another version. The caller holds p.mu, and does again
// afterwards.
func (n *Node) addCopy(p *partition, a *wire.PartitionReply, from uint32, budget int, now int64) (size int) {
	copied := p.holding.Copy
	c := newCollector(n.table, n.rules, budget, now)
	for reporter, seq := range p.holding.DebtMarks {
		c.content.Marks = append(c.content.Marks, wire.DebtMark{Member: reporter, Seq: seq})
	}
	a.Next = c.step(p, from)
	for a.Next != 0 && !c.full {
		p.frozenUntil = now + int64(freezeTime)
		p.giveWay()
		if p.holding.Holds || p.holding.Copy != copied {
			break
		}
		a.Next = c.step(p, a.Next)
	}
	if a.Next != 0 {
		p.frozenUntil = now + int64(freezeTime)
	}
	a.Content = c.content
	for i := range a.Content.Buckets {
		size += 32 + len(a.Content.Buckets[i].Key)
	}
	return size
}

// replace makes an arrival the whole of a partition: a copy that was acquired, or a replica. The caller holds p.mu.
func (t *table) replace(p *partition, a *arrival) {
	t.exchange(p, a.buckets)
	p.holding.SetMarks(a.marks)
}

// markChanged has a partition looked at for the standby, whether or not something was decided. The caller holds its mu.
func (t *table) markChanged(part uint16) {
	t.changed[part/64].Or(1 << (part % 64))
}
