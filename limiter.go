package peerlimit

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/striped"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Limiter enforces limits on keys across the cluster: all nodes that have a limiter of this name share its buckets. Get
// one from [Node.Limiter] or [Node.LimiterFunc]; it is safe for concurrent use and works as long as its node.
//
// A key is 1 to 1,024 bytes of anything. Every call returns an answer within two RPC timeouts: when the node that
// decides about the key cannot be reached, the fallback policy decides here (see [Decision.Origin]). An error means that
// the call was wrong, that its context had ended, or that the node is closed; being denied is not an error.
//
// A context that ends before there is an answer is answered with its error. It never makes the fallback policy decide: to
// find out that a member has failed takes up to one RPC timeout, so a deadline should be longer than that.
//
// A call whose request was sent but not answered in time may have spent its tokens at the owner. That is the safe side.
type Limiter struct {
	*namedLimiter
	policy    fallback.Policy
	ownPolicy bool // given by WithFallback: other nodes do not know it
}

// namedLimiter is what all limiters of a name have in common. The node finds it as long as somebody holds one of them, and
// for some time after; see Node.limiters.
type namedLimiter struct {
	node   *Node
	name   string
	rule   *rule.Rule                                    // of static limits
	limits func(ctx context.Context, key string) []Limit // otherwise
	counts striped.Decisions
	plain  Limiter // the one without a policy of its own: who holds it refers to all of this
}

// Allow takes one token and reports whether it could; false also for a call that is wrong.
func (l *Limiter) Allow(ctx context.Context, key string) bool { return l.AllowN(ctx, key, 1) }

// AllowN takes cost tokens and reports whether it could; false also for a call that is wrong.
func (l *Limiter) AllowN(ctx context.Context, key string, cost float64) bool {
	d, err := l.Take(ctx, key, cost)
	return err == nil && d.Allowed
}

// Take takes cost tokens from key's bucket if they can be had now, from all of its limits or from none. Errors match
// [ErrInvalidKey], [ErrInvalidCost], [ErrExceedsBurst], [ErrInvalidLimit] (from a LimiterFunc), [ErrClosed] or ctx.Err().
func (l *Limiter) Take(ctx context.Context, key string, cost float64) (decision Decision, err error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return decision, err
	}
	if err := checkSingleCost(r.Set, cost); err != nil {
		return decision, err
	}
	var d limit.Decision
	if err := l.take(ctx, &d, r, key, cost); err != nil {
		return decision, err
	}
	l.decided(key, cost, &d)
	l.tell(&decision, &d)
	return decision, nil
}

// take is Take of a cost that can pass, and counts nothing.
func (l *Limiter) take(ctx context.Context, d *limit.Decision, r *rule.Rule, key string, cost float64) error {
	n := l.node
	part, id, now := r.Hash.Partition(key), r.Bucket(key), n.now()
	if n.table.Decide(d, part, id, &limit.Request{Set: r.Set, Cost: cost}, now) || n.hot.Take(id, r.Set, cost, now, d) {
		return nil
	}
	return l.takeElsewhere(ctx, d, r, part, key, cost, now)
}

// takeElsewhere is take for a key that this node does not decide about. It is a function of its own so that other takes need
// no room for what it asks and hears.
func (l *Limiter) takeElsewhere(
	ctx context.Context, d *limit.Decision, r *rule.Rule, part uint16, key string, cost float64, now int64,
) error {
	n, id := l.node, r.Bucket(key)
	q := &query{node: n, rule: r, part: part, message: wire.Message{Kind: wire.KindTake, Rule: r.Encoded, Key: key, Cost: cost}, began: now}
	m := &q.message
	hot := n.hot.Asking(id, r, part, m, now)
	rep, err := l.ask(ctx, q)
	n.hot.Answered(hot, m, r, &rep.Response, err, now, n.now)
	*d = rep.Decision
	return err
}

// denies returns the denial of a take, if this node knows without asking that it would be denied: because it decides about the
// key, or remembers a denial that stands. Nothing is taken.
func (l *Limiter) denies(r *rule.Rule, key string, cost float64) (d limit.Decision, denies bool) {
	n := l.node
	id, now := r.Bucket(key), n.now()
	if d, denies = n.table.Denies(r.Hash.Partition(key), id, &limit.Request{Set: r.Set, Cost: cost}, now); denies {
		return d, true
	}
	return n.hot.Denies(id, r.Set, cost, now)
}

// told returns a decision of this limiter as callers get it.
func (l *Limiter) told(d *limit.Decision) (decision Decision) {
	l.tell(&decision, d)
	return decision
}

