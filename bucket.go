package peerlimit

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Bucket enforces one or more limits within one process, with no node and no network: for a client that paces itself, or
// a tool that runs once. A take must pass all of its limits or takes from none. It starts full of tokens. Make one with
// [NewBucket]; it is safe for concurrent use and needs no closing.
type Bucket struct {
	set  *limit.Set
	base time.Time // the monotonic clock counts from here

	// mu guards the fields below and is held for a few dozen instructions only, never across a sleep.
	mu     sync.Mutex
	state  limit.State
	undone limit.Cancelled

	// resets counts them: within one reading of the clock a bucket that was reset can come to look as it did before, and a
	// reservation made before must not be undone in it.
	resets uint64
}

// NewBucket returns a bucket of 1 to 8 limits. An error matches [ErrInvalidLimit].
func NewBucket(limits ...Limit) (*Bucket, error) {
	inner := coreLimits(nil, limits)
	if err := validateLimits(inner); err != nil {
		return nil, err
	}
	set := limit.NewSet(inner)
	return &Bucket{set: set, base: time.Now(), state: limit.NewState(set, 0)}, nil
}

// Allow takes one token if it can be had now and reports whether it could.
func (b *Bucket) Allow() bool { return b.AllowN(1) }

// AllowN takes cost tokens if they can be had now and reports whether they could. It is false for a cost that is not
// valid or can never pass.
func (b *Bucket) AllowN(cost float64) bool {
	if !limit.ValidCost(cost) || !b.set.Fits(cost) {
		return false
	}
	a := limit.Request{Set: b.set, Cost: cost}
	b.mu.Lock()
	d := b.state.Decide(&a, b.now())
	b.mu.Unlock()
	return d.Allowed
}

// Take takes cost tokens if they can be had now. An error matches [ErrInvalidCost] or [ErrExceedsBurst]; a denial is not
// an error.
func (b *Bucket) Take(cost float64) (Decision, error) {
	if err := checkSingleCost(b.set, cost); err != nil {
		return Decision{}, err
	}
	a := limit.Request{Set: b.set, Cost: cost}
	b.mu.Lock()
	d := b.state.Decide(&a, b.now())
	b.mu.Unlock()
	return decisionOf(&d), nil
}

// Peek tells how the bucket stands and takes nothing: Allowed says whether one token, or the burst where that is less,
// could be taken now.
func (b *Bucket) Peek() Decision {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.state.Peek(b.set, b.now())
	return decisionOf(&d)
}

// Wait is WaitN with a cost of one token, or of the burst where that is less than one.
func (b *Bucket) Wait(ctx context.Context) error {
	return b.WaitN(ctx, math.Min(1, b.set.SmallestBurst()))
}

// WaitN takes cost tokens and returns when it is their turn, first come, first served. A cost above the burst is taken in
// instalments of the burst; it returns after the last. When the turn, or that of the last instalment, would come after the
// deadline of ctx, or a leaky bucket is full, it fails at once with an error that matches [ErrLimited] and has spent
// nothing. When ctx ends while waiting it returns ctx.Err() and gives back the instalment it waited for as
// [Reservation.Cancel] does. What earlier instalments took stays spent, also when others came in between and the next
// would be too late. An invalid cost matches [ErrInvalidCost]; one of more instalments than can be counted matches
// [ErrExceedsBurst].
func (b *Bucket) WaitN(ctx context.Context, cost float64) error {
	return waitInTurn(ctx, b.set, cost, foreverWait, func(_ context.Context, part, total float64, maxDelay time.Duration) (*Reservation, error) {
		return b.reserve(part, total, maxDelay)
	})
}

// Reserve takes cost tokens now or for later and says how long to wait before acting on it, up to a hundred years. An
// error matches [ErrInvalidCost], [ErrExceedsBurst], or [ErrLimited] when a leaky bucket is full.
func (b *Bucket) Reserve(cost float64) (*Reservation, error) {
	if err := checkSingleCost(b.set, cost); err != nil {
		return nil, err
	}
	return b.reserve(cost, cost, foreverWait)
}

// Refund gives cost tokens back, for work that was not done after all. The bucket never holds more than its burst. An
// error matches [ErrInvalidCost].
func (b *Bucket) Refund(cost float64) error {
	if err := validateCost(cost); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Refund(b.set, cost, b.now())
	return nil
}

// Reset makes the bucket full of tokens, as new. Reservations keep their turns; to cancel them gives nothing back.
func (b *Bucket) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.undone = limit.NewState(b.set, b.now()), limit.Cancelled{}
	b.resets++
}

// foreverWait bounds waits that only their context bounds: a hundred years.
const foreverWait = 100 * 365 * 24 * time.Hour

func (b *Bucket) reserve(cost, total float64, maxDelay time.Duration) (*Reservation, error) {
	a := limit.Request{Set: b.set, Cost: cost, Total: total, Reserve: true, MaxDelay: maxDelay}
	b.mu.Lock()
	now := b.now()
	d, u := b.state.Reserve(&a, now)
	resets := b.resets
	b.mu.Unlock()
	if !d.Allowed {
		return nil, decisionOf(&d).Err()
	}
	r := &Reservation{due: b.base.Add(time.Duration(now) + d.Delay), decision: decisionOf(&d)}
	if u != nil {
		r.cancel = func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.resets == resets {
				b.undone.Cancel(&b.state, *u, b.now())
			}
		}
	}
	return r, nil
}

// now is the bucket's clock: nanoseconds on the monotonic clock since it was made.
func (b *Bucket) now() int64 { return int64(time.Since(b.base)) }

// checkSingleCost refuses a cost that is invalid or can never pass in one take.
func checkSingleCost(set *limit.Set, cost float64) error {
	if err := validateCost(cost); err != nil {
		return err
	}
	if !set.Fits(cost) {
		return fmt.Errorf("%w: cost %v, burst %v", ErrExceedsBurst, cost, set.SmallestBurst())
	}
	return nil
}
