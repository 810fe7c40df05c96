package peerlimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
	"github.com/peerlimit/peerlimit/internal/rule"
)

// Taking from several limiters at once: a user's limit, the tenant's and that of everyone. Their keys have different
// owners, so this is no transaction: it takes from one after the other, and gives back when one denies.

// ErrInvalidRequest means that [TakeAll] was given no request, one without a limiter, or two for the same bucket.
var ErrInvalidRequest = errors.New("peerlimit: invalid request")

// Request is one of the takes that [TakeAll] makes together.
type Request struct {
	// Limiter is whose bucket to take from. Nil is refused with an error that matches [ErrInvalidRequest].
	Limiter *Limiter

	// Key is 1 to 1,024 bytes of anything, as for [Limiter.Take].
	Key string

	// Cost is the number of tokens to take: positive and finite. Zero is refused, as by [Limiter.Take].
	Cost float64
}

// giveBackTimeout bounds how long TakeAll gives tokens back after its caller's context has ended: longer than the way
// to an owner takes at the default RPC timeout, the way by its standby included.
const giveBackTimeout = time.Second

// TakeAll takes from all of the requests' buckets or from none. The decision is the strictest: of those that allowed the one
// with the least Remaining, with the longest Delay of all; otherwise the denial with the longest RetryAfter, whose limiter
// [Decision.Denied] names.
//
// What this node knows to be denied, because it decides about the key or remembers a denial, is denied at once: nothing is taken
// and no other node is asked, so an attack stays cheap and is felt by nobody else. Otherwise it takes in the order of the
// requests. So put first what is most likely to deny and concerns the fewest: the user before the tenant, and that before
// everyone. How long the buckets behind the one that denied would have to be waited for is asked without taking from them.
//
// When one denies, or fails, what was taken before is refunded, also when ctx has ended, for which the call then takes up to a
// second longer. It counts neither as allowed nor as denied in [Stats]. A refund that does not reach the owner is lost, as
// with [Limiter.Refund].
//
// Until the refund those tokens are missing. A take at the same moment can be denied because of a call that comes to
// nothing, and its node can remember that for a quarter of a second. Two calls that want the last tokens of the same
// buckets in different orders can deny each other; in the same order one of them gets all. And a bucket that would have
// been full in the meantime is not, so that it gains what it earns while the call is under way, some milliseconds' worth,
// on top of the limit.
//
// Errors match [ErrInvalidRequest] or are those of [Limiter.Take], and name the request by its index, counted from 0.
// Everything that can be seen to be wrong is refused before anything is taken.
func TakeAll(ctx context.Context, requests ...Request) (Decision, error) {
	rules, err := checkAll(ctx, requests)
	if err != nil {
		return Decision{}, err
	}
	if d, denied := knownDenial(requests, rules); denied {
		return d, nil
	}
	var room [4]limit.Decision
	taken := room[:0]
	for i, r := range requests {
		d, err := r.take(ctx)
		if err != nil {
			giveBack(ctx, requests[:i])
			return Decision{}, fmt.Errorf("request %d: %w", i, err)
		}
		if !d.Allowed {
			r.Limiter.decided(r.Key, r.Cost, &d)
			giveBack(ctx, requests[:i])
			return longestDenial(ctx, r.Limiter.told(&d), requests[i+1:]), nil
		}
		taken = append(taken, d)
	}
	return strictest(requests, taken), nil
}

// take is Take for this request, but counts nothing: it may be given back.
func (r Request) take(ctx context.Context) (d limit.Decision, err error) {
	rule, err := r.check(ctx) // again: what a LimiterFunc returns may have changed
	if err != nil {
		return d, err
	}
	err = r.Limiter.take(ctx, &d, rule, r.Key, r.Cost)
	return d, err
}

// check returns what is to be enforced, or the error that Take would fail with, if that can be seen without taking.
func (r Request) check(ctx context.Context) (*rule.Rule, error) {
	if r.Limiter == nil {
		return nil, fmt.Errorf("%w: Limiter is nil", ErrInvalidRequest)
	}
	rule, err := r.Limiter.prepare(ctx, r.Key)
	if err != nil {
		return nil, err
	}
	return rule, checkSingleCost(rule.Set, r.Cost)
}

// sameBucket reports whether two requests are about one bucket: of the same name and key, on the same node.
func (r Request) sameBucket(other Request) bool {
	return r.Key == other.Key && r.Limiter.name == other.Limiter.name && r.Limiter.node == other.Limiter.node
}

// checkAll checks the requests and returns what is to be enforced for each.
func checkAll(ctx context.Context, requests []Request) ([]*rule.Rule, error) {
	if len(requests) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrInvalidRequest)
	}
	rules := make([]*rule.Rule, len(requests))
	for i, r := range requests {
		rule, err := r.check(ctx)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		rules[i] = rule
		if first := slices.IndexFunc(requests[:i], r.sameBucket); first >= 0 {
			return nil, fmt.Errorf("request %d: %w: limiter %q and key are those of request %d", i, ErrInvalidRequest, r.Limiter.name, first)
		}
	}
	return rules, nil
}

// knownDenial returns of the denials that are known without asking the one with the longest RetryAfter, and counts it.
func knownDenial(requests []Request, rules []*rule.Rule) (Decision, bool) {
	var longest limit.Decision
	by := -1
	for i, r := range requests {
		if d, denies := r.Limiter.denies(rules[i], r.Key, r.Cost); denies && (by < 0 || d.RetryAfter > longest.RetryAfter) {
			longest, by = d, i
		}
	}
	if by < 0 {
		return Decision{}, false
	}
	r := requests[by]
	r.Limiter.decided(r.Key, r.Cost, &longest)
	return r.Limiter.told(&longest), true
}

// giveBack refunds requests, all at the same time: until then their tokens are missing.
func giveBack(ctx context.Context, taken []Request) {
	if len(taken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	var refunds sync.WaitGroup
	for _, r := range taken {
		refunds.Go(func() {
			_ = r.Limiter.Refund(ctx, r.Key, r.Cost) // what is lost is counted in Stats.LostRefunds
		})
	}
	refunds.Wait()
}

// strictest counts the decisions of requests that are all allowed, and returns the one with the least left.
func strictest(requests []Request, taken []limit.Decision) (least Decision) {
	for i, r := range requests {
		r.Limiter.decided(r.Key, r.Cost, &taken[i])
		d := decisionOf(&taken[i])
		if i == 0 {
			least = d
			continue
		}
		least = stricter(least, d)
	}
	return least
}

// stricter returns of two decisions that allowed the one with less left, with the longer delay.
func stricter(a, b Decision) Decision {
	delay := max(a.Delay, b.Delay)
	if b.Remaining < a.Remaining {
		a = b
	}
	a.Delay = delay
	return a
}

// longestDenial returns denied, or what one of the rest would deny with if that takes longer.
func longestDenial(ctx context.Context, denied Decision, rest []Request) Decision {
	if denied.Origin == OriginDenialCache {
		return denied
	}
	for _, r := range rest {
		d, err := r.Limiter.Peek(ctx, r.Key)
		if err != nil {
			continue // a denial is at hand: that is the answer
		}
		if wait := limit.WaitFor(r.Cost, &limit.Decision{
			Allowed: d.Allowed, Limit: d.Limit.core(), Remaining: d.Remaining, RetryAfter: d.RetryAfter,
		}); wait > denied.RetryAfter {
			d.Allowed, d.RetryAfter, d.Denied = false, wait, r.Limiter.name
			denied = d
		}
	}
	return denied
}