// tell stores a decision of this limiter as callers get it in one that was zero.
func (l *Limiter) tell(decision *Decision, d *limit.Decision) {
	decision.setTo(d)
	if !d.Allowed {
		decision.Denied = l.name
	}
}

// Peek tells how key's bucket stands and takes nothing: Allowed says whether one token, or the burst where that is less,
// could be taken now. Errors are those of Take.
func (l *Limiter) Peek(ctx context.Context, key string) (Decision, error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return Decision{}, err
	}
	ans, err := l.send(ctx, r, &wire.Message{Kind: wire.KindPeek, Rule: r.Encoded, Key: key})
	if err != nil {
		return Decision{}, err
	}
	return l.told(&ans.Decision), nil
}

// Wait is WaitN with a cost of one token, or of the burst where that is less than one.
func (l *Limiter) Wait(ctx context.Context, key string) error {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return err
	}
	return l.wait(ctx, r, key, math.Min(1, r.Set.SmallestBurst()))
}

// WaitN takes cost tokens and returns when it is their turn, first come, first served across the cluster. A cost above
// the burst is taken in instalments of the burst; it returns after the last. It fails immediately, having spent nothing, with
// an error that matches [ErrLimited] when the turn would come after the deadline of ctx, or later than Config.MaxWait, if nobody
// left the queue, or when a leaky bucket is full. When too many wait already, the error matches [ErrQueueFull] as well. It fails
// immediately with an error that matches [ErrExceedsMaxWait] when not even a full bucket could give as much within
// Config.MaxWait.
//
// When ctx ends while waiting, it returns ctx.Err(), and those behind move up: nothing is spent for a turn that has not come.
// What earlier instalments took stays spent. While the holder of the key cannot be reached it waits for a turn of this node's
// share, and for the holder: until the deadline of ctx, or until Config.MaxWait with an error that matches [ErrLimited]. Other
// errors are those of Take.
func (l *Limiter) WaitN(ctx context.Context, key string, cost float64) error {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return err
	}
	return l.wait(ctx, r, key, cost)
}

func (l *Limiter) wait(ctx context.Context, r *rule.Rule, key string, cost float64) error {
	return waitInTurn(ctx, r.Set, cost, l.node.settings.MaxWait, func(w turnWanted) error {
		_, err := l.await(ctx, r, key, w)
		return err
	})
}

// Await is WaitN for a cost that a single take can have, and returns what was decided when the turn came, or the denial that
// the error tells of. Other errors are those of WaitN.
func (l *Limiter) Await(ctx context.Context, key string, cost float64) (Decision, error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return Decision{}, err
	}
	if err := checkSingleCost(r.Set, cost); err != nil {
		return Decision{}, err
	}
	return l.await(ctx, r, key, turnOf(ctx, cost, l.node.settings.MaxWait))
}

// Reserve takes cost tokens now or for later, and says how long to wait before acting on it: at most until the deadline
// of ctx, and at most Config.MaxWait; otherwise the error matches [ErrLimited] and nothing is spent. Other errors are
// those of Take.
func (l *Limiter) Reserve(ctx context.Context, key string, cost float64) (*Reservation, error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := checkSingleCost(r.Set, cost); err != nil {
		return nil, err
	}
	maxDelay := l.node.settings.MaxWait
	if deadline, ok := ctx.Deadline(); ok {
		maxDelay = max(0, min(maxDelay, time.Until(deadline)))
	}
	return l.reserve(ctx, r, key, cost, cost, maxDelay)
}

func (l *Limiter) reserve(ctx context.Context, r *rule.Rule, key string, cost, total float64, maxDelay time.Duration) (*Reservation, error) {
	ans, err := l.send(ctx, r, &wire.Message{
		Kind: wire.KindReserve, Rule: r.Encoded, Key: key, Cost: cost, Total: total, MaxDelay: maxDelay,
	})
	if err != nil {
		return nil, err
	}
	if !ans.Decision.Allowed {
		return nil, l.told(&ans.Decision).Err()
	}
	reservation := &Reservation{due: time.Now().Add(ans.Decision.Delay), decision: decisionOf(&ans.Decision)}
	if ans.Undo != nil {
		reservation.cancel = func() {
			ans.at.cancel(wire.Message{Kind: wire.KindCancel, Rule: r.Encoded, Key: key, Undo: ans.Undo})
		}
	}
	return reservation, nil
}

