package peerlimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
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
// with the least Remaining, with the longest Delay of all; otherwise the denial with the longest RetryAfter. How long the
// buckets behind the one that denied would have to be waited for is asked without taking from them; when the denial is one
// that this node remembers ([OriginDenialCache]) nobody is asked, so that an attack stays cheap.
//
// It takes in the order of the limiters' names and then of the keys, whatever the order of the requests: of two calls at
// the same time that want the last tokens of the same buckets one gets them, rather than each a part that it has to give
// back. When one denies, or fails, what was taken before is refunded, also when ctx has ended, for which the call then
// takes up to a second longer. A refund that does not reach the owner is lost, as with [Limiter.Refund].
//
// Until the refund those tokens are missing. A take at the same moment can be denied because of a call that comes to
// nothing, and its node can remember that for a quarter of a second. And a bucket that would have been full in the meantime
// is not, so that it gains what it earns while the call is under way, some milliseconds' worth, on top of the limit.
//
// Errors match [ErrInvalidRequest] or are those of [Limiter.Take], and name the request by its index, counted from 0.
// Everything that can be seen to be wrong is refused before anything is taken.
func TakeAll(ctx context.Context, requests ...Request) (Decision, error) {
	order, err := takingOrder(ctx, requests)
	if err != nil {
		return Decision{}, err
	}
	var strictest Decision
	for n, i := range order {
		d, err := requests[i].take(ctx)
		if err != nil || !d.Allowed {
			giveBack(ctx, requests, order[:n])
		}
		switch {
		case err != nil:
			return Decision{}, fmt.Errorf("request %d: %w", i, err)
		case !d.Allowed:
			return longestDenial(ctx, d, requests, order[n+1:]), nil
		case n == 0:
			strictest = d
		default:
			strictest = stricter(strictest, d)
		}
	}
	return strictest, nil
}

// take is Take for this request.
func (r Request) take(ctx context.Context) (Decision, error) {
	return r.Limiter.Take(ctx, r.Key, r.Cost)
}

// check returns the error that Take would fail with, if that can be seen without taking.
func (r Request) check(ctx context.Context) error {
	if r.Limiter == nil {
		return fmt.Errorf("%w: Limiter is nil", ErrInvalidRequest)
	}
	rule, err := r.Limiter.prepare(ctx, r.Key)
	if err != nil {
		return err
	}
	return checkSingleCost(rule.Set, r.Cost)
}

// compare orders requests by their buckets. It is 0 for the same bucket: of the same name and key, on the same node.
func (r Request) compare(other Request) int {
	return cmp.Or(
		cmp.Compare(r.Limiter.name, other.Limiter.name),
		cmp.Compare(r.Key, other.Key),
		cmp.Compare(r.Limiter.node.identity, other.Limiter.node.identity),
	)
}

// takingOrder checks the requests and returns their indexes in the order in which to take.
func takingOrder(ctx context.Context, requests []Request) ([]int, error) {
	if len(requests) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrInvalidRequest)
	}
	order := make([]int, len(requests))
	for i, r := range requests {
		if err := r.check(ctx); err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return requests[a].compare(requests[b]) })
	for n := 1; n < len(order); n++ {
		first, again := order[n-1], order[n]
		if r := requests[again]; r.compare(requests[first]) == 0 {
			return nil, fmt.Errorf("request %d: %w: limiter %q and key are those of request %d", again, ErrInvalidRequest, r.Limiter.name, first)
		}
	}
	return order, nil
}

// GiveBack refunds the requests with these indexes, all at the same time: until then their tokens are missing.
func giveBack(ctx context.Context, requests []Request, taken []int) {
	if len(taken) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	var refunds sync.WaitGroup
	for _, i := range taken {
		r := requests[i]
		refunds.Go(func() {
			_ = r.Limiter.Refund(ctx, r.Key, r.Cost) // what is lost is counted in Stats.LostRefunds
		})
	}
	refunds.Wait()
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
func longestDenial(ctx context.Context, denied Decision, requests []Request, rest []int) Decision {
	if denied.Origin == OriginDenialCache {
		return denied
	}
	for _, i := range rest {
		r := requests[i]
		d, err := r.Limiter.Peek(ctx, r.Key)
		if err != nil {
			continue // a denial is at hand: that is the answer
		}
		if wait := limit.WaitFor(r.Cost, &limit.Decision{
			Allowed: d.Allowed, Limit: d.Limit.core(), Remaining: d.Remaining, RetryAfter: d.RetryAfter,
		}); wait > denied.RetryAfter {
			d.Allowed, d.RetryAfter = false, wait
			denied = d
		}
	}
	return denied
}
