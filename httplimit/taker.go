package httplimit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/peerlimit/peerlimit"
)

// Taker takes cost tokens from the bucket of key, if they can be had now. A [*peerlimit.Limiter] is one.
type Taker interface {
	Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

// TakerFunc is a function as a [Taker], for a [peerlimit.Bucket], for [peerlimit.TakeAll] or for a test.
type TakerFunc func(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)

// Take calls f.
func (f TakerFunc) Take(ctx context.Context, key string, cost float64) (peerlimit.Decision, error) {
	return f(ctx, key, cost)
}

// awaiter is a Taker whose callers wait first come, first served, and move up when others leave, as those of a
// [*peerlimit.Limiter] do.
type awaiter interface {
	Await(ctx context.Context, key string, cost float64) (peerlimit.Decision, error)
}

// refunder is a Taker that takes back what was not used.
type refunder interface {
	Refund(ctx context.Context, key string, cost float64) error
}

// reserver is a Taker whose callers wait first come, first served.
type reserver interface {
	Reserve(ctx context.Context, key string, cost float64) (*peerlimit.Reservation, error)
}

// checkTaker refuses what would panic at the first request.
func checkTaker(taker Taker) error {
	if taker == nil {
		return fmt.Errorf("%w: taker is nil", ErrInvalid)
	}
	if v := reflect.ValueOf(taker); (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
		return fmt.Errorf("%w: taker is a nil %T", ErrInvalid, taker)
	}
	return nil
}

// turn is a decision. When it allows, the turn has come.
type turn struct {
	decision peerlimit.Decision

	// GiveBack returns the tokens of a turn that is not used after all; nil when they cannot be returned.
	giveBack func()
}

// awaitTurn takes cost tokens, and waits for them where that takes no longer than maxWait; otherwise the decision is a
// denial. A leaky bucket's delay is slept in any case: that is what the bucket is for. When ctx ends while it waits,
// the error is ctx.Err().
func awaitTurn(ctx context.Context, taker Taker, key string, cost float64, maxWait time.Duration) (turn, error) {
	if maxWait <= 0 {
		return takeNow(ctx, taker, key, cost)
	}
	if a, can := taker.(awaiter); can {
		return queue(ctx, a, taker, key, cost, maxWait)
	}
	if r, can := taker.(reserver); can {
		return reserveTurn(ctx, r, taker, key, cost, maxWait)
	}
	return pollTurn(ctx, taker, key, cost, maxWait)
}

// takeNow takes what can be had now.
func takeNow(ctx context.Context, taker Taker, key string, cost float64) (turn, error) {
	d, err := taker.Take(ctx, key, cost)
	if err == nil && d.Allowed && d.Delay > 0 {
		err = sleep(ctx, d.Delay)
	}
	if err != nil {
		return turn{}, err
	}
	return turn{decision: d}, nil
}

// queue waits for a turn, if it comes in time.
func queue(ctx context.Context, a awaiter, taker Taker, key string, cost float64, maxWait time.Duration) (turn, error) {
	bounded, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	d, err := a.Await(bounded, key, cost)
	var limited *peerlimit.LimitedError
	switch {
	case err == nil:
	case errors.As(err, &limited):
		return turn{decision: limited.Decision}, nil
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return takeNow(ctx, taker, key, cost) // its turn has not come in time, although it seemed so
	default:
		return turn{}, err
	}
	t := turn{decision: d}
	if r, can := taker.(refunder); can {
		t.giveBack = func() { _ = r.Refund(context.WithoutCancel(ctx), key, cost) } // lost is spent, the safe side
	}
	return t, nil
}

// reserveTurn takes a place in the queue, if its turn comes in time, and waits for it.
func reserveTurn(ctx context.Context, r reserver, taker Taker, key string, cost float64, maxWait time.Duration) (turn, error) {
	bounded, cancel := context.WithTimeout(ctx, maxWait) // the deadline bounds the delay
	defer cancel()
	reservation, err := r.Reserve(bounded, key, cost)
	var limited *peerlimit.LimitedError
	switch {
	case err == nil:
	case errors.As(err, &limited):
		return turn{decision: limited.Decision}, nil
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return takeNow(ctx, taker, key, cost) // so little time to wait that none was left for the request
	default:
		return turn{}, err
	}
	if err := sleep(ctx, reservation.Delay()); err != nil {
		reservation.Cancel()
		return turn{}, err
	}
	return turn{decision: reservation.Decision(), giveBack: reservation.Cancel}, nil
}

// pollTurn asks again whenever the tokens could be there. A call that comes later may be faster.
func pollTurn(ctx context.Context, taker Taker, key string, cost float64, maxWait time.Duration) (turn, error) {
	end := time.Now().Add(maxWait)
	if deadline, has := ctx.Deadline(); has && deadline.Before(end) {
		end = deadline
	}
	for {
		t, err := takeNow(ctx, taker, key, cost)
		if err != nil || t.decision.Allowed {
			return t, err
		}
		wait := t.decision.RetryAfter
		if wait <= 0 || wait > time.Until(end) { // 0: this denial does not say when
			return t, nil
		}
		if err := sleep(ctx, wait); err != nil {
			return turn{}, err
		}
	}
}

// sleep returns nil after d, or ctx.Err() as soon as ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
