package schedule

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit"
	"github.com/peerlimit/peerlimit/internal/oracle"
)

// caller is one user of a limiter on a node. It does one thing at a time.
type caller struct {
	*Run
	node    *nodeRun
	limiter *peerlimit.Limiter
	random  *rand.Rand
	hurry   *rand.Rand // draws deadlines, nil for none; apart, so that the seeds from before there were any still draw the same
	paused  bool       // its node was frozen during the last call
}

// call uses the keys of a plan in turn until the load ends or the node is closed.
func (c *caller) call(p *plan, keys []*keyRun) {
	timer := time.NewTimer(time.Duration(c.random.Int64N(int64(p.pause))))
	defer timer.Stop()
	for i := c.random.IntN(len(keys)); ; i++ {
		select {
		case <-c.stop:
			return
		case <-timer.C:
		}
		timer.Reset(p.pause/2 + time.Duration(c.random.Int64N(int64(p.pause))))
		k := keys[i%len(keys)]
		if p.remote && c.s.nodes > 1 && c.limiter.Owner(k.name) == c.node.node.Self() {
			continue
		}
		if !c.node.frozen.Load() && !c.use(k) {
			return
		}
	}
}

// burst takes as fast as it can, until there is nothing left, or enough is taken.
func (c *caller) burst(k *keyRun) (open bool) {
	admitted, open := true, true
	for n := 20 + c.random.IntN(400); n > 0 && admitted && open && !c.node.frozen.Load(); n-- {
		admitted, open = c.take(k, k.plan.cost)
	}
	return open
}

// meanPatience is how long one that waits does so on average before it hangs up, and mostPatience how long at most.
const (
	meanPatience = 500 * time.Millisecond
	mostPatience = 10 * meanPatience
)

// wait waits for a turn until it hangs up. Half of the callers say in advance when they will.
func (c *caller) wait(k *keyRun) (open bool) {
	patience := min(mostPatience, time.Millisecond+time.Duration(c.random.ExpFloat64()*float64(meanPatience)))
	ctx, cancel := context.WithCancel(context.Background())
	if c.random.IntN(2) == 0 {
		ctx, cancel = context.WithTimeout(context.Background(), patience)
	} else {
		defer time.AfterFunc(patience, cancel).Stop()
	}
	defer cancel()
	freezes := c.node.freezes.Load()
	start := c.now()
	d, err := c.limiter.Await(ctx, k.name, k.plan.cost)
	end := c.now()
	c.paused = c.node.frozen.Load() || c.node.freezes.Load() != freezes
	if end-start > patience && !c.paused {
		c.saw("slow calls", k, "%.3fs: a wait for %v on node%d took %v, and hung up after %v", start.Seconds(), k, c.node.number, end-start, patience)
	}
	switch {
	case err == nil:
		c.served(call{start, end, k, c.node.number, d.Origin, k.plan.cost, true, c.paused})
	case errors.Is(err, peerlimit.ErrLimited), errors.Is(err, ctx.Err()):
	case errors.Is(err, peerlimit.ErrClosed) && c.node.going.Load():
		return false
	default:
		c.saw("errors", k, "%.3fs: a wait for %v on node%d: %v", start.Seconds(), k, c.node.number, err)
	}
	return true
}

// served writes down a turn that came. Where nothing holds messages up it was granted a moment before its caller was told.
func (c *caller) served(made call) {
	if c.node.killed.Load() {
		return
	}
	since := made.start
	if prompt := c.s.family != faultFamily && c.s.family != handoverFamily && c.s.pieces == (pieces{}); prompt {
		since = max(since, made.end-callBound)
	}
	alone := made.origin == peerlimit.OriginFallback || made.origin == peerlimit.OriginStandby
	if alone && !c.mayFallBack() {
		c.saw("decided without the holder", made.key, "%.3fs: a wait for %v on node%d, by %v", made.start.Seconds(), made.key, made.node, made.origin)
	}
	c.mu.Lock()
	c.calls = append(c.calls, made)
	c.mu.Unlock()
	for _, o := range made.key.oracles {
		o.Admit(oracle.Take{Start: since, End: made.end, Cost: made.cost})
	}
}

