package peerlimit

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/peerlimit/peerlimit/fallback"
	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/ring"
	"github.com/peerlimit/peerlimit/internal/rule"
	"github.com/peerlimit/peerlimit/internal/wire"
)

// Limiter enforces limits on keys across the cluster: all nodes that have a limiter of this name share its buckets. Get
// one from [Node.Limiter] or [Node.LimiterFunc]; it is safe for concurrent use and lives as long as its node.
//
// A key is 1 to 1,024 bytes of anything. Every call returns an answer within two RPC timeouts: when the node that
// decides about the key cannot be reached, the fallback policy decides here (see [Decision.Origin]). An error means that
// the call was wrong, that its context had ended, or that the node is closed; being denied is not an error.
//
// A call whose question was sent but not answered in time may have spent its tokens at the owner. That is the safe side.
type Limiter struct {
	node      *Node
	name      string
	rule      *rule.Rule                                    // of static limits
	limits    func(ctx context.Context, key string) []Limit // otherwise
	policy    fallback.Policy
	ownPolicy bool            // given by WithFallback: other nodes do not know it
	counts    *decisionCounts // shared by all with this name
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
func (l *Limiter) Take(ctx context.Context, key string, cost float64) (Decision, error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return Decision{}, err
	}
	if err := checkSingleCost(r.Set, cost); err != nil {
		return Decision{}, err
	}
	n := l.node
	part, id, now := r.Hash.Partition(key), rule.BucketKey{Key: key, Limiter: r.ID}, n.now()
	d, ok := n.table.Decide(part, id, &limit.Request{Set: r.Set, Cost: cost}, now)
	if !ok {
		ok = n.hot.Take(id, r.Set, cost, now, &d)
	}
	if ok {
		l.decided(key, cost, &d)
		return decisionOf(&d), nil
	}
	q := &query{node: n, rule: r, part: part, message: wire.Message{Kind: wire.KindTake, Rule: r.Encoded, Key: key, Cost: cost}, began: now}
	m := &q.message
	hot := n.hot.Asking(id, r, part, m, now)
	rep, err := l.ask(ctx, q)
	n.hot.Answered(hot, m, r, &rep.Response, err, now, n.now)
	return decisionOf(&rep.Decision), err
}

// Peek tells how key's bucket stands and takes nothing: Allowed says whether one token, or the burst where that is less,
// could be taken now. Errors are those of Take.
func (l *Limiter) Peek(ctx context.Context, key string) (Decision, error) {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return Decision{}, err
	}
	ans, err := l.send(ctx, r, &wire.Message{Kind: wire.KindPeek, Rule: r.Encoded, Key: key})
	return decisionOf(&ans.Decision), err
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
// the burst is taken in instalments of the burst; it returns after the last. It fails at once, having spent nothing, with
// an error that matches [ErrLimited] when the turn would come after the deadline of ctx or later than Config.MaxWait, or
// when a leaky bucket is full. When ctx ends while waiting, it returns ctx.Err() and gives back the instalment it waited
// for, as [Reservation.Cancel] does; what earlier instalments took stays spent. Other errors are those of Take.
func (l *Limiter) WaitN(ctx context.Context, key string, cost float64) error {
	r, err := l.prepare(ctx, key)
	if err != nil {
		return err
	}
	return l.wait(ctx, r, key, cost)
}

func (l *Limiter) wait(ctx context.Context, r *rule.Rule, key string, cost float64) error {
	return waitInTurn(ctx, r.Set, cost, l.node.settings.MaxWait,
		func(ctx context.Context, part, total float64, maxDelay time.Duration) (*Reservation, error) {
			return l.reserve(ctx, r, key, part, total, maxDelay)
		})
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
		return nil, decisionOf(&ans.Decision).Err()
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
	limits := coreLimits(room[:0], l.limits(ctx, key))
	var buf [wire.MaxRuleLen]byte
	if len(limits) == 0 || len(limits) > MaxLimits {
		return nil, validateLimits(limits)
	}
	encoded := wire.AppendRule(buf[:0], l.name, limits)
	if r := l.node.rules.Lookup(encoded); r != nil {
		return r, nil
	}
	if err := validateLimits(limits); err != nil {
		return nil, fmt.Errorf("limiter %q: %w", l.name, err)
	}
	return l.node.rules.Find(encoded)
}

// send sends a question the way of every take: to this node's own table when it holds the key, otherwise to the holder,
// and to the fallback when that cannot be reached.
func (l *Limiter) send(ctx context.Context, r *rule.Rule, m *wire.Message) (reply, error) {
	n := l.node
	part := r.Hash.Partition(m.Key)
	switch m.Kind {
	case wire.KindReset:
		n.alone.Reset(part, rule.BucketKey{Key: m.Key, Limiter: r.ID}, n.now())
		defer n.hot.Forget(rule.BucketKey{Key: m.Key, Limiter: r.ID})
	case wire.KindRefund:
		defer n.hot.Forget(rule.BucketKey{Key: m.Key, Limiter: r.ID})
	}
	now := n.now()
	if ans, ok := n.table.Answer(r, part, m, now); ok {
		l.answered(m, &ans)
		return reply{ans, localCanceller{n.table, r, part, n}}, nil
	}
	return l.ask(ctx, &query{node: n, rule: r, part: part, message: *m, began: now})
}
