package peerlimit

import (
	"context"
	"log/slog"
)

// handle answers a question from another node. It runs on the connection's own goroutine and so must not wait: a
// question that this node has to pass on is answered later.
func (n *Node) handle(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
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
	part := r.hash.partition(m.key)
	owner := n.route.Load().owner(part)
	if owner == nil || m.passedOn {
		// A question that was passed on is decided here even when this node would send it elsewhere: two nodes whose
		// views of the ring differ must not send it to and fro.
		ans := n.table.answer(r, part, &m, n.now())
		n.counters.served.Add(1)
		return appendAnswer(response, &ans), nil
	}
	m.passedOn = true
	passed := appendMessage(nil, &m) // a copy: the request's buffer is reused
	return nil, func(ctx context.Context) []byte { return n.passOn(ctx, owner, passed) }
}

// passOn sends a question to the node that owns its key, and returns that node's answer as it is.
func (n *Node) passOn(ctx context.Context, owner *peer, request []byte) []byte {
	n.counters.passedOn.Add(1)
	response, err := n.client.Call(ctx, owner.Peer, request, n.settings.RPCTimeout/2)
	if err != nil {
		return appendAnswer(nil, &answer{status: statusRefused})
	}
	return response
}

// refuse answers a message that makes no sense, and logs why. Keys do not appear in the log.
func (n *Node) refuse(response []byte, from string, err error) []byte {
	n.counters.refused.Add(1)
	n.log.Debug("refused a request", slog.String("from", from), slog.Any("error", err))
	return appendAnswer(response, &answer{status: statusRefused})
}

// answer does what m asks of a bucket of this table.
func (t *table) answer(r *rule, part uint16, m *message, now int64) answer {
	id := bucketKey{m.key, r.id}
	switch m.kind {
	case kindTake:
		a := ask{set: r.set, cost: m.cost}
		return answer{status: statusDecided, decision: t.decide(part, id, &a, now)}
	case kindReserve:
		a := ask{set: r.set, cost: m.cost, total: m.total, reserve: true, maxDelay: m.maxDelay}
		d, u := t.reserve(part, id, &a, now)
		return answer{status: statusDecided, decision: d, undo: u}
	case kindPeek:
		return answer{status: statusDecided, decision: t.peek(part, id, r.set, now)}
	case kindCancel:
		t.cancel(part, id, *m.undo, now)
	case kindRefund:
		t.refund(part, id, r.set, m.cost, now)
	case kindReset:
		t.reset(part, id, now)
	default:
		return answer{status: statusRefused}
	}
	return answer{status: statusDone}
}