// use makes the calls that a key is for, and reports whether the node is still open.
func (c *caller) use(k *keyRun) bool {
	switch {
	case k.plan.use == waiting:
		return c.wait(k)
	case k.plan.use == reserving:
		return c.reserve(k)
	case k.plan.use == bursting:
		return c.burst(k)
	case k.plan.use == resetting && c.random.IntN(8) == 0:
		_, _, open := c.timed(k, "reset", func() error { return c.limiter.Reset(context.Background(), k.name) })
		return open
	}
	admitted, open := c.take(k, k.plan.cost)
	if !admitted || !open || k.plan.use != refunding || c.random.IntN(2) == 0 {
		return open
	}
	amount := k.plan.cost / 2
	start, end, open := c.timed(k, "refund", func() error { return c.limiter.Refund(context.Background(), k.name, amount) })
	if c.s.lastEnd() > 0 && c.s.family != membershipFamily {
		end += time.Hour // a refund that a cut holds up comes when the cut has ended
	}
	for _, o := range k.oracles {
		o.Refund(oracle.Take{Start: start, End: end, Cost: amount})
	}
	return open
}

// maxHurry is the longest deadline of a caller in a hurry.
const maxHurry = 50 * time.Millisecond

// deadline returns a context that ends in so long, unless the caller is in a hurry, as with one of eight calls: then sooner. 0
// is never. in is how long that is.
func (c *caller) deadline(usual time.Duration) (ctx context.Context, cancel func(), in time.Duration) {
	in = usual
	if c.hurry != nil && c.hurry.IntN(8) == 0 {
		in = time.Duration(float64(time.Millisecond) * math.Pow(float64(maxHurry/time.Millisecond), c.hurry.Float64()))
	}
	if in == 0 {
		return context.Background(), func() {}, 0
	}
	ctx, cancel = context.WithTimeout(context.Background(), in)
	return ctx, cancel, in
}

// hurried is timed for a call with a deadline. What it asks for may have been spent when that passes before there is a response.
func (c *caller) hurried(k *keyRun, what string, in time.Duration, do func() error) (start, end time.Duration, open bool) {
	var err error
	start, end, open = c.timed(k, what, func() error {
		if err = do(); errors.Is(err, context.DeadlineExceeded) && in > 0 && in <= maxHurry {
			return nil
		}
		return err
	})
	if in > 0 && end-start > in && !c.paused {
		c.saw("slow calls", k, "%.3fs: %s %v from node%d took %v, with a deadline of %v", start.Seconds(), what, k, c.node.number, end-start, in)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		c.mu.Lock()
		c.lost = append(c.lost, call{start, end, k, c.node.number, 0, k.plan.cost, false, c.paused})
		c.mu.Unlock()
	}
	return start, end, open
}

// timed makes a call, judges how long it took and whether it failed, and reports whether the node is still open.
func (c *caller) timed(k *keyRun, what string, do func() error) (start, end time.Duration, open bool) {
	start = c.now()
	freezes := c.node.freezes.Load()
	err := do()
	end = c.now()
	c.paused = c.node.frozen.Load() || c.node.freezes.Load() != freezes // the process itself, the caller with it
	if end-start > callBound && !c.paused {
		c.saw("slow calls", k, "%.3fs: %s %v from node%d took %v", start.Seconds(), what, k, c.node.number, end-start)
	}
	switch {
	case err == nil, errors.Is(err, peerlimit.ErrLimited):
	case errors.Is(err, context.DeadlineExceeded) && c.paused: // its deadline passed while it stood still
	case errors.Is(err, peerlimit.ErrClosed) && c.node.going.Load():
		return start, end, false
	case errors.Is(err, peerlimit.ErrUnreachable) && what == "reset" && c.mayFallBack():
	default:
		c.saw("errors", k, "%.3fs: %s %v from node%d: %v", start.Seconds(), what, k, c.node.number, err)
	}
	return start, end, true
}

