package grpclimit

import (
	"context"
	"errors"
	"time"

	"github.com/peerlimit/peerlimit"
)

// minPause bounds how often a Taker that denies and names no time is asked.
const minPause = time.Millisecond

// key returns the key of a call.
func (l *Limit) key(ctx context.Context, call Call) (string, error) {
	switch {
	case l.options.Key != nil:
		return l.options.Key(ctx, call)
	case call.Client:
		return Target(ctx, call)
	}
	return PeerIP(ctx, call)
}

// begin takes for a call as it begins and returns the error that it fails with, or its key, "" when none is known.
func (l *Limit) begin(ctx context.Context, call Call) (key string, err error) {
	cost := 1.0
	if l.options.Cost != nil {
		cost = l.options.Cost(ctx, call)
	}
	if cost == 0 && l.options.MessageCost == nil {
		return "", nil
	}
	key, err = l.key(ctx, call)
	if err != nil {
		return "", l.failed(ctx, call, err)
	}
	return key, l.admit(ctx, call, key, cost)
}

// admit takes cost tokens, waiting for them as long as the call may, and returns the error that it fails with.
func (l *Limit) admit(ctx context.Context, call Call, key string, cost float64) error {
	if cost == 0 {
		return nil
	}
	d, err := l.await(ctx, key, cost, l.maxWait(call))
	if err != nil {
		return l.failed(ctx, call, err)
	}
	if !d.Allowed {
		return l.denied(ctx, call, d)
	}
	return nil
}

// await takes cost tokens. A decision that allows is about a turn that has come; one that denies about a turn that would
// come too late.
func (l *Limit) await(ctx context.Context, key string, cost float64, maxWait time.Duration) (peerlimit.Decision, error) {
	end := time.Now().Add(maxWait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	for {
		d, err := l.taker.Take(ctx, key, cost)
		if err != nil {
			return d, err
		}
		if d.Allowed {
			return d, sleep(ctx, d.Delay)
		}
		if maxWait == 0 || time.Now().Add(d.RetryAfter).After(end) {
			return d, nil
		}
		if a, can := l.taker.(awaiter); can {
			return queue(ctx, a, key, cost, end, d)
		}
		if r, can := l.taker.(reserver); can {
			return reserve(ctx, r, key, cost, end, d)
		}
		if err := sleep(ctx, max(d.RetryAfter, minPause)); err != nil {
			return d, err
		}
	}
}

// queue waits for a turn that comes before end; denial is what was decided just now.
func queue(ctx context.Context, a awaiter, key string, cost float64, end time.Time, denial peerlimit.Decision) (peerlimit.Decision, error) {
	bounded, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	d, err := a.Await(bounded, key, cost)
	if limited := (*peerlimit.LimitedError)(nil); errors.As(err, &limited) {
		return limited.Decision, nil
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return denial, nil // its turn has not come in time, although it seemed so
	}
	return d, err
}

// reserve waits for a turn that comes before end. When end comes before it is known whether there is one, the call stays
// denied as it was.
func reserve(ctx context.Context, r reserver, key string, cost float64, end time.Time, denied peerlimit.Decision) (peerlimit.Decision, error) {
	bounded, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	turn, err := r.Reserve(bounded, key, cost)
	if limited := (*peerlimit.LimitedError)(nil); errors.As(err, &limited) {
		return limited.Decision, nil
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return denied, nil
	}
	if err != nil {
		return peerlimit.Decision{}, err
	}
	if err := sleep(ctx, turn.Delay()); err != nil {
		turn.Cancel()
		return peerlimit.Decision{}, err
	}
	return turn.Decision(), nil
}

// sleep returns after d, or when ctx ends with its error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
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
