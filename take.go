package peerlimit

import (
	"context"
	"errors"
	"time"

	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/store"
	"github.com/peerlimit/peerlimit/internal/wire"
	"github.com/peerlimit/peerlimit/transport"
)

// The ways of a take. What this node holds it decides at once, see [Limiter.Take]. Everything else is a query, and goes the
// ways that ask lists, one after the other: the owner; the previous owner; the standbys; and when no member
// can be reached, this node alone, by its share.

// query is one request about one key, on its way to the node that decides about it.
type query struct {
	node    *Node
	rule    *rule.Rule
	part    uint16
	message wire.Message // by value: what a canceller keeps of a query would move a message that is pointed to onto the heap
	began   int64
}

// with returns the same query with another message.
func (q *query) with(m *wire.Message) *query {
	other := *q
	other.message = *m
	return &other
}

// here answers a query from this node's own table, and reports false when this node does not decide about its key.
func (q *query) here() (reply, bool) {
	n := q.node
	ans, ok := n.table.Answer(q.rule, q.part, &q.message, n.now())
	if !ok {
		return reply{}, false
	}
	return reply{ans, localCanceller{n.table, q.rule, q.part, n}}, true
}

// reply is a response and the node that gave it.
type reply struct {
	wire.Response
	at canceller
}

// canceller takes a reservation back where it was made.
type canceller interface{ cancel(m wire.Message) }

// ask asks the nodes that may decide about a key that this node does not hold: the owner, which passes the request on to the
// holder if that is another; when it cannot be reached its standby; and when neither can, this node decides alone.
func (l *Limiter) ask(ctx context.Context, q *query) (reply, error) {
	r, part, m, began := q.rule, q.part, &q.message, q.began
	n := l.node
	patience := n.others.patience(ctx)
	rep, owner, err := q.askHolder(ctx, began, patience)
	var cause error // why it was not the owner that answered
	again := errors.Is(err, errElsewhere)
	if err != nil && ctx.Err() == nil {
		if neverSent(err) {
			if earlier, previousErr := q.askPrevious(ctx, patience); previousErr == nil {
				l.answered(m, &earlier.Response)
				return earlier, nil
			}
		}
		standbysReply, standbysErr := q.askStandby(ctx, l, err, n.others.patience(ctx))
		if standbysErr == nil {
			rep, cause, err = standbysReply, err, nil
		}
		again = again || errors.Is(err, transport.ErrTimeout) && standbysErr == errNoStandby
	}
	if err != nil && again && ctx.Err() == nil {
		// Nobody failed: it is on its way from one node to another, and will be decided in full when it has arrived. Or the owner
		// is slow and has no standby in reach: then the standby's time is for the previous owner, which may still hold, and for
		// the owner. If the owner has spent the tokens already they are spent twice, the safe side.
		if earlier, previousErr := q.askPrevious(ctx, patience); previousErr == nil {
			l.answered(m, &earlier.Response)
			return earlier, nil
		}
		now := n.now()
		if left := n.others.patience(ctx) + patience - time.Duration(now-began); left > 0 {
			rep, owner, err = q.askHolder(ctx, now, left)
		}
	}
	switch {
	case err == nil:
		n.others.noteAnswer(owner, &rep, cause)
		if m.Kind == wire.KindTake && !rep.Decision.Allowed {
			l.rememberDenial(r, part, m.Key)
		}
		l.answered(m, &rep.Response)
		return rep, nil
	case ctx.Err() == context.Canceled:
		return reply{}, ctx.Err()
	case n.closed.Load():
		return reply{}, ErrClosed
	}
	return l.decideAlone(q, owner, err)
}

// localCanceller takes back a reservation that a table of this node made.
type localCanceller struct {
	table *store.Table
	rule  *rule.Rule
	part  uint16
	node  *Node
}

func (c localCanceller) cancel(m wire.Message) { c.table.Answer(c.rule, c.part, &m, c.node.now()) }

// remoteCanceller takes back a reservation that another node made: by one message, sent at most once.
type remoteCanceller struct {
	node  *Node
	owner *peer
}

func (c remoteCanceller) cancel(m wire.Message) {
	request := wire.AppendMessage(nil, &m)
	if err := c.node.client.Post(c.owner.Peer, request); err != nil {
		c.node.counters.lostRefunds.Add(1)
	}
}
