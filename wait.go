package peerlimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Waiting. A wait is a reservation and a timer: the bucket says once how long the turn takes to come, having already
// counted the tokens, and whoever asks later is told a later turn. First come, first served follows from that
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
// maxDelay.
type reserver func(ctx context.Context, cost, total float64, maxDelay time.Duration) (*Reservation, error)

// waitInTurn takes cost in instalments that the smallest burst allows and returns when the last is due. It fails at
// once, having spent nothing, when that would be after the context's deadline or later than maxWait from now.
func waitInTurn(ctx context.Context, set *limitSet, cost float64, maxWait time.Duration, reserve reserver) error {
	if err := validateCost(cost); err != nil {
		return err
	}
	instalment := set.smallestBurst()
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
		if !set.fits(part) {
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
		if err := set.leak(ctx, part); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil && !time.Now().Equal(end) { // at the very deadline the last turn is still in time
			return err
		}
	}
}

// leak sleeps until part has left every leaky bucket of the set: a next instalment would find them full of the last.
func (set *limitSet) leak(ctx context.Context, part float64) error {
	var r Reservation
	for i := range set.meters[:set.active] {
		if m := &set.meters[i]; m.leaky {
			if due := time.Now().Add(m.nanos(part)); due.After(r.due) {
				r.due = due
			}
		}
	}
	return r.sleep(ctx)
}

// undo is what it takes to make a reservation as if it had never been: the bucket before it and after it. While the
// bucket is still as it was after, nothing was taken or reserved behind it. It is opaque to all but the bucket's holder.
type undo struct {
	before, after snapshot
}

// snapshot is a bucketState without its limits. The zero snapshot is that of no bucket.
type snapshot struct {
	at     int64
	count  int
	levels [MaxLimits]float64
}

// snapshot returns the state, or the zero snapshot when the bucket also remembers levels for other versions: their
// reservations cannot be undone, which is the safe side.
func (s *bucketState) snapshot() snapshot {
	if s.set.base != s.set {
		return snapshot{}
	}
	shot := snapshot{at: s.at, count: s.set.active}
	for i := range shot.count {
		shot.levels[i] = s.level(i)
	}
	return shot
}

// restore puts the levels back to what they were.
func (s *bucketState) restore(shot snapshot) {
	s.at = shot.at
	for i := range shot.count {
		s.setLevel(i, shot.levels[i])
	}
}

// reserve decides a and, when the answer is yes and can be undone, returns how.
func (s *bucketState) reserve(a *ask, now int64) (Decision, *undo) {
	s.adopt(a.set, now)
	before := s.snapshot()
	d := s.decide(a, now)
	after := s.snapshot()
	if !d.Allowed || before.count == 0 || after.count != before.count {
		return d, nil
	}
	return d, &undo{before: before, after: after}
}

// maxUndone bounds the reservations that were cancelled while others stood behind them. More than that many are spent.
const maxUndone = 256

// undone remembers reservations that were cancelled while others stood behind them, for the moment when those are
// cancelled too. The zero value is empty.
type undone struct {
	list []undo
}

// cancel gives the tokens of one reservation back to s, or remembers it until everything behind it was cancelled. exact
// reports that they went back at once.
func (c *undone) cancel(s *bucketState, u undo, now int64) (exact bool) {
	if u.after.count != s.set.active {
		return false // the limits have changed since
	}
	if s.snapshot() != u.after {
		c.remember(u, s, now)
		return false
	}
	for found := true; found; {
		s.restore(u.before)
		found = false
		for i := range c.list {
			if c.list[i].after == s.snapshot() {
				u, found = c.list[i], true
				c.list = append(c.list[:i], c.list[i+1:]...)
				break
			}
		}
	}
	return true
}

// remember keeps u until its turn would have come. By then those behind it are being served, one after the other, and it
// is ever less likely that all of them will be cancelled.
func (c *undone) remember(u undo, s *bucketState, now int64) {
	kept := c.list[:0]
	for _, old := range c.list {
		if old.pending(s.set, now) {
			kept = append(kept, old)
		}
	}
	c.list = kept
	if len(c.list) < maxUndone && u.pending(s.set, now) {
		c.list = append(c.list, u)
	}
}

// pending reports whether the turn of the reservation is still to come.
func (u *undo) pending(set *limitSet, now int64) bool {
	for i := range min(u.after.count, set.active) {
		m := &set.meters[i]
		if m.drain(u.after.levels[i], now-u.after.at) > m.burst || m.leaky && m.drain(u.after.levels[i], now-u.after.at) > 0 {
			return true
		}
	}
	return false
}
