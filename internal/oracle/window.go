package oracle

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A Window is a part of a run, edges included, and what happened in it, in
// tokens.
type Window struct {
	From, To time.Duration
	Admitted float64 // by takes whose whole call lies in the window
	Refunded float64 // by calls that have an instant in common with it
	Allowed  float64 // B + R·w + Refunded
}

// Excess is how much more was admitted than allowed; negative when less.
func (w Window) Excess() float64 { return w.Admitted - w.Allowed }

// window counts what lies in a window.
func (l Limit) window(takes, refunds []Take, from, to time.Duration) Window {
	var admitted, refunded sum
	for _, t := range takes {
		if t.within(from, to) {
			admitted.add(t.Cost)
		}
	}
	for _, t := range refunds {
		if t.touches(from, to) {
			refunded.add(t.Cost)
		}
	}
	w := Window{From: from, To: to, Admitted: admitted.value(), Refunded: refunded.value()}
	w.Allowed = l.Allowed(to-from) + w.Refunded
	return w
}

// worst returns the window with the greatest excess; there must be a take.
//
// Only windows from the start of some take to the end of some take need a look:
// any other window shrinks to one of these without losing a take, and shrinking
// lowers what is allowed. For such a window [s, e],
//
//	excess = (R·s + Σ cost) − (R·e + B)
//
// where the sum runs over takes with s ≤ Start and End ≤ e, less refunds with
// s ≤ End and Start ≤ e. For a fixed e the best s is the one with the greatest
// first parenthesis. So e sweeps over all ends, ascending; a call enters the
// sum when e reaches it (a take by its End, a refund by its Start), for every s
// up to a point (its Start, its End); and a tree over the starts answers which
// of those up to e is best. This takes O(n log n) time.
//
// The search rounds like any float64 sum, so a window may be passed over for
// another whose excess is less by at most 1e-14 of R·T plus all that was admitted,
// T being the run's length. What is returned is counted again within the window
// found.
func (l Limit) worst(takes, refunds []Take) Window {
	starts := distinct(takes, func(t Take) time.Duration { return t.Start })
	ends := distinct(takes, func(t Take) time.Duration { return t.End })
	takes, refunds = slices.Clone(takes), slices.Clone(refunds)
	slices.SortFunc(takes, func(a, b Take) int { return cmp.Compare(a.End, b.End) })
	slices.SortFunc(refunds, func(a, b Take) int { return cmp.Compare(a.Start, b.Start) })

	first := starts[0]
	tree := newSuffixTree(len(starts))
	opened, taken, refunded := 0, 0, 0
	var from, to time.Duration
	best := math.Inf(-1)
	for _, e := range ends {
		for ; opened < len(starts) && starts[opened] <= e; opened++ {
			tree.open(opened, l.inflow(starts[opened]-first))
		}
		for ; taken < len(takes) && takes[taken].End <= e; taken++ {
			tree.add(lastUpTo(starts, takes[taken].Start), takes[taken].Cost)
		}
		for ; refunded < len(refunds) && refunds[refunded].Start <= e; refunded++ {
			tree.add(lastUpTo(starts, refunds[refunded].End), -refunds[refunded].Cost)
		}
		value, s := tree.best()
		if excess := value - l.inflow(e-first); excess > best {
			best, from, to = excess, starts[s], e
		}
	}
	return l.window(takes, refunds, from, to)
}

// distinct returns the distinct values of an instant of takes, ascending.
func distinct(takes []Take, instant func(Take) time.Duration) []time.Duration {
	values := make([]time.Duration, len(takes))
	for i, t := range takes {
		values[i] = instant(t)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// lastUpTo returns the index of the last of the ascending values that is not
// above limit, or -1.
func lastUpTo(values []time.Duration, limit time.Duration) int {
	i, found := slices.BinarySearch(values, limit)
	if found {
		return i
	}
	return i - 1
}
