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
	mu    sync.Mutex
	state limit.State
	line  limit.Line // of those that wait

	// resets counts them: within one reading of the clock a bucket that was reset can come to look as it did before, and a
	// reservation made before must not be undone in it.
	resets uint64
}

// NewBucket returns a bucket of 1 to 8 limits. An error matches [ErrInvalidLimit].
func NewBucket(limits ...Limit) (*Bucket, error) {
	if err := validateLimits(limits); err != nil {
		return nil, err
	}
	set := limit.NewSet(coreLimits(nil, limits))
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
// instalments of the burst; it returns after the last. It fails immediately, having spent nothing, with an error that matches
// [ErrLimited] when the turn of the last instalment would come after the deadline of ctx if nobody left the queue, or when a
// leaky bucket is full. When 65,536 wait already, the error matches [ErrQueueFull] as well. When ctx ends while waiting it
// returns ctx.Err(), and those behind move up: nothing is spent for a turn that has not come. What earlier instalments took stays
// spent, also when others came in between and the next would be too late. An invalid cost matches [ErrInvalidCost]; one of more
// instalments than can be counted matches [ErrExceedsBurst].
func (b *Bucket) WaitN(ctx context.Context, cost float64) error {
	return waitInTurn(ctx, b.set, cost, foreverWait, func(w turnWanted) error {
		_, err := b.await(ctx, w)
		return err
	})
}

// Await is WaitN for a cost that a single take can have, and returns what was decided when the turn came; a denial is an
// error. Other errors are those of Reserve.
func (b *Bucket) Await(ctx context.Context, cost float64) (Decision, error) {
	if err := checkSingleCost(b.set, cost); err != nil {
		return Decision{}, err
	}
	if err := ctx.Err(); err != nil {
		return Decision{}, err
	}
	return b.await(ctx, turnOf(ctx, cost, foreverWait))
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
	now := b.now()
	b.line.Serve(&b.state, now) // turns that have come before
	b.state.Refund(b.set, cost, now)
	b.line.Wake(&b.state, nil)
	return nil
}

// Reset makes the bucket full of tokens, as new. Reservations keep their turns; to cancel them gives nothing back.
func (b *Bucket) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Reset(b.now())
	b.resets++
	b.line.Wake(&b.state, nil)
}

// foreverWait bounds waits that only their context bounds: a hundred years.
const foreverWait = 100 * 365 * 24 * time.Hour

func (b *Bucket) reserve(cost, total float64, maxDelay time.Duration) (*Reservation, error) {
	a := limit.Request{Set: b.set, Cost: cost, Total: total, Reserve: true, MaxDelay: maxDelay}
	b.mu.Lock()
	now := b.now()
	b.line.Serve(&b.state, now)
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
				now := b.now()
				b.line.Serve(&b.state, now) // turns that have come before
				b.state.CancelReserved(*u, now)
				b.line.Wake(&b.state, nil)
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
		return fmt.Errorf("%w: cost %v, burst %v: raise the burst, split the cost, or use WaitN", ErrExceedsBurst, cost, set.SmallestBurst())
	}
	return nil
}

// await waits for one turn.
func (b *Bucket) await(ctx context.Context, w turnWanted) (Decision, error) {
	a := limit.Request{Set: b.set, Cost: w.cost, Total: w.total, Reserve: true, MaxDelay: max(0, time.Until(w.end))}
	b.mu.Lock()
	turn, woken, d := b.line.Join(&b.state, &a, b.now())
	b.mu.Unlock()
	if turn.Full {
		return Decision{}, queueFull(decisionOf(&d))
	}
	if !d.Allowed {
		return Decision{}, decisionOf(&d).Err()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		b.mu.Lock()
		due, first, granted := b.line.Look(&b.state, turn, b.now())
		b.mu.Unlock()
		if granted {
			return decisionOf(&turn.Decision), nil
		}
		var sooner <-chan time.Time
		if first {
			timer.Reset(due)
			sooner = timer.C
		}
		select {
		case <-sooner:
		case <-woken:
		case <-ctx.Done():
			b.mu.Lock()
			granted = b.line.Leave(&b.state, turn, b.now())
			b.mu.Unlock()
			if granted {
				return decisionOf(&turn.Decision), nil // both came together: the turn has come
			}
			return Decision{}, ctx.Err()
		}
	}
}