// Refund gives cost tokens back, for work that was not done after all. The bucket never holds more than its burst. It is
// sent at most once: a refund that does not reach the owner is lost, which is the safe side, and counted in
// Stats.LostRefunds. Errors match [ErrInvalidKey], [ErrInvalidCost], [ErrInvalidLimit], [ErrClosed] or ctx.Err().
func (l *Limiter) Refund(ctx context.Context, key string, cost float64) error {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return err
	}
	if err := validateCost(cost); err != nil {
		return err
	}
	_, err = l.send(ctx, r, &wire.Message{Kind: wire.KindRefund, Rule: r.Encoded, Key: key, Cost: cost})
	return err
}

// Reset makes key's bucket full of tokens. When its owner cannot be reached the error matches [ErrUnreachable]: the
// bucket may or may not have been reset. Other errors are those of Refund.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return err
	}
	_, err = l.send(ctx, r, &wire.Message{Kind: wire.KindReset, Rule: r.Encoded, Key: key})
	return err
}

// Owner returns the member that decides about key, as far as this node knows.
func (l *Limiter) Owner(key string) Member {
	hash := ring.NewHasher(l.name)
	return l.node.memberFor(hash.Partition(key))
}

// Placement is where the buckets of a key are.
type Placement struct {
	Partition int // of 4,093, from 0; keys of a partition are always with the same member

	// Owner decides, as far as this node knows.
	Owner Member

	// Standbys keep a replica, in the order in which they own the partition once those before them have gone. It is empty
	// when there is no other member.
	Standbys []Member
}

// Placement returns where the buckets of key are, as far as this node knows. It asks nobody.
func (l *Limiter) Placement(key string) Placement {
	hash := ring.NewHasher(l.name)
	part := hash.Partition(key)
	route := l.node.route.Load()
	p := Placement{Partition: int(part), Owner: l.node.memberOf(route.owner(part))}
	if standby, ok := route.standby(part); ok {
		p.Standbys = []Member{l.node.memberOf(standby)}
	}
	return p
}

// WithFallback returns a limiter on the same buckets with another fallback policy. Nil means [fallback.Divided].
func (l *Limiter) WithFallback(p fallback.Policy) *Limiter {
	if p == nil {
		p = fallback.Divided
	}
	other := *l
	other.policy, other.ownPolicy = p, true
	return &other
}

// prepare refuses calls that are wrong or come too late, and finds the rule to enforce.
func (l *Limiter) prepare(ctx context.Context, key string) (*rule.Rule, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.node.closed.Load() {
		return nil, ErrClosed
	}
	if err := validateKey(key); err != nil {
		return nil, err
	}
	if l.rule != nil {
		return l.rule, nil
	}
	var room [MaxLimits]limit.Limit
	var buf [wire.MaxRuleLen]byte
	given := l.limits(ctx, key)
	if len(given) == 0 || len(given) > MaxLimits {
		return nil, wrongLimits(l.name, key, given)
	}
	encoded := wire.AppendRule(buf[:0], l.name, coreLimits(room[:0], given))
	if r := l.node.rules.Lookup(encoded); r != nil && !slices.ContainsFunc(given, func(l Limit) bool { return !l.usable() }) {
		return r, nil
	}
	if err := wrongLimits(l.name, key, given); err != nil {
		return nil, err
	}
	return l.node.rules.Find(encoded)
}

// wrongLimits returns what is wrong with the limits that a limiter's function gave a key, or nil.
func wrongLimits(name, key string, limits []Limit) error {
	if problem := problemOf(limits); problem != "" {
		return fmt.Errorf("%w: limiter %q, key %q: %s", ErrInvalidLimit, name, key, problem)
	}
	return nil
}

// send sends a request the way of every take: to this node's own table when it holds the key, otherwise to the holder,
// and to the fallback when that cannot be reached.
func (l *Limiter) send(ctx context.Context, r *rule.Rule, m *wire.Message) (reply, error) {
	n := l.node
	part := r.Hash.Partition(m.Key)
	switch m.Kind {
	case wire.KindReset:
		n.alone.Reset(part, r.Bucket(m.Key), n.now())
		defer n.hot.Forget(r.Bucket(m.Key))
	case wire.KindRefund:
		defer n.hot.Forget(r.Bucket(m.Key))
	}
	now := n.now()
	if ans, ok := n.table.Answer(r, part, m, now); ok {
		l.answered(m, &ans)
		return reply{ans, localCanceller{n.table, r, part, n}}, nil
	}
	rep, err := l.ask(ctx, &query{node: n, rule: r, part: part, message: *m, began: now, aged: now})
	if err == nil {
		l.answered(m, &rep.Response)
	}
	return rep, err
}
