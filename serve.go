package peerlimit

import (
	"context"
	"errors"
	"strings"

	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// server answers what other members ask of a node.
type server struct{ node *Node }

// handle answers a message from another node. It runs on the connection's own goroutine and so must not wait: what has to
// be passed on, or takes long, is answered later.
func (s server) handle(from string, request, response []byte) (reply []byte, later func(context.Context) []byte) {
	n := s.node
	if len(request) > 0 && wire.Kind(request[0]) >= wire.KindPing {
		return s.handleControl(from, request, response)
	}
	m, err := wire.DecodeMessage(request)
	if err != nil {
		return s.refuse(response, from, err), nil
	}
	r, err := n.rules.Find(m.Rule)
	if err != nil {
		return s.refuse(response, from, err), nil
	}
	switch m.Kind {
	case wire.KindTake, wire.KindReserve, wire.KindAwait:
		if err := checkSingleCost(r.Set, m.Cost); err != nil {
			return s.refuse(response, from, err), nil
		}
	}
	part := r.Hash.Partition(m.Key)
	if n.table.IsInWork(part) { // what comes after this on the connection is not to wait
		return nil, s.answerLater(from, r, part, m)
	}
	if ans, ok := s.answer(r, part, &m); ok {
		return wire.AppendResponse(response, &ans), nil
	}
	return nil, s.answerLater(from, r, part, m)
}

// answer answers a request about a key that this node holds, and reports false when it does not.
func (s server) answer(r *rule.Rule, part uint16, m *wire.Message) (ans wire.Response, ok bool) {
	n := s.node
	ans, ok = n.table.Answer(r, part, m, n.now())
	n.others.noteUnmet(m, &ans)
	if ok {
		n.counters.served.Add(1)
	}
	return ans, ok
}

// answerLater returns what answers a request about a key that this node does not hold, or whose partition is in work. It is
// a function of its own so that only such a request has to live on the heap.
func (s server) answerLater(from string, r *rule.Rule, part uint16, m wire.Message) func(context.Context) []byte {
	n := s.node
	m.Rule, m.Key = r.Encoded, strings.Clone(m.Key) // the request's buffer is reused
	arrived := n.now()
	return func(ctx context.Context) []byte {
		q := &query{node: n, rule: r, part: part, message: m, began: n.now(), aged: arrived}
		q.age()
		if ans, ok := s.answer(r, part, &q.message); ok {
			return wire.AppendResponse(nil, &ans)
		}
		ans := q.answerElsewhere(ctx, from)
		return wire.AppendResponse(nil, &ans)
	}
}

// answerElsewhere answers another node's request about a key that this node does not hold.
func (q *query) answerElsewhere(ctx context.Context, from string) wire.Response {
	n, part, m := q.node, q.part, &q.message
	var rep reply
	var err error
	// The caller waits for one RPC timeout. It is better told before that nobody was found.
	patience := n.settings.RPCTimeout * 3 / 4
	if m.ToStandby {
		rep, err = q.decideAsStandby(ctx, from, patience)
	} else {
		n.counters.passedOn.Add(1)
		rep, err = q.seek(ctx, from, patience)
	}
	switch {
	case err == nil:
		return rep.Response
	case errors.Is(err, errNoQuorum):
		if copied, _ := n.table.HasCopy(part); copied && !m.InFull {
			ans := q.decideByShare(n.settings.Fallback).Response
			ans.Undo = nil // a cancellation would go to the holder; what a share has granted others stays spent
			return ans
		}
		return wire.Response{Status: wire.StatusNoQuorum} // the caller's own share is as good as this node's
	}
	return wire.Response{Status: wire.StatusElsewhere}
}
