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
	aged    int64 // since when its turn, if it asks for one, has not grown older
}

// with returns the same query with another message.
func (q *query) with(m *wire.Message) *query {
	other := *q
	other.message = *m
	return &other
}

// age has a query that asks for a turn say how long it has looked for the holder: others that came later may have found it before.
func (q *query) age() {
	if q.message.Kind == wire.KindAwait {
		now := q.node.now()
		q.message.Turn.Late += time.Duration(now - q.aged)
		q.aged = now
	}
}

// here answers a query from this node's own table, and reports false when this node does not decide about its key.
func (q *query) here() (reply, bool) {
	n := q.node
	q.age()
	ans, ok := n.table.Answer(q.rule, q.part, &q.message, n.now())
	if !ok {
		return reply{}, false
	}
	n.others.noteUnmet(&q.message, &ans)
	return reply{ans, localCanceller{n.table, q.rule, q.part, n}}, true
}

// reply is a response and the node that gave it.
type reply struct {
	wire.Response
	at canceller
}

// canceller takes a reservation back where it was made, or leaves the queue there.
type canceller interface {
	cancel(m wire.Message)
	inReach() bool // whether what was reserved or queued there still means something, as far as is known
}

// ask asks the nodes that may decide about a key that this node does not hold: the owner, which passes the request on to the
// holder if that is another; when it cannot be reached its standby; and when neither can, this node decides alone. A share
// decides because members have failed, never because the caller is in a hurry: a context that ends first is answered with
// its error, and the tokens may have been spent.
func (l *Limiter) ask(ctx context.Context, q *query) (reply, error) {
	n, m := l.node, &q.message
	if !n.reach.IsFull(q.began) { // the last holder has the share of all in its reach: another member's would come on top
		_, m.InFull = n.table.HasCopy(q.part)
	}
	rep, owner, err := q.askHolder(ctx, q.began, n.settings.RPCTimeout)
	var cause error // why it was not the owner that answered
	if err != nil && ended(ctx) == nil {
		instead, insteadErr := q.askInstead(ctx, l, err)
		nobodyFailed := errors.Is(err, errElsewhere) || errors.Is(err, transport.ErrTimeout) && insteadErr == errNoStandby
		switch {
		case insteadErr == nil:
			rep, cause, err = instead, err, nil
		case nobodyFailed && ended(ctx) == nil:
			rep, owner, err = q.askAgain(ctx, owner, err)
		}
	}
	if err == nil {
		n.others.noteAnswer(owner, &rep, cause)
		if m.Kind == wire.KindTake && !rep.Decision.Allowed {
			l.rememberDenial(q.rule, q.part, m.Key)
		}
		return rep, nil
	}
	if ctxErr := ended(ctx); ctxErr != nil {
		if m.Kind == wire.KindRefund {
			n.counters.lostRefunds.Add(1) // as far as is known
		}
		return reply{}, ctxErr
	}
	if n.closed.Load() {
		return reply{}, ErrClosed
	}
	return l.decideAlone(q, owner, err)
}

// askInstead asks those that may decide because the owner has not, for that cause.
func (q *query) askInstead(ctx context.Context, l *Limiter, cause error) (reply, error) {
	if neverSent(cause) {
		if rep, err := q.askPrevious(ctx, q.node.settings.RPCTimeout); err == nil {
			return rep, nil
		}
	}
	return q.askStandby(ctx, l, cause, q.patience(ctx))
}

// askAgain is for when no member has failed: the partition is on its way from one node to another, and the take will be decided
// in full when it has arrived. Or the owner is slow and has no standby in reach: then the standby's time is for the
// previous owner, which may still hold, and for the owner. If the owner has spent the tokens already they are spent twice,
// the safe side. When there is no time left, owner and cause are returned as they came.
func (q *query) askAgain(ctx context.Context, owner *peer, cause error) (reply, *peer, error) {
	n := q.node
	patience := n.settings.RPCTimeout
	if !errors.Is(cause, errElsewhere) {
		patience = q.patience(ctx)
	}
	if rep, err := q.askPrevious(ctx, patience); err == nil {
		return rep, nil, nil
	}
	now := n.now()
	left := 2*n.settings.RPCTimeout - time.Duration(now-q.began)
	if !errors.Is(cause, errElsewhere) {
		left = min(left, q.patience(ctx))
	}
	if left <= 0 {
		return reply{}, owner, cause
	}
	rep, owner, err := q.askHolder(ctx, now, left)
	return rep, owner, err
}

// ended returns why a context is of no use any more, or nil. Its timer can be later than its deadline.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, has := ctx.Deadline(); has && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// localCanceller takes back a reservation that a table of this node made.
type localCanceller struct {
	table *store.Table
	rule  *rule.Rule
	part  uint16
	node  *Node
}

func (c localCanceller) cancel(m wire.Message) { c.table.Answer(c.rule, c.part, &m, c.node.now()) }

func (c localCanceller) inReach() bool { return true }

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

func (c remoteCanceller) inReach() bool { return !c.node.others.cutOff(c.owner) }

// cancellerAtOwner takes back what the owner of a key may have been asked for, which has not been answered.
func cancellerAtOwner(n *Node, r *rule.Rule, key string) canceller {
	part := r.Hash.Partition(key)
	if owner := n.route.Load().owner(part); owner != nil {
		return remoteCanceller{n, owner}
	}
	return localCanceller{n.table, r, part, n}
}
