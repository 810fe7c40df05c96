package peerlimit

import (
	"context"
	"errors"
	"github.com/peerlimit/peerlimit/internal/limit"
	"strings"
)

// handle answers a message from another node. It runs on the connection's own goroutine and so must not wait: what has to
// be passed on, or takes long, is answered later.
func (n *Node) handle(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
	if len(request) > 0 && messageKind(request[0]) >= kindPing {
		return n.handleControl(from, request, response)
	}
	m, err := decodeMessage(request)
	if err != nil {
		return n.refuse(response, from, err), nil
	}
	r, err := n.rules.find(m.rule)
	if err != nil {
		return n.refuse(response, from, err), nil
	}
	if m.kind == kindTake || m.kind == kindReserve {
		if err := checkSingleCost(r.set, m.cost); err != nil {
			return n.refuse(response, from, err), nil
		}
	}
	part := r.hash.Partition(m.key)
	if n.table.isInWork(part) { // what comes after this on the connection is not to wait
		return nil, n.answerLater(from, r, part, m)
	}
	if ans, ok := n.table.answer(r, part, &m, n.now()); ok {
		n.counters.served.Add(1)
		return appendAnswer(response, &ans), nil
	}
	return nil, n.answerLater(from, r, part, m)
}

// answerLater returns what answers a question about a key that this node does not hold, or whose partition is in work. It is
// a function of its own so that only such a question has to live on the heap.
func (n *Node) answerLater(from string, r *rule, part uint16, m message) func(context.Context) []byte {
	m.rule, m.key = r.encoded, strings.Clone(m.key) // the request's buffer is reused
	return func(ctx context.Context) []byte {
		if ans, ok := n.table.answer(r, part, &m, n.now()); ok {
			n.counters.served.Add(1)
			return appendAnswer(nil, &ans)
		}
		ans := n.answerElsewhere(ctx, from, r, part, &m)
		return appendAnswer(nil, &ans)
	}
}

// answerElsewhere answers another node's question about a key that this node does not hold.
func (n *Node) answerElsewhere(ctx context.Context, from string, r *rule, part uint16, m *message) answer {
	var rep reply
	var err error
	// The caller waits for one RPC timeout. It is better told before that nobody was found.
	patience := n.settings.RPCTimeout * 3 / 4
	if m.toStandby {
		rep, err = n.decideAsStandby(ctx, r, part, m, from, patience)
	} else {
		n.counters.passedOn.Add(1)
		rep, err = n.seek(ctx, r, part, m, from, patience)
	}
	switch {
	case err == nil:
		return rep.answer
	case errors.Is(err, errNoEvidence):
		if copied, _ := n.hasCopy(part); copied {
			ans := n.decideByShare(n.settings.Fallback, r, part, m).answer
			ans.undo = nil // a cancellation would go to the holder; what a share has granted others stays spent
			return ans
		}
		return answer{status: statusNoEvidence} // the caller's own share is as good as this node's
	}
	return answer{status: statusElsewhere}
}

// answer does what m asks of a bucket of this table, and reports whether this node decides about it.
func (t *table) answer(r *rule, part uint16, m *message, now int64) (a answer, ok bool) {
	id := bucketKey{m.key, r.id}
	a.status = statusDecided
	switch m.kind {
	case kindTake:
		a.decision, a.grant, ok = t.decideLending(part, id, &limit.Request{Set: r.set, Cost: m.cost}, &m.borrow, now)
	case kindReserve:
		turn := limit.Request{Set: r.set, Cost: m.cost, Total: m.total, Reserve: true, MaxDelay: min(m.maxDelay, t.longestTurn)}
		a.decision, a.undo, ok = t.reserve(part, id, &turn, now)
	case kindPeek:
		a.decision, ok = t.peek(part, id, r.set, now)
	case kindCancel:
		a.status = statusDone
		_, ok = t.cancel(part, id, *m.undo, now)
	case kindRefund:
		a.status, ok = statusDone, t.refund(part, id, r.set, m.cost, now)
	case kindReset:
		a.status, ok = statusDone, t.reset(part, id, now)
	case kindReturn:
		a.status, ok = statusDone, t.giveBack(part, id, m.borrow.returned, now)
	default:
		return answer{status: statusRefused}, true
	}
	return a, ok
}