// mayFallBack reports whether decisions by other than the holder are no failure in themselves.
func (c *caller) mayFallBack() bool {
	return c.s.family != membershipFamily && c.s.family != steadyFamily // in the pieces family shares are 0
}

// take takes from a key and reports whether that was admitted, and whether the node is still open.
func (c *caller) take(k *keyRun, cost float64) (admitted, open bool) {
	var d peerlimit.Decision
	var err error
	ctx, cancel, in := c.deadline(0)
	defer cancel()
	start, end, open := c.hurried(k, "take", in, func() error {
		d, err = c.limiter.Take(ctx, k.name, cost)
		return err
	})
	if err == nil {
		c.decided(call{start, end, k, c.node.number, d.Origin, cost, d.Allowed, c.paused}, 0)
	}
	return d.Allowed, open
}

// reserve reserves, and then either cancels or uses what it got when it is due.
func (c *caller) reserve(k *keyRun) (open bool) {
	ctx, cancel, in := c.deadline(300 * time.Millisecond)
	defer cancel()
	var reservation *peerlimit.Reservation
	var err error
	start, end, open := c.hurried(k, "reserve", in, func() error {
		reservation, err = c.limiter.Reserve(ctx, k.name, k.plan.cost)
		return err
	})
	if err != nil {
		return open
	}
	if c.random.IntN(2) == 0 {
		reservation.Cancel()
		return true
	}
	d := reservation.Decision()
	c.decided(call{start, end, k, c.node.number, d.Origin, k.plan.cost, true, c.paused}, d.Delay)
	return true
}

// decided writes a decision down, for use after a delay.
func (c *caller) decided(made call, delay time.Duration) {
	if c.node.killed.Load() {
		return
	}
	alone := made.origin == peerlimit.OriginFallback || made.origin == peerlimit.OriginStandby
	if alone && !c.mayFallBack() {
		c.saw("decided without the holder", made.key, "%.3fs: %v on node%d, by %v", made.start.Seconds(), made.key, made.node, made.origin)
	}
	c.mu.Lock()
	c.calls = append(c.calls, made)
	c.mu.Unlock()
	if !made.admitted {
		return
	}
	for _, o := range made.key.oracles {
		o.Admit(oracle.Take{Start: made.start + delay, End: made.end + delay, Cost: made.cost})
	}
}

// spentInVain returns how many tokens of a key may have been spent for callers that did not wait for the response.
func (r *Run) spentInVain(k *keyRun, from, to time.Duration) (tokens float64) {
	for _, c := range r.lost {
		if c.key == k && c.start <= to && c.end+callBound >= from {
			tokens += c.cost
		}
	}
	return tokens
}

// admitted returns how many tokens of a key were given out by calls that have an instant in common with a window.
func (r *Run) admitted(k *keyRun, from, to time.Duration) (tokens float64) {
	for _, c := range r.calls {
		if c.key == k && c.admitted && c.start <= to && c.end >= from {
			tokens += c.cost
		}
	}
	return tokens
}

// admittedByLease is admitted, but by leases, and after from: what was leased before.
func (r *Run) admittedByLease(k *keyRun, from, to time.Duration) (tokens float64) {
	for _, c := range r.calls {
		if c.key == k && c.origin == peerlimit.OriginLease && c.admitted && c.start > from && c.start <= to {
			tokens += c.cost
		}
	}
	return tokens
}

// admittedOn is admitted, but by calls that were made on one node.
func (r *Run) admittedOn(node int, k *keyRun, from, to time.Duration) (tokens float64) {
	for _, c := range r.calls {
		if c.key == k && c.node == node && c.admitted && c.start <= to && c.end >= from {
			tokens += c.cost
		}
	}
	return tokens
}

// callsOf returns the calls for a key in the order in which they ended.
func (r *Run) callsOf(k *keyRun) (calls []call) {
	for _, c := range r.calls {
		if c.key == k {
			calls = append(calls, c)
		}
	}
	slices.SortStableFunc(calls, func(a, b call) int { return int(a.end - b.end) })
	return calls
}
