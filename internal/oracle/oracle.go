// Package oracle judges what a rate limiter admitted, with one ideal token
// bucket and no knowledge of how the limiter works.
//
// A run feeds an [Oracle] with every admitted take: when its call started, when
// it ended and what it cost. A limit of R tokens a second and burst B allows
// B + R·w tokens in any window of length w, wherever the window lies.
// [Oracle.Report] finds the window that exceeds this most, over all windows
// there are and not over a sample of them.
//
// A take counts in a window when its whole call lies in it, its edges included:
// the limiter decided at some instant of the call, nobody outside knows at
// which, and a call that reaches beyond the window may have been decided
// beyond it. So an excess that is reported did happen, and of an excess at the
// instants of decision as much may stay unseen as was being asked for in calls
// that straddle the window's edges. With calls of no duration nothing does.
//
// The oracle depends on nothing but the standard library, so it shares no bug
// with what it judges.
package oracle

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Tolerance is the rounding that a limiter computing in float64 is granted,
// relative to what is allowed. It is the only leeway there is; see
// [Report.Within] and [Oracle.Utilization].
const Tolerance = 1e-9

// A Limit allows Burst + Tokens·w/Period tokens in any window of length w.
type Limit struct {
	Tokens float64       // what flows in every Period; finite, at least 0
	Period time.Duration // more than 0
	Burst  float64       // what an untouched bucket holds; finite, at least 0, taken as it is
}

// Times returns the limit with Tokens and Burst multiplied by factor: what is
// allowed when a guarantee is a multiple of a limit.
func (l Limit) Times(factor float64) Limit {
	l.Tokens *= factor
	l.Burst *= factor
	return l
}

// Allowed returns the most that may be admitted in a window of length w, in
// tokens: B + R·w.
func (l Limit) Allowed(w time.Duration) float64 { return l.Burst + l.inflow(w) }

// inflow is R·w.
func (l Limit) inflow(w time.Duration) float64 {
	return l.Tokens * (float64(w) / float64(l.Period))
}

// A Take is one call that was admitted, or one that gave tokens back.
type Take struct {
	// Start and End bound the whole call, as durations since any instant that
	// is the same for all calls of a run. Start is not after End.
	Start, End time.Duration
	// Cost is in tokens, finite and at least 0.
	Cost float64
}

// An Oracle collects the takes of a run under one limit. Its methods are safe
// for concurrent use.
type Oracle struct {
	limit Limit

	mu      sync.Mutex // guards what follows
	takes   []Take
	refunds []Take
}

// New returns an oracle for a limit. It panics when the limit is out of range.
func New(limit Limit) *Oracle {
	limit.mustBeValid()
	return &Oracle{limit: limit}
}

// Admit records a take that was admitted. It panics when the take is out of
// range: a judge must not guess.
func (o *Oracle) Admit(take Take) {
	take.mustBeValid()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.takes = append(o.takes, take)
}

// Refund records a call that gave tokens back. They may be admitted once more,
// on top of what the limit allows, in every window that has an instant in
// common with the call: the generous reading, as the tokens came back at some
// instant of it. It panics when the take is out of range.
func (o *Oracle) Refund(refund Take) {
	refund.mustBeValid()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refunds = append(o.refunds, refund)
}

// Between returns an oracle for the same limit that knows only what happened in
// a part of the run, edges included: takes whose whole call lies in it, refunds
// that have an instant in common with it.
func (o *Oracle) Between(from, to time.Duration) *Oracle {
	takes, refunds := o.snapshot()
	return &Oracle{
		limit:   o.limit,
		takes:   slices.DeleteFunc(takes, func(t Take) bool { return !t.within(from, to) }),
		refunds: slices.DeleteFunc(refunds, func(t Take) bool { return !t.touches(from, to) }),
	}
}

// snapshot returns copies of what was recorded so far.
func (o *Oracle) snapshot() (takes, refunds []Take) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.takes), slices.Clone(o.refunds)
}

// within reports whether the whole call lies in a window.
func (t Take) within(from, to time.Duration) bool { return from <= t.Start && t.End <= to }

// touches reports whether the call and a window have an instant in common.
func (t Take) touches(from, to time.Duration) bool { return t.Start <= to && from <= t.End }

func (t Take) mustBeValid() {
	if t.Start > t.End || !isAmount(t.Cost) {
		panic(fmt.Sprintf("oracle: take out of range: %+v", t))
	}
}

func (l Limit) mustBeValid() {
	if !isAmount(l.Tokens) || !isAmount(l.Burst) || l.Period <= 0 {
		panic(fmt.Sprintf("oracle: limit out of range: %+v", l))
	}
}

// isAmount reports whether x is a number of tokens.
func isAmount(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }
