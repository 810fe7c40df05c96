package peerlimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/internal/limit"
)

// Waiting. A wait is a reservation and a timer: the bucket says once how long the turn takes to come, having already
// counted the tokens, and a caller that asks later is told a later turn. First come, first served follows from that
// arithmetic; there is no queue and no polling.

// Reservation is a take that was granted for later. It is spent unless Cancel is called. It is safe for concurrent use.
type Reservation struct {
	due      time.Time
	decision Decision

	// cancel gives the tokens back; nil when there is nothing to give back.
	cancel    func()
	cancelled atomic.Bool
}

// Delay returns how long to wait from now until the reservation may be acted upon; 0 when it may be acted upon now.
func (r *Reservation) Delay() time.Duration { return max(0, time.Until(r.due)) }

// Decision returns what was decided when the reservation was made; its Delay is as of that moment.
func (r *Reservation) Decision() Decision { return r.decision }

// Cancel says that the reservation will not be used. Its tokens go back to the bucket, unless something was taken or
// reserved behind it: those turns were given out in the belief that this one would be used, and giving its tokens to
// somebody else could let more through at once than the burst. When all those behind it cancel too, everything goes
// back. Only the first call has an effect.
func (r *Reservation) Cancel() {
	if r.cancel != nil && !r.cancelled.Swap(true) {
		r.cancel()
	}
}

// sleep waits until the reservation is due or ctx ends; then it cancels the reservation and returns ctx.Err().
func (r *Reservation) sleep(ctx context.Context) error {
	wait := r.Delay()
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		if r.Delay() == 0 { // both came at once: the turn has come
			return nil
		}
		r.Cancel()
		return ctx.Err()
	}
}

// reserver makes a reservation of cost, the first of total tokens that are going to be reserved, that is due within
// MaxDelay.
type reserver func(ctx context.Context, cost, total float64, maxDelay time.Duration) (*Reservation, error)

// waitInTurn takes cost in instalments that the smallest burst allows and returns when the last is due. It fails at
// once, having spent nothing, when that would be after the context's deadline or later than maxWait from now.
func waitInTurn(ctx context.Context, set *limit.Set, cost float64, maxWait time.Duration, reserve reserver) error {
	if err := validateCost(cost); err != nil {
		return err
	}
	instalment := set.SmallestBurst()
	if cost-instalment == cost {
		return fmt.Errorf("%w: cost %v, and instalments of %v never add up to it", ErrExceedsBurst, cost, instalment)
	}
	end := time.Now().Add(maxWait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		part := cost
		if !set.Fits(part) {
			part = instalment
		}
		r, err := reserve(ctx, part, cost, max(0, time.Until(end)))
		if err != nil {
			return err
		}
		if err := r.sleep(ctx); err != nil {
			return err
		}
		if cost -= part; cost <= 0 {
			return nil
		}
		if err := leak(ctx, set, part); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil && !time.Now().Equal(end) { // at the very deadline the last turn is still in time
			return err
		}
	}
}

// leak sleeps until part has left every leaky bucket of the set: a next instalment would find them full of the last.
func leak(ctx context.Context, set *limit.Set, part float64) error {
	r := Reservation{due: time.Now().Add(set.LeakTime(part))}
	return r.sleep(ctx)
}
