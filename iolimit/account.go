package iolimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit"
)

const (
	// idleTime is how long bytes that were taken ahead are kept for the calls that follow.
	idleTime = 20 * time.Millisecond

	// refundTimeout bounds giving back. A Limiter takes far less.
	refundTimeout = time.Second

	// minPause and maxPause bound the time between two requests to a Taker that denies: one that names no time must not be
	// asked without a pause, and where the queue was too long there may soon be room.
	minPause = time.Millisecond
	maxPause = time.Second
)

// account pays for the bytes of one direction. What it has taken and not used it keeps as credit, for a moment.
type account struct {
	Bandwidth
	awaiter  awaiter  // nil when Taker has no Await
	reserver reserver // nil when Taker has no Reserve
	refunder refunder // nil when Taker has no Refund
	values   context.Context

	turn chan struct{} // capacity 1: a call reads or writes

	// These belong to the call that has the turn.
	pace   pace
	queued bool // the last take had to wait, so the next asks for a turn without trying first

	// mu guards the fields below, for a few instructions.
	mu      sync.Mutex
	credit  int
	takenAt time.Time // when something was taken last
	closed  bool
	timer   *time.Timer // gives credit back; nil when there is nothing to do

	returns sync.WaitGroup // timers that are set, and calls that give back in close
}

// newAccount returns an account that asks with the values of ctx.
func newAccount(ctx context.Context, b Bandwidth) *account {
	if b.MaxTake == 0 {
		b.MaxTake = DefaultMaxTake
	}
	a := &account{Bandwidth: b, values: context.WithoutCancel(ctx), turn: make(chan struct{}, 1), pace: pace{max: b.MaxTake}}
	a.awaiter, _ = b.Taker.(awaiter)
	a.reserver, _ = b.Taker.(reserver)
	a.refunder, _ = b.Taker.(refunder)
	return a
}

// enter waits until no other call reads or writes, or ctx ends. A call that has entered must leave.
func (a *account) enter(ctx context.Context) error {
	if err := interruption(ctx); err != nil {
		return err
	}
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return interruption(ctx)
	}
}

func (a *account) leave() { <-a.turn }

// piece returns how many of n bytes to move in one step.
func (a *account) piece(n int) int { return min(n, a.pace.piece(time.Now())) }

// pay returns when bytes may pass, and how many of n, which is positive: all but where the burst has no room for them.
func (a *account) pay(ctx context.Context, n int) (paid int, err error) {
	have := a.spend(n)
	if have == n {
		return n, nil
	}
	taken, err := a.take(ctx, n-have)
	if err != nil {
		a.unpay(have)
		return 0, err
	}
	paid = min(n, have+taken)
	a.pace.used += paid - have
	a.keep(have + taken - paid)
	return paid, nil
}

// unpay says that n bytes that were paid for have not passed.
func (a *account) unpay(n int) {
	a.pace.used -= n
	a.keep(n)
}

// take takes need bytes, or more, or what fits into the burst, and returns how many.
func (a *account) take(ctx context.Context, need int) (int, error) {
	bytes := need
	if a.refunder != nil {
		bytes = max(need, a.pace.ahead(time.Now()))
	}
	bytes = min(bytes, a.pace.max)
	for {
		limit, err := a.takeInTurn(ctx, bytes)
		if errors.Is(err, peerlimit.ErrExceedsBurst) && bytes > 1 {
			bytes = a.pace.exceeded(bytes)
			continue
		}
		if err != nil {
			return 0, err
		}
		now := time.Now()
		a.pace.granted(bytes, limit, now)
		a.mu.Lock()
		a.takenAt = now
		a.mu.Unlock()
		if err := interruption(ctx); err != nil { // while the request was under way
			a.keep(bytes)
			return 0, err
		}
		return bytes, nil
	}
}

// takeInTurn takes so many bytes and returns when they may pass, with the limit that says so.
func (a *account) takeInTurn(ctx context.Context, bytes int) (peerlimit.Limit, error) {
	for {
		if err := interruption(ctx); err != nil {
			return peerlimit.Limit{}, err
		}
		var pause time.Duration
		if !a.queued {
			d, err := a.Taker.Take(a.values, a.Key, float64(bytes))
			if err != nil {
				return d.Limit, fmt.Errorf("iolimit: %w", err)
			}
			if d.Allowed {
				return d.Limit, sleepOr(ctx, d.Delay, func() { a.giveBack(bytes) })
			}
			pause = d.RetryAfter
		}
		if a.awaiter != nil || a.reserver != nil {
			limit, err := a.queue(ctx, bytes)
			var limited *peerlimit.LimitedError
			if !errors.As(err, &limited) {
				return limit, err
			}
			a.queued, pause = false, limited.Decision.RetryAfter
		}
		if err := sleep(ctx, min(max(pause, minPause), maxPause)); err != nil {
			return peerlimit.Limit{}, err
		}
	}
}

// queue waits for the turn of so many bytes.
func (a *account) queue(ctx context.Context, bytes int) (peerlimit.Limit, error) {
	if a.awaiter == nil {
		return a.reserve(ctx, bytes)
	}
	began := time.Now()
	d, err := a.awaiter.Await(valuesOf{ctx, a.values}, a.Key, float64(bytes))
	a.queued = time.Since(began) > minPause // or else the queue was short
	if err != nil && interruption(ctx) != nil {
		return d.Limit, interruption(ctx)
	}
	if err != nil {
		return d.Limit, fmt.Errorf("iolimit: %w", err)
	}
	return d.Limit, nil
}

// reserve is queue for a Taker that only has turns that are fixed.
func (a *account) reserve(ctx context.Context, bytes int) (peerlimit.Limit, error) {
	r, err := a.reserver.Reserve(a.values, a.Key, float64(bytes))
	if err != nil {
		return peerlimit.Limit{}, fmt.Errorf("iolimit: %w", err)
	}
	wait := r.Delay()
	a.queued = wait > 0
	return r.Decision().Limit, sleepOr(ctx, wait, r.Cancel)
}

// valuesOf is a context that ends with one and has the values of another.
type valuesOf struct {
	context.Context
	values context.Context
}

func (v valuesOf) Value(key any) any { return v.values.Value(key) }

// sleepOr sleeps, and when ctx ends first it calls undo.
func sleepOr(ctx context.Context, d time.Duration, undo func()) error {
	err := sleep(ctx, d)
	if err != nil {
		undo()
	}
	return err
}

// spend uses up to n bytes of the credit and returns how many.
func (a *account) spend(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n = min(n, a.credit)
	a.credit -= n
	a.pace.used += n
	return n
}

// keep adds n bytes to the credit. When the account was closed it gives them back.
func (a *account) keep(n int) {
	a.mu.Lock()
	closed := a.closed
	if !closed {
		a.credit += n
		a.watchCredit(idleTime)
	}
	a.mu.Unlock()
	if closed {
		a.giveBack(n)
	}
}

// watchCredit sees to it that credit is looked at in that time. The caller holds mu.
func (a *account) watchCredit(in time.Duration) {
	if a.credit > 0 && a.timer == nil && a.refunder != nil && !a.closed {
		a.returns.Add(1)
		a.timer = time.AfterFunc(in, a.giveBackIdle)
	}
}

// giveBackIdle gives the credit back if nothing was taken lately, and otherwise looks again later.
func (a *account) giveBackIdle() {
	defer a.returns.Done()
	idle := 0
	a.mu.Lock()
	a.timer = nil
	if rest := idleTime - time.Since(a.takenAt); rest > 0 {
		a.watchCredit(rest)
	} else {
		idle, a.credit = a.credit, 0
	}
	a.mu.Unlock()
	a.giveBack(idle)
}

// close gives the credit back, and returns when everything that was to be given back has been, by this call or another one. A call under
// way gives back what it has itself.
func (a *account) close() {
	if rest, first := a.end(); first {
		a.giveBack(rest)
		a.returns.Done()
	}
	a.returns.Wait()
}

// end closes the account for the first caller, and leaves to it the credit and one of returns.
func (a *account) end() (rest int, first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return 0, false
	}
	a.closed = true
	a.returns.Add(1)
	if a.timer != nil && a.timer.Stop() {
		a.returns.Done()
	}
	a.timer = nil
	rest, a.credit = a.credit, 0
	return rest, true
}

// GiveBack returns bytes to the bucket. What does not get there stays taken, which is the safe side.
func (a *account) giveBack(bytes int) {
	if bytes == 0 || a.refunder == nil {
		return
	}
	ctx, cancel := context.WithTimeout(a.values, refundTimeout)
	defer cancel()
	_ = a.refunder.Refund(ctx, a.Key, float64(bytes))
}
